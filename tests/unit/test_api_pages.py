"""Pages made from rows say byte for byte what the definition of a measurement says."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import json_pages
from api.documents import Page
from api.json_pages import latest_json, measurements_json, page_json
from api.json_rows import latest_documents, measurement_document
from api.measurement_rows import VALUES_AT, read_measurement
from gateway.measurement import TimeQuality
from gateway.quantity import Absent
from gateway.vital_sign import QUANTITIES_MAX
from gateway.vitals import SIGNS

Row = tuple[Any, ...]


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """A row as the database gives it, of any sign, unit, digits, absences and status."""
    sign = draw(st.sampled_from(SIGNS))
    values: list[float | None] = [None] * QUANTITIES_MAX
    digits = 0
    for index in range(len(sign.quantities)):
        exponent = draw(st.sampled_from([-3, -2, -1, 0, 1]))
        digits |= (exponent & 0xFF) << (8 * index)
        absent = draw(st.sampled_from([None, None, *Absent]))
        if absent is not None:
            digits |= absent.value << (40 + 4 * index)
        number = draw(st.floats(-1e6, 1e6, allow_nan=False))
        values[index] = None if absent else number
    moments = st.integers(-(10**15), 6 * 10**15)
    fixed = (
        draw(moments),
        draw(st.integers(0, 2**31 - 1)),
        draw(st.sampled_from([0, 1, 255])),
        sign.code,
        draw(st.integers(-(2**60), 2**60)),
        draw(moments),
        draw(st.floats(-1e5, 1e5, width=32)),
        draw(st.sampled_from([None, 32, -14, 0])),
        draw(st.sampled_from([quality.value for quality in TimeQuality])),
        draw(st.integers(0, len(sign.unit_sets) - 1)),
        digits,
        draw(st.integers(0, 63)),
        draw(st.integers(0, 63)),
    )
    return (
        *fixed,
        *values,
        draw(st.sampled_from(["C0:26:DA:01:02:03", "C0:26:DA:01:02:04", 'a"\\b'])),
    )


@given(rows())
def test_a_row_says_what_its_document_says(row: Row) -> None:
    said = orjson.dumps(measurement_document(read_measurement(row)))
    assert measurements_json([row, row]) == [said, said]


@given(st.lists(rows(), max_size=4))
def test_a_page_says_what_its_document_says(some: list[Row]) -> None:
    documents = [measurement_document(read_measurement(row)) for row in some]
    whole: Page[Any] = Page(items=documents, next=None)
    assert page_json(some, 4) == orjson.dumps(whole)
    if len(some) > 1:
        part: Page[Any] = Page(items=documents[:1], next=documents[0].id)
        assert page_json(some, 1) == orjson.dumps(part)


@given(st.lists(rows(), max_size=6, unique_by=lambda row: row[:5]))
def test_the_latest_say_what_their_documents_say(some: list[Row]) -> None:
    documents = latest_documents([read_measurement(row) for row in some])
    assert latest_json(some) == orjson.dumps(documents)


def test_a_city_of_devices_needs_no_more_templates_than_a_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were one a device: beyond some thousand devices each answer was made by the definition."""
    template_of = Mock(wraps=json_pages._template)
    monkeypatch.setattr(json_pages, "_templates", {})
    monkeypatch.setattr(json_pages, "_template", template_of)
    row = (0, 1, 255, SIGNS[0].code, 0, 0, 1.0, 32, 1, 0, 0, 0, 0, *[80.0] * QUANTITIES_MAX)
    addresses = [f"C0:26:DA:01:{n >> 8:02X}:{n & 255:02X}" for n in range(10_000)]
    page = measurements_json([(*row, address) for address in addresses])
    assert [orjson.loads(one)["device"] for one in page] == addresses
    assert template_of.call_count == 1


def test_a_percent_sign_is_only_a_percent_sign() -> None:
    """Oxygen saturation counts in %: a template must not take it for a place to fill."""
    row = [97.0] * (VALUES_AT + QUANTITIES_MAX) + ["C0:26:DA:01:02:03"]
    sign = next(s for s in SIGNS if any(q.unit.ucum == "%" for q in s.quantities))
    row[:13] = [0, 1, 255, sign.code, 0, 9_000_000, 1.0, 32, 1, 0, 0, 0, 0]
    assert b'"unit":"%"' in measurements_json([tuple(row)])[0]
