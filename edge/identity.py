"""Who this hub is: its key and certificate, and whom it trusts, in one folder of three files.

`hub.pem` is key and certificate in one, so that what a power cut leaves always fits together.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from gateway.errors import UsageError
from gateway.platform import ca
from gateway.platform.broker_address import BrokerAddress, broker_address
from gateway.platform.secret_files import write_private

FOLDER = "identity"
"""Of the hub's data_dir."""
_FOLDER_MODE = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What an enrolment gave, and each renewal gives anew."""

    hub: ca.Bundle
    hubs_root: bytes
    """The root (PEM) by which the hub knows the word of whoever enrols."""
    services_root: bytes
    """The root (PEM) by which it knows the broker."""

    @property
    def name(self) -> str:
        """The hub's id, as topics have it."""
        return ca.common_name(self.hub.certificate)

    @property
    def issued_at(self) -> datetime:
        """A moment by the authority's clock, which is now past."""
        return self.hub.certificate.not_valid_before_utc + ca.BACKDATED


def read_identity(folder: Path) -> Identity:
    """Read the identity of a hub.

    Raises:
        UsageError: it has none, or a file cannot be read.
    """
    try:
        return Identity(
            hub=ca.Bundle.from_pem(_hub_file(folder).read_bytes()),
            hubs_root=(folder / "hubs.pem").read_bytes(),
            services_root=_services_file(folder).read_bytes(),
        )
    except FileNotFoundError as error:
        raise UsageError(
            f"网关尚未登记, 缺少证书 / the hub is not enrolled: {error.filename} is missing: "
            "请用登记码运行 / with a code of `hearth admin hub enrol`, run `hearth hub enrol CODE`"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(
            f"无法读取网关证书 / cannot read the hub's certificate in {folder}: {error}"
        ) from error


def keep_identity(folder: Path, identity: Identity) -> None:
    """Keep an identity in place of any former one; the hub's own file comes last.

    Raises:
        OSError: the disk is full, failing or not ours to write.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
    write_private(folder / "hubs.pem", identity.hubs_root)
    write_private(_services_file(folder), identity.services_root)
    write_private(_hub_file(folder), identity.hub.pem())


def keep_failure(folder: Path, failure: str | None) -> None:
    """Note why the last renewal failed, for `hearth hub status`; None: it did not."""
    path = folder / "renewal_failure"
    with suppress(OSError):  # a disk that is full is told of elsewhere
        if failure is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(f"{failure}\n", encoding="utf-8")


def read_failure(folder: Path) -> str | None:
    """Return why the last renewal failed; None: it did not."""
    try:
        return (folder / "renewal_failure").read_text(encoding="utf-8").strip()
    except OSError:
        return None


def broker_of(
    folder: Path, url: str, *, clock_is_set: bool = True, now: datetime | None = None
) -> BrokerAddress:
    """Return the broker with what the files hold now.

    While the machine's clock was not set (a hub without a battery wakes in 1970, or when it was last
    switched off), or shows a time before the hub's own certificate, the broker's certificate is
    checked but for its dates. Its root is Hearth's own, and nobody else's is accepted.

    Raises:
        UsageError: there is no identity, or the URL is none.
    """
    identity = read_identity(folder)
    is_right = clock_is_set and is_possible(now or datetime.now(UTC), identity.hub.certificate)
    return broker_address(
        url, ca_file=_services_file(folder), cert_file=_hub_file(folder), check_time=is_right
    )


def is_possible(now: datetime, certificate: x509.Certificate) -> bool:
    """Tell whether the clock can be right: it is not before the certificate's beginning."""
    return now >= certificate.not_valid_before_utc


def _hub_file(folder: Path) -> Path:
    return folder / "hub.pem"


def _services_file(folder: Path) -> Path:
    return folder / "services.pem"
