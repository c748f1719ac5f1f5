"""Who gets what of every route: one entry a route, one status a case. A new route needs its entry here.

An entry is one of the shapes below (`VALUES`, `RECORD`, ...) or a shape of its own. `{resident}` in a
path, a query or a body is filled in with the resident of the case; GET is asked before everything else, so that what a
write changes does not change what is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CASES = (
    "nobody",  # no token
    "resident_own",  # a resident asks for their own archive
    "resident_other",  # ... for another's
    "clinician_team",  # a clinician asks for a resident of their care team
    "clinician_outside",  # ... for another
    "clinician_refused",  # ... for one of the care team who refuses them
    "clinician_glass",  # ... for one outside it, after breaking the glass
    "coordinator_team",
    "coordinator_outside",
    "administrator",
    "service",  # scopes: system/*.rs hearth/operations hearth/links hearth/targets
    "service_narrow",  # scope: system/Device.rs
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What each case is answered, in the order of `CASES`; and what is sent."""

    statuses: tuple[int, ...]
    body: dict[str, Any] | None = None
    query: str = ""
    opaque: bool = False
    """Whether a word is in its answer says nothing: no text, or the word is a key of every answer."""

    def expected(self, case: str) -> int:
        """The status for one case."""
        assert len(self.statuses) == len(CASES)
        return self.statuses[CASES.index(case)]


def _all(status: int, nobody: int = 401) -> tuple[int, ...]:
    return (nobody, *(len(CASES) - 1) * (status,))


#          nobody own other team out refused glass co-team co-out admin service narrow
VALUES = (401, 200, 403, 200, 403, 403, 200, 403, 403, 403, 200, 403)
RECORD = (401, 200, 403, 200, 403, 403, 200, 200, 403, 200, 200, 403)
AUDIT = (401, 200, 403, 403, 403, 403, 403, 403, 403, 200, 200, 403)
LISTS = (401, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 403)
NOTICES = (401, 200, 200, 403, 403, 403, 403, 403, 403, 200, 200, 403)
EQUIPMENT = (401, 403, 403, 403, 403, 403, 403, 200, 200, 200, 200, 200)
OPERATIONS = (401, 403, 403, 403, 403, 403, 403, 403, 403, 200, 200, 403)
CONSENT = (401, 200, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403)
GLASS = (401, 403, 403, 201, 201, 201, 201, 403, 403, 403, 403, 403)
SEARCH = (401, 403, 403, 200, 200, 200, 200, 200, 200, 200, 200, 403)
TARGETS = (401, 403, 403, 200, 403, 403, 200, 403, 403, 403, 200, 403)
LINKS = (401, 403, 403, 403, 403, 403, 403, 200, 403, 200, 200, 403)
CLAIMS = (401, 200, 403, 403, 403, 403, 403, 200, 403, 200, 200, 403)
NO_READING = tuple(404 if status == 200 else status for status in CLAIMS)
WORKLIST = (401, 403, 403, 200, 200, 200, 200, 200, 200, 403, 200, 403)
CARED_FOR = (401, 200, 200, 200, 200, 200, 200, 403, 403, 403, 403, 403)
NO_ALERT = tuple(404 if status == 200 else status for status in VALUES)
NOT_SETTLED = (401, 403, *(409 if status == 200 else status for status in VALUES[2:]))
"""A resident does not settle alerts; for others there is none to settle."""
NO_OFFICE = _all(503, nobody=503)
"""The application of the tests enrols no hubs; who does needs no token."""
SIGNED_IN = _all(200)
OPEN = _all(200, nobody=200)
NOTHING = (401, *10 * (404,), 403)
"""What is asked for is not there; whoever's scopes do not say the resource is not told so."""
NOT_SERVED = _all(501)
"""The application of the tests has no folder for exports."""
BAD_REQUEST = _all(400, nobody=400)
NO_GATEWAY = _all(403)
"""Only services whose scopes say so create, and none of the cases' does."""

PATIENT = "?patient={resident}"
FILLED = {
    "alert": "00000000-0000-0000-0000-000000000000",
    "id": "nothing",
    "kind": "Patient",
    "export": "00000000-0000-0000-0000-000000000000",
    "subscription": "00000000-0000-0000-0000-000000000000",
}
"""What stands for the other parts of paths: ids of nothing."""
_LINK = {"device": "C0:26:DA:01:02:03", "user_slot": 9, "resident": "{resident}"}

