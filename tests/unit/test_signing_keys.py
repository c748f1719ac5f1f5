"""The issuer's ring of keys: the newest signs, the ones before are believed until their tokens are over."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from api.access import Role
from api.auth import OwnTokens, RefusedTokenError
from api.issuer import keys
from api.issuer.keys import OVERLAP, KeyRing, Keys
from api.issuer.tokens import AUDIENCE, Account, Signer
from gateway.cli.admin.user import TOKEN_MINUTES_MAX
from tests.archives import ISSUER

ACCOUNT = Account(id=UUID(int=5), login="wang.li", role=Role.CLINICIAN)


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LOOK_S", 0.0)
    monkeypatch.setattr(keys, "LOOK_AGAIN_S", 0.0)


def token(key: Keys) -> str:
    signer = Signer(key=key, issuer=ISSUER, audience=AUDIENCE)
    return signer.access_token(ACCOUNT, datetime.now(UTC), session=None, client="tests", scope="")


def verifier(key: Keys) -> OwnTokens:
    return OwnTokens(key=key, issuer=ISSUER, audience=AUDIENCE)


def kids(ring: KeyRing) -> list[str]:
    return [jwk["kid"] for jwk in ring.jwks["keys"]]


async def test_a_token_of_the_former_key_is_good_until_it_is_over(tmp_path: Path) -> None:
    now_s = time.time()
    ring = KeyRing(tmp_path, lambda: now_s)
    older, former = token(ring), ring.newest
    newer = ring.rotate()
    assert kids(ring) == [newer.kid, former.kid]
    for text in (older, token(ring)):
        assert (await verifier(ring).principal(text)).user == ACCOUNT.id
    now_s += OVERLAP.total_seconds() + 5
    assert kids(ring) == [newer.kid]
    with pytest.raises(RefusedTokenError, match="key"):
        await verifier(ring).principal(older)


async def test_another_process_sees_a_rotation_by_itself(tmp_path: Path) -> None:
    serving, commanding = KeyRing(tmp_path), KeyRing(tmp_path)
    commanding.rotate()
    assert (await verifier(serving).principal(token(commanding))).user == ACCOUNT.id
    assert serving.newest.kid == commanding.newest.kid
    assert KeyRing(tmp_path).newest.kid == commanding.newest.kid


def test_a_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    KeyRing(tmp_path).rotate()
    files = sorted((tmp_path / "secrets").iterdir())
    assert [file.name for file in files] == ["issuer_key", "issuer_key_2"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_the_overlap_is_longer_than_the_longest_token() -> None:
    assert timedelta(minutes=TOKEN_MINUTES_MAX) < OVERLAP


def test_a_key_whose_file_is_removed_is_not_believed_any_more(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    lost, newest = ring.rotate(), ring.rotate()
    (tmp_path / "secrets" / "issuer_key_2").unlink()
    assert ring.known(lost.kid) is None
    assert ring.newest.kid == newest.kid
    assert ring.rotate().kid not in {lost.kid, newest.kid}
    assert (tmp_path / "secrets" / "issuer_key_4").is_file()
