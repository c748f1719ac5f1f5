"""Every operation of the API as a method. Made by `hearth client`; a test keeps it up to date."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hearth_client.documents import (
    AlertHistory,
    AlertState,
    BreakGlass,
    BrokenGlass,
    ConsentChange,
    Done,
    FoundResidents,
    Health,
    LatestOfSign,
    LinkEnd,
    Me,
    NewClaim,
    NewLink,
    Objection,
    Order,
    PageAlertDocument,
    PageAuditEntry,
    PageDevice,
    PageHome,
    PageHub,
    PageHubLedger,
    PageLastMeasured,
    PageLinkEntry,
    PageMeasurementDocument,
    PageNoticeDocument,
    PageQuarantineEntry,
    PageResident,
    PageWaitingReading,
    PersonDocument,
    Reason,
    Remark,
    ResidentDocument,
    ResidentSearch,
    RuleSet,
    SeriesDocument,
    State,
    Statistics,
    TargetsInput,
    TargetsOutput,
    Vocabulary,
    Width,
)
from hearth_client.transport import Event, Transport, path_segment


class Client(Transport):
    """The API of one address, with one token."""

    def search_residents(self, body: ResidentSearch) -> FoundResidents:
        """Find residents by identity number, health card, or name and date of birth together."""
        return self.json("POST", "/api/v1/residents/search", body=body)

    def read_profile(self, resident: str) -> PersonDocument:
        """Return what is known of one resident beside the measurements, name and numbers too."""
        return self.json("GET", f"/api/v1/residents/{path_segment(resident)}/profile")

    def read_targets(self, resident: str) -> TargetsOutput:
        """Return the limits that override those of the rule sets."""
        return self.json("GET", f"/api/v1/residents/{path_segment(resident)}/targets")

    def write_targets(
        self,
        resident: str,
        body: TargetsInput,
        *,
        if_match: str | None = None,
        idempotency_key: str | None = None,
    ) -> TargetsOutput:
        """Set all of a resident's own limits; with If-Match, only if nobody changed them meanwhile."""
        return self.json(
            "PUT",
            f"/api/v1/residents/{path_segment(resident)}/targets",
            headers={"if-match": if_match, "Idempotency-Key": idempotency_key},
            body=body,
        )

    def read_copy(self, resident: str) -> bytes:
        """Return all that is kept of a resident as one archive file (ZIP with JSON, CSV and FHIR)."""
        return self.content("GET", f"/api/v1/residents/{path_segment(resident)}/copy")

    def list_residents(self, *, after: str | None = None, limit: int | None = None) -> PageResident:
        """List residents in the order of their ids."""
        return self.json("GET", "/api/v1/residents", params={"after": after, "limit": limit})

    def read_resident(self, resident: str) -> ResidentDocument:
        """Return one resident and who is measured by what, past links too."""
        return self.json("GET", f"/api/v1/residents/{path_segment(resident)}")

    def list_measurements(
        self,
        resident: str,
        *,
        sign: list[str] | None = None,
        from_: str | None = None,
        to: str | None = None,
        order: Order | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> PageMeasurementDocument:
        """List a resident's measurements by when they were measured, not by when they came."""
        return self.json(
            "GET",
            f"/api/v1/residents/{path_segment(resident)}/measurements",
            params={
                "sign": sign,
                "from": from_,
                "to": to,
                "order": order,
                "after": after,
                "limit": limit,
            },
        )

    def read_latest(self, resident: str) -> dict[str, LatestOfSign]:
        """Return the latest of each sign by when it was measured, and the latest undisturbed one."""
        return self.json("GET", f"/api/v1/residents/{path_segment(resident)}/latest")

    def read_series(
        self,
        resident: str,
        *,
        from_: str,
        to: str,
        sign: list[str] | None = None,
        width: Width | None = None,
        zone: str | None = None,
    ) -> SeriesDocument:
        """Return mean, least and greatest of each quantity in buckets, on one axis for all signs."""
        return self.json(
            "GET",
            f"/api/v1/residents/{path_segment(resident)}/series",
            params={"from": from_, "to": to, "sign": sign, "width": width, "zone": zone},
        )

    def follow(
        self, *, resident: list[str] | None = None, last_event_id: str | None = None
    ) -> Iterator[Event]:
        """Follow new readings and alerts of those whom you may see: late and re-attributed readings too."""
        return self.events(
            "GET",
            "/api/v1/live",
            params={"resident": resident},
            headers={"last-event-id": last_event_id},
        )

    def read_links(
        self,
        *,
        device: str | None = None,
        resident: str | None = None,
        after: int | None = None,
        limit: int | None = None,
    ) -> PageLinkEntry:
        """List the links in force of the residents whom you may see, past ones too."""
        return self.json(
            "GET",
            "/api/v1/links",
            params={"device": device, "resident": resident, "after": after, "limit": limit},
        )

    def write_link(self, body: NewLink, *, idempotency_key: str | None = None) -> Done:
        """Link a resident to a slot of a device; what stands already stays."""
        return self.json(
            "POST", "/api/v1/links", headers={"Idempotency-Key": idempotency_key}, body=body
        )

    def write_link_end(self, body: LinkEnd, *, idempotency_key: str | None = None) -> Done:
        """End a link; measurements that are stored stay as they are."""
        return self.json(
            "POST", "/api/v1/links/end", headers={"Idempotency-Key": idempotency_key}, body=body
        )

    def read_quarantine(
        self,
        *,
        state: State | None = None,
        reason: Reason | None = None,
        after: int | None = None,
        limit: int | None = None,
    ) -> PageQuarantineEntry:
        """List what was kept apart and why, the newest first; its bytes are not shown."""
        return self.json(
            "GET",
            "/api/v1/quarantine",
            params={"state": state, "reason": reason, "after": after, "limit": limit},
        )

    def read_last_measured(
        self, *, after: str | None = None, limit: int | None = None
    ) -> PageLastMeasured:
        """List when the residents of your care team were last measured: who needs a call. No values."""
        return self.json(
            "GET", "/api/v1/worklists/last-measured", params={"after": after, "limit": limit}
        )

    def read_unassigned(
        self, resident: str, *, after: str | None = None, limit: int | None = None
    ) -> PageWaitingReading:
        """List readings that may be this resident's, the newest first. No values: they may be another's."""
        return self.json(
            "GET",
            f"/api/v1/residents/{path_segment(resident)}/unassigned",
            params={"after": after, "limit": limit},
        )

    def write_claim(
        self, resident: str, body: NewClaim, *, idempotency_key: str | None = None
    ) -> Done:
        """Say that readings are this resident's; the household's history learns from it."""
        return self.json(
            "POST",
            f"/api/v1/residents/{path_segment(resident)}/unassigned/claim",
            headers={"Idempotency-Key": idempotency_key},
            body=body,
        )

    def read_me(self) -> Me:
        """Return who asks."""
        return self.json("GET", "/api/v1/me")

    def list_notices(
        self, *, after: int | None = None, limit: int | None = None
    ) -> PageNoticeDocument:
        """List what the one who asks is told, the latest first: a resident, or who reads the audit."""
        return self.json("GET", "/api/v1/notices", params={"after": after, "limit": limit})

    def list_audit(
        self, resident: str, *, after: int | None = None, limit: int | None = None
    ) -> PageAuditEntry:
        """List every read and write of a resident's data, refused ones too, the latest first."""
        return self.json(
            "GET",
            f"/api/v1/residents/{path_segment(resident)}/audit",
            params={"after": after, "limit": limit},
        )

    def read_consent(self, resident: str) -> list[Objection]:
        """List the signs that the resident withholds and the accounts that are refused."""
        return self.json("GET", f"/api/v1/residents/{path_segment(resident)}/consent")

    def change_consent(
        self, resident: str, body: ConsentChange, *, idempotency_key: str | None = None
    ) -> list[Objection]:
        """Withhold a sign from everyone else, or refuse a clinician; or allow it again."""
        return self.json(
            "POST",
            f"/api/v1/residents/{path_segment(resident)}/consent",
            headers={"Idempotency-Key": idempotency_key},
            body=body,
        )

    def break_glass(
        self, resident: str, body: BreakGlass, *, idempotency_key: str | None = None
    ) -> BrokenGlass:
        """Open a resident's archive for an hour, with a reason that the resident is told."""
        return self.json(
            "POST",
            f"/api/v1/residents/{path_segment(resident)}/break-glass",
            headers={"Idempotency-Key": idempotency_key},
            body=body,
        )

    def read_statistics(
        self, resident: str, *, rule_set: RuleSet | None = None, day: str | None = None
    ) -> Statistics:
        """Return home blood pressure, weight, temperature, water, steps and partial NEWS2."""
        return self.json(
            "GET",
            f"/api/v1/residents/{path_segment(resident)}/statistics",
            params={"rule_set": rule_set, "day": day},
        )

    def list_alerts(
        self,
        *,
        state: list[AlertState] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> PageAlertDocument:
        """List alerts of all whom the one who asks may see, newest first."""
        return self.json(
            "GET", "/api/v1/alerts", params={"state": state, "after": after, "limit": limit}
        )

    def list_alerts_of(
        self,
        resident: str,
        *,
        state: list[AlertState] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> PageAlertDocument:
        """List a resident's alerts, newest first."""
        return self.json(
            "GET",
            f"/api/v1/residents/{path_segment(resident)}/alerts",
            params={"state": state, "after": after, "limit": limit},
        )

    def read_alert(self, resident: str, alert: str) -> AlertHistory:
        """Return one alert with its events."""
        return self.json(
            "GET", f"/api/v1/residents/{path_segment(resident)}/alerts/{path_segment(alert)}"
        )

    def acknowledge(
        self, resident: str, alert: str, body: Remark, *, idempotency_key: str | None = None
    ) -> bytes:
        """Say that somebody has seen it and cares for it."""
        return self.content(
            "POST",
            f"/api/v1/residents/{path_segment(resident)}/alerts/{path_segment(alert)}/acknowledge",
            headers={"Idempotency-Key": idempotency_key},
            body=body,
        )

    def resolve(
        self, resident: str, alert: str, body: Remark, *, idempotency_key: str | None = None
    ) -> bytes:
        """Say that nothing more is to be done."""
        return self.content(
            "POST",
            f"/api/v1/residents/{path_segment(resident)}/alerts/{path_segment(alert)}/resolve",
            headers={"Idempotency-Key": idempotency_key},
            body=body,
        )

    def list_homes(self, *, after: str | None = None, limit: int | None = None) -> PageHome:
        """List homes in the order of their ids."""
        return self.json("GET", "/api/v1/homes", params={"after": after, "limit": limit})

    def list_hubs(
        self, *, home: str | None = None, after: str | None = None, limit: int | None = None
    ) -> PageHub:
        """List hubs, all or one home's, in the order of their names."""
        return self.json(
            "GET", "/api/v1/hubs", params={"home": home, "after": after, "limit": limit}
        )

    def list_devices(
        self, *, home: str | None = None, after: str | None = None, limit: int | None = None
    ) -> PageDevice:
        """List devices, all or one home's, in the order of their addresses."""
        return self.json(
            "GET", "/api/v1/devices", params={"home": home, "after": after, "limit": limit}
        )

    def read_ledger(self, *, after: str | None = None, limit: int | None = None) -> PageHubLedger:
        """Tell what became of what each hub published, in the order of the hubs' names."""
        return self.json("GET", "/api/v1/ledger", params={"after": after, "limit": limit})

    def read_signs(self) -> Vocabulary:
        """Describe the signs: quantities, units, codes, ranges, statuses, and rules."""
        return self.json("GET", "/api/v1/signs")

    def read_metrics(self) -> bytes:
        """Return what Prometheus scrapes; no label names a person, a device or a value."""
        return self.content("GET", "/metrics")

    def read_health(self) -> Health:
        """Tell which version answers, over which schema."""
        return self.json("GET", "/api/v1/health")

    def read_liveness(self) -> bytes:
        """Answer as long as the process lives."""
        return self.content("GET", "/healthz")

    def read_readiness(self) -> bytes:
        """Answer when the database does and its schema has what this version reads."""
        return self.content("GET", "/readyz")

    def enrol(self, body: dict[str, Any]) -> Any:
        """Answer a hub that has a one-time code."""
        return self.json("POST", "/api/v1/enrolments", body=body)

    def renew(self, body: dict[str, Any]) -> Any:
        """Answer a hub that has a certificate."""
        return self.json("POST", "/api/v1/renewals", body=body)
