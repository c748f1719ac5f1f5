"""The secrets of a home in one sealed file: whole, closed to others, and never over other ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import UsageError
from gateway.platform import ca
from gateway.platform.secret_backup import back_up_secrets, restore_secrets
from gateway.platform.secret_files import keep_secret, secret, secret_path

PASSPHRASE = "correct horse battery staple"  # noqa: S105 - a test's


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the roots, an archive's key, and what is not for a backup."""
    home = tmp_path / "home"
    for role in ca.Role:
        ca.authority(home, role)
    keep_secret(home, "archive_key_1", "of the archive\n")
    keep_secret(home, "database_hearth", "of this machine\n")
    keep_secret(home, "clients/ingest.pem", "made anew\n")
    return home


def test_secrets_come_back_byte_by_byte_and_closed_to_others(home: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "secrets.sealed", tmp_path / "other"
    kept = back_up_secrets(home, file, PASSPHRASE)
    assert set(kept) == {"archive_key_1", *(f"ca/{role.value}.pem" for role in ca.Role)}
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"archive_key" not in file.read_bytes()
    assert set(restore_secrets(other, file, PASSPHRASE)) == set(kept)
    for name in kept:
        path = secret_path(other, name)
        assert path.read_bytes() == secret_path(home, name).read_bytes()
        assert path.stat().st_mode & 0o077 == path.parent.stat().st_mode & 0o077 == 0
    assert restore_secrets(other, file, PASSPHRASE) == ()


def test_a_secret_that_differs_is_not_overwritten_and_nothing_is_changed(
    home: Path, tmp_path: Path
) -> None:
    file, other = tmp_path / "secrets.sealed", tmp_path / "other"
    back_up_secrets(home, file, PASSPHRASE)
    own = secret(other, "archive_key_1")
    with pytest.raises(UsageError, match="archive_key_1"):
        restore_secrets(other, file, PASSPHRASE)
    assert secret(other, "archive_key_1") == own
    assert not secret_path(other, "ca").exists()


def test_without_its_passphrase_or_with_a_bit_changed_nothing_opens(
    home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "secrets.sealed"
    back_up_secrets(home, file, PASSPHRASE)
    with pytest.raises(UsageError, match="another passphrase"):
        restore_secrets(tmp_path / "other", file, PASSPHRASE + "r")
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), whole[:20]):
        file.write_bytes(damaged)
        with pytest.raises(UsageError, match="damaged"):
            restore_secrets(tmp_path / "other", file, PASSPHRASE)
    file.write_bytes(b"something else")
    with pytest.raises(UsageError, match="no backup"):
        restore_secrets(tmp_path / "other", file, PASSPHRASE)


def test_what_cannot_be_a_good_backup_is_not_made(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="12 characters"):
        back_up_secrets(home, tmp_path / "file", "short")
    with pytest.raises(UsageError, match="there already"):
        back_up_secrets(home, tmp_path, PASSPHRASE)
    with pytest.raises(UsageError, match="no secrets"):
        back_up_secrets(tmp_path / "empty", tmp_path / "file", PASSPHRASE)
    assert not (tmp_path / "file").exists()
