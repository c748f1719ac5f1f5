"""What the API refuses by itself is in the audit, as what the database refuses is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from api import accounts
from api.access import Role
from api.accounts import NewAccount
from api.server import config_of
from gateway.errors import UsageError
from gateway.platform.audit import Notary
from gateway.platform.postgres import connect_blocking
from gateway.platform.settings import Settings
from tests.archives import API, SERVICE, a_token, a_vault, api_over, public_id
from tests.worlds import OTHER_RESIDENT, enter_registry, query

pytestmark = pytest.mark.integration

SCRAPE_TOKEN = "0123456789abcdef" * 4


async def test_what_a_role_or_a_scope_refuses_is_audited_by_the_routes_template(
    database: str, tmp_path: Path
) -> None:
    enter_registry(database)
    other = public_id(database, OTHER_RESIDENT)
    with connect_blocking(database, application="hearth-tests") as connection:
        new = NewAccount(login="resident", role=Role.RESIDENT, resident=public_id(database))
        accounts.add_account(connection, a_vault(), new)
        account, session = accounts.open_session(connection, "resident", timedelta(hours=1))
    async with api_over(database) as api:
        for headers, path in (
            (a_token(account, session), f"{API}/residents/{other}/latest"),
            (a_token(account, session), f"{API}/devices"),
            (
                a_token(SERVICE, scope="system/Device.rs"),
                f"{API}/residents/{other}/latest?x=secret",
            ),
            (a_token(SERVICE, scope="system/Device.rs"), "/fhir/Patient?identifier=secret"),
        ):
            response = await api.get(path, headers={"Authorization": f"Bearer {headers}"})
            assert response.status_code == 403, path
    rows = query(
        database,
        "SELECT actor, detail FROM audit WHERE action = 'request.refused' ORDER BY audit_id",
    )
    latest = f"GET {API}/residents/{{resident}}/latest"
    assert rows == [
        (f"user:{account.id}", {"route": latest, "refused": "other"}),
        (f"user:{account.id}", {"route": f"GET {API}/devices", "refused": "role"}),
        (f"service:{SERVICE.id}", {"route": latest, "refused": "scope"}),
        (f"service:{SERVICE.id}", {"route": "GET /fhir/Patient", "refused": "scope"}),
    ]
    with connect_blocking(database, application="hearth-tests") as connection:
        assert not Notary(tmp_path).verify(connection).damage


async def test_what_the_database_refuses_is_audited_once(database: str) -> None:
    enter_registry(database)
    with connect_blocking(database, application="hearth-tests") as connection:
        new = NewAccount(login="clinician", role=Role.CLINICIAN)
        accounts.add_account(connection, a_vault(), new)
        account, session = accounts.open_session(connection, "clinician", timedelta(hours=1))
    async with api_over(database) as api:
        response = await api.get(
            f"{API}/residents/{public_id(database)}/latest",
            headers={"Authorization": f"Bearer {a_token(account, session)}"},
        )
    assert response.status_code == 403
    assert query(database, "SELECT action FROM audit WHERE detail ? 'refused'") == [
        ("measurement.latest",)
    ]


async def test_the_scrape_token_opens_the_metrics_and_nothing_else(database: str) -> None:
    async with api_over(database, scrape_token=SCRAPE_TOKEN) as api:
        for path, token, status in (
            ("/metrics", SCRAPE_TOKEN, 200),
            ("/metrics", f"{SCRAPE_TOKEN}x", 401),
            ("/metrics", "", 401),
            (f"{API}/health", SCRAPE_TOKEN, 401),
            ("/openapi.json", SCRAPE_TOKEN, 401),
        ):
            response = await api.get(path, headers={"Authorization": f"Bearer {token}"})
            assert response.status_code == status, path
    async with api_over(database) as api:
        response = await api.get("/metrics", headers={"Authorization": "Bearer None"})
        assert response.status_code == 401


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [(SCRAPE_TOKEN, 0o644, "chmod 600"), ("short", 0o600, "32"), (None, 0o600, "FileNotFound")],
)
def test_a_scrape_token_that_others_read_or_guess_stops_the_start(
    tmp_path: Path, text: str | None, mode: int, why: str
) -> None:
    file = tmp_path / "metrics-token"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    settings = Settings(home=tmp_path / "home", metrics_token_file=file)
    with pytest.raises(UsageError, match=why):
        config_of(settings, "postgresql://x", host=None, port=None)


def test_a_scrape_token_is_read_from_its_file_and_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "metrics-token"
    file.write_text(f"{SCRAPE_TOKEN}\n")
    file.chmod(0o600)
    settings = Settings(home=tmp_path / "home", metrics_token_file=file)
    config = config_of(settings, "postgresql://x", host=None, port=None)
    assert config.scrape_token == SCRAPE_TOKEN
    assert SCRAPE_TOKEN not in repr(config)
