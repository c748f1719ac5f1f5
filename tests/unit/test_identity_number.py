"""Resident identity numbers, by the published samples of GB 11643 and by what may befall them."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity_number import (
    NumberError,
    NumberFault,
    Sex,
    check_character,
    read_card_number,
    read_identity_number,
)

TODAY = date(2026, 11, 25)
SAMPLES = ("11010519491231002X", "440524188001010014", "34052419800101001X")
"""Published with the standard."""


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_published_sample_passes(sample: str) -> None:
    assert read_identity_number(sample, TODAY).text == sample


def test_a_number_tells_the_date_of_birth_and_the_sex() -> None:
    number = read_identity_number("11010519491231002x", TODAY)
    assert (number.birth_date, number.sex) == (date(1949, 12, 31), Sex.FEMALE)
    assert read_identity_number("440524188001010014", TODAY).sex is Sex.MALE
    assert "1949" not in repr(number)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", NumberFault.FORM),
        ("1101051949123100", NumberFault.FORM),
        ("11010519491231002Y", NumberFault.FORM),
        ("1101051949123100\uff12X", NumberFault.FORM),
        ("01010519491231002X", NumberFault.FORM),
        ("110105194912310020", NumberFault.CHECK),
        ("110105194902310021", NumberFault.BIRTH_DATE),
        ("110105203012310021", NumberFault.BIRTH_DATE),
    ],
)
def test_what_is_no_number_is_refused_by_its_fault(text: str, fault: NumberFault) -> None:
    with pytest.raises(NumberError) as refused:
        read_identity_number(text, TODAY)
    assert refused.value.fault is fault
    assert not text or text not in str(refused.value)


@given(
    st.sampled_from(SAMPLES),
    st.integers(0, 16),
    st.integers(1, 9),
)
def test_every_single_wrong_digit_is_found(sample: str, place: int, by: int) -> None:
    wrong = str((int(sample[place]) + by) % 10)
    assert check_character(sample[:place] + wrong + sample[place + 1 : 17]) != sample[17]


@given(st.sampled_from(SAMPLES), st.integers(0, 15))
def test_every_swap_of_neighbours_is_found(sample: str, place: int) -> None:
    digits = list(sample[:17])
    if digits[place] == digits[place + 1]:
        return
    digits[place], digits[place + 1] = digits[place + 1], digits[place]
    assert check_character("".join(digits)) != sample[17]


def test_a_card_number_is_taken_without_its_spaces() -> None:
    assert read_card_number("a123 4567-89") == "A123456789"
    for wrong in ("", "12345", "1" * 33, "12345六"):
        with pytest.raises(NumberError):
            read_card_number(wrong)