MATRIX: dict[tuple[str, str], Entry] = {
    ("GET", "/healthz"): Entry(statuses=OPEN),
    ("GET", "/readyz"): Entry(statuses=OPEN),
    ("GET", "/.well-known/openid-configuration"): Entry(statuses=OPEN),
    ("GET", "/.well-known/oauth-authorization-server"): Entry(statuses=OPEN),
    ("GET", "/oauth/jwks"): Entry(statuses=OPEN),
    ("GET", "/oauth/authorize"): Entry(statuses=BAD_REQUEST),
    ("POST", "/oauth/authorize"): Entry(statuses=BAD_REQUEST),
    ("POST", "/oauth/token"): Entry(statuses=BAD_REQUEST),
    ("POST", "/oauth/revoke"): Entry(statuses=BAD_REQUEST),
    ("GET", "/openapi.json"): Entry(statuses=SIGNED_IN),
    ("GET", "/metrics"): Entry(statuses=OPERATIONS),
    ("GET", "/api/v1/health"): Entry(statuses=SIGNED_IN),
    ("GET", "/api/v1/signs"): Entry(statuses=SIGNED_IN),
    ("GET", "/api/v1/me"): Entry(statuses=SIGNED_IN),
    ("GET", "/api/v1/notices"): Entry(statuses=NOTICES),
    ("GET", "/api/v1/residents"): Entry(statuses=LISTS),
    ("GET", "/api/v1/residents/{resident}"): Entry(statuses=RECORD),
    ("GET", "/api/v1/residents/{resident}/measurements"): Entry(statuses=VALUES),
    ("GET", "/api/v1/residents/{resident}/latest"): Entry(statuses=VALUES),
    ("GET", "/api/v1/residents/{resident}/audit"): Entry(statuses=AUDIT),
    ("GET", "/api/v1/residents/{resident}/consent"): Entry(statuses=AUDIT),
    ("POST", "/api/v1/residents/{resident}/consent"): Entry(
        statuses=CONSENT, body={"sign": "water_intake"}
    ),
    ("POST", "/api/v1/residents/{resident}/break-glass"): Entry(
        statuses=GLASS, body={"reason": "found unconscious at home"}
    ),
    ("GET", "/api/v1/residents/{resident}/series"): Entry(
        statuses=VALUES, query="?from=2026-11-01T00:00:00Z&to=2026-12-01T00:00:00Z"
    ),
    ("GET", "/api/v1/residents/{resident}/copy"): Entry(statuses=VALUES, opaque=True),
    ("GET", "/api/v1/live"): Entry(statuses=VALUES, query="?resident={resident}", opaque=True),
    ("GET", "/api/v1/residents/{resident}/profile"): Entry(statuses=RECORD),
    ("GET", "/api/v1/residents/{resident}/targets"): Entry(statuses=RECORD),
    ("PUT", "/api/v1/residents/{resident}/targets"): Entry(statuses=TARGETS, body={"targets": {}}),
    ("GET", "/api/v1/residents/search"): Entry(statuses=_all(405)),
    ("POST", "/api/v1/residents/search"): Entry(
        statuses=SEARCH, body={"national_id": "11010519491231002X"}
    ),
    ("GET", "/api/v1/links"): Entry(statuses=LISTS),
    ("POST", "/api/v1/links"): Entry(statuses=LINKS, body=_LINK),
    ("POST", "/api/v1/links/end"): Entry(statuses=LINKS, body=_LINK),
    ("GET", "/api/v1/residents/{resident}/unassigned"): Entry(statuses=CLAIMS),
    ("POST", "/api/v1/residents/{resident}/unassigned/claim"): Entry(
        statuses=NO_READING, body={"readings": ["000643febb1910000000000bff01000644056fb63000"]}
    ),
    ("GET", "/api/v1/quarantine"): Entry(statuses=EQUIPMENT),
    ("GET", "/api/v1/worklists/last-measured"): Entry(statuses=WORKLIST),
    ("GET", "/api/v1/residents/{resident}/statistics"): Entry(statuses=VALUES, opaque=True),
    ("GET", "/api/v1/residents/{resident}/alerts"): Entry(statuses=VALUES, opaque=True),
    ("GET", "/api/v1/residents/{resident}/alerts/{alert}"): Entry(statuses=NO_ALERT),
    ("POST", "/api/v1/residents/{resident}/alerts/{alert}/acknowledge"): Entry(
        statuses=NOT_SETTLED, body={}
    ),
    ("POST", "/api/v1/residents/{resident}/alerts/{alert}/resolve"): Entry(
        statuses=NOT_SETTLED, body={}
    ),
    ("GET", "/api/v1/alerts"): Entry(statuses=CARED_FOR),
    ("POST", "/api/v1/enrolments"): Entry(statuses=NO_OFFICE, body={}),
    ("POST", "/api/v1/renewals"): Entry(statuses=NO_OFFICE, body={}),
    ("GET", "/api/v1/homes"): Entry(statuses=EQUIPMENT),
    ("GET", "/api/v1/hubs"): Entry(statuses=EQUIPMENT),
    ("GET", "/api/v1/devices"): Entry(statuses=EQUIPMENT),
    ("GET", "/api/v1/ledger"): Entry(statuses=EQUIPMENT),
    ("GET", "/fhir/metadata"): Entry(statuses=OPEN),
    ("GET", "/fhir/.well-known/smart-configuration"): Entry(statuses=OPEN),
    ("GET", "/fhir/Observation"): Entry(statuses=VALUES, query=PATIENT),
    ("POST", "/fhir/Observation/_search"): Entry(statuses=VALUES, query=PATIENT),
    ("GET", "/fhir/Observation/$lastn"): Entry(statuses=VALUES, query=PATIENT),
    ("POST", "/fhir/Observation/$lastn"): Entry(statuses=VALUES, query=PATIENT),
    ("GET", "/fhir/Observation/$stats"): Entry(statuses=VALUES, query=PATIENT),
    ("POST", "/fhir/Observation/$stats"): Entry(statuses=VALUES, query=PATIENT),
    ("GET", "/fhir/Observation/{id}"): Entry(statuses=NOTHING),
    ("POST", "/fhir/Observation"): Entry(statuses=NO_GATEWAY, body={}),
    ("POST", "/fhir"): Entry(statuses=NO_GATEWAY, body={}),
    ("GET", "/fhir/Patient"): Entry(statuses=LISTS),
    ("POST", "/fhir/Patient/_search"): Entry(statuses=LISTS),
    ("GET", "/fhir/Patient/{resident}"): Entry(statuses=RECORD),
    ("GET", "/fhir/Patient/{resident}/$everything"): Entry(statuses=VALUES),
    ("GET", "/fhir/Device"): Entry(statuses=RECORD, query=PATIENT),
    ("GET", "/fhir/Device/{id}"): Entry(statuses=_all(404)),
    ("GET", "/fhir/Provenance"): Entry(statuses=LISTS, query="?target=nothing"),
    ("GET", "/fhir/Provenance/{id}"): Entry(statuses=NOTHING),
    ("GET", "/fhir/AuditEvent"): Entry(statuses=AUDIT, query=PATIENT),
    ("GET", "/fhir/$export"): Entry(statuses=NOT_SERVED),
    ("GET", "/fhir/Patient/$export"): Entry(statuses=NOT_SERVED),
    ("GET", "/fhir/$export-status/{export}"): Entry(statuses=NOT_SERVED),
    ("DELETE", "/fhir/$export-status/{export}"): Entry(statuses=NOT_SERVED),
    ("GET", "/fhir/$export-file/{export}/{kind}.ndjson"): Entry(statuses=NOT_SERVED),
    ("POST", "/fhir/Subscription"): Entry(statuses=(401, *9 * (400,), 403, 403)),
    ("GET", "/fhir/Subscription/{subscription}"): Entry(statuses=NOTHING),
    ("DELETE", "/fhir/Subscription/{subscription}"): Entry(statuses=(401, *9 * (404,), 403, 403)),
    ("GET", "/fhir/Subscription/{subscription}/$status"): Entry(statuses=NOTHING),
    ("GET", "/fhir/Subscription/{subscription}/$events"): Entry(statuses=NOTHING),
}
