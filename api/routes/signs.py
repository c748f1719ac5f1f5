"""The registry of vital signs as documentation: what the words in measurements mean."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from fastapi.responses import Response

from api.documents import (
    PlausibleRange,
    QuantityDocument,
    RuleDocument,
    SignDocument,
    StatusDocument,
    Vocabulary,
)
from api.routes.parameters import PREFIX, json_response
from gateway.measurement import TimeQuality
from gateway.quantity import Absent
from gateway.vital_sign import VitalSign
from gateway.vitals import SIGNS

router = APIRouter(prefix=PREFIX, tags=["词汇 / vocabulary"])


@router.get(
    "/signs",
    summary="体征 / vital signs",
    response_model=Vocabulary,
)
async def read_signs() -> Response:
    """Describe the signs: quantities, units, codes, ranges, statuses, and rules."""
    return json_response(vocabulary(SIGNS))


def vocabulary(signs: Sequence[VitalSign]) -> Vocabulary:
    """Return what the API says of a registry."""
    return Vocabulary(
        signs=[_sign(sign) for sign in signs],
        absences=[absent.name.lower() for absent in Absent],
        time_qualities=[quality.name.lower() for quality in TimeQuality],
    )


def _sign(sign: VitalSign) -> SignDocument:
    return SignDocument(
        name=sign.name,
        title=sign.title,
        loinc=sign.loinc,
        mdc=sign.mdc,
        quantities=[_quantity(sign, index) for index in range(len(sign.quantities))],
        statuses=[
            StatusDocument(name=status.name, title=status.title, artefact=status.artefact)
            for status in sign.statuses
        ],
        rules=[RuleDocument(name=rule.name, says=rule.says) for rule in sign.rules],
    )


def _quantity(sign: VitalSign, index: int) -> QuantityDocument:
    quantity = sign.quantities[index]
    plausible = quantity.plausible
    return QuantityDocument(
        name=quantity.name,
        title=quantity.title,
        unit=quantity.unit.ucum,
        units=list(dict.fromkeys(units.units[index].ucum for units in sign.unit_sets)),
        loinc=quantity.loinc,
        mdc=quantity.mdc,
        plausible=PlausibleRange(low=plausible.low, high=plausible.high, source=plausible.source),
    )
