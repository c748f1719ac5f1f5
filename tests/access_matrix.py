"""Who gets what of every route: one entry a route, one status a case. A new route needs its entry here.

An entry is one of the shapes below (`VALUES`, `RECORD`, ...) or a shape of its own. `{resident}` in a
path is filled in with the resident of the case, any other name with an id that nothing has; GET is asked before everything else, so that what a
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
    "service",  # scopes: system/*.rs hearth/operations
    "service_narrow",  # scope: system/Device.rs
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What each case is answered, in the order of `CASES`; and what is sent."""

    statuses: tuple[int, ...]
    body: dict[str, Any] | None = None
    query: str = ""

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
TEAM_VALUES = (401, 200, 200, 200, 200, 200, 200, 403, 403, 403, 403, 403)
NO_SUCH_ALERT = (401, 404, 403, 404, 403, 403, 404, 403, 403, 403, 404, 403)
SETTLED_ALREADY = (401, 403, 403, 409, 403, 403, 409, 403, 403, 403, 409, 403)
NOT_HERE = _all(503, nobody=503)
SIGNED_IN = _all(200)
OPEN = _all(200, nobody=200)
BAD_REQUEST = _all(400, nobody=400)

MATRIX: dict[tuple[str, str], Entry] = {
    ("GET", "/healthz"): Entry(statuses=OPEN),
    ("GET", "/readyz"): Entry(statuses=OPEN),
    ("GET", "/.well-known/openid-configuration"): Entry(statuses=OPEN),
    ("GET", "/.well-known/oauth-authorization-server"): Entry(statuses=OPEN),
    ("GET", "/oauth/jwks"): Entry(statuses=OPEN),
    ("GET", "/oauth/authorize"): Entry(statuses=BAD_REQUEST),
    ("POST", "/oauth/authorize"): Entry(statuses=BAD_REQUEST),
    ("POST", "/oauth/token"): Entry(statuses=BAD_REQUEST),
    ("POST", "/oauth/revoke"): Entry(statuses=OPEN),
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
    ("GET", "/api/v1/residents/{resident}/statistics"): Entry(statuses=VALUES),
    ("GET", "/api/v1/residents/{resident}/alerts"): Entry(statuses=VALUES),
    ("GET", "/api/v1/residents/{resident}/alerts/{alert}"): Entry(statuses=NO_SUCH_ALERT),
    ("POST", "/api/v1/residents/{resident}/alerts/{alert}/acknowledge"): Entry(
        statuses=SETTLED_ALREADY, body={}
    ),
    ("POST", "/api/v1/residents/{resident}/alerts/{alert}/resolve"): Entry(
        statuses=SETTLED_ALREADY, body={}
    ),
    ("GET", "/api/v1/alerts"): Entry(statuses=TEAM_VALUES),
    ("POST", "/api/v1/enrolments"): Entry(statuses=NOT_HERE),
    ("POST", "/api/v1/renewals"): Entry(statuses=NOT_HERE),
    ("GET", "/api/v1/homes"): Entry(statuses=EQUIPMENT),
    ("GET", "/api/v1/hubs"): Entry(statuses=EQUIPMENT),
    ("GET", "/api/v1/devices"): Entry(statuses=EQUIPMENT),
    ("GET", "/api/v1/ledger"): Entry(statuses=EQUIPMENT),
}
