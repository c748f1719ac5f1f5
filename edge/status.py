"""What a hub's file says of the hub, read beside it while it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from edge import undated
from edge.hub_file import DamagedFileError, open_read_only, set_aside
from edge.identity import read_failure, read_identity
from edge.outbox import Depth, Tally, read_depth, read_tallies
from gateway.errors import UsageError
from gateway.wire import hub_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The numbers of one file."""

    hub: str
    epoch: int
    next_sequence: int
    depth: Depth
    undated: int
    tallies: dict[Tally, int]
    files_set_aside: int
    certificate_until: str | None
    """When the hub's certificate ends; None: it has none."""
    renewal_failure: str | None
    """When and why the last renewal failed; None: it did not."""

    def as_json(self) -> dict[str, object]:
        """Return it for a machine."""
        return asdict(self)


def read_status(hub: int, path: Path, identity: Path) -> Status:
    """Read the file of a hub, and how its certificate stands.

    Raises:
        UsageError: there is none yet, or it cannot be read.
        UnavailableError: the disk is failing.
    """
    if not path.exists():
        raise UsageError(f"网关尚未运行过 / no outbox yet, the hub has not run: {path}")
    try:
        file = open_read_only(path)
        try:
            return Status(
                hub=hub_name(hub),
                epoch=file.numbering.epoch,
                next_sequence=file.numbering.next_sequence,
                depth=read_depth(file),
                undated=undated.count(file),
                tallies=read_tallies(file),
                files_set_aside=len(set_aside(path)),
                certificate_until=_until(identity),
                renewal_failure=read_failure(identity),
            )
        finally:
            file.abandon()
    except DamagedFileError as error:
        raise UsageError(
            f"发件箱已损坏, 重启网关会保留原件并新建 / {path} is damaged: restart the hub, which keeps "
            "it aside and begins a new one"
        ) from error


def _until(identity: Path) -> str | None:
    try:
        certificate = read_identity(identity).hub.certificate
    except UsageError:
        return None
    return certificate.not_valid_after_utc.isoformat()
