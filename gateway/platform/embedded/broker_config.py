"""The embedded broker's configuration: Mosquitto 2, mosquitto.conf(5), and who may touch what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.platform.settings import LOOPBACK
from gateway.wire import TOPIC_ROOT, Channel

INGEST = "ingest"
"""The user that reads every hub's batches and answers them; all other users are hubs."""

PACKET_BYTES_MAX = 16 << 20
"""A client that sends a longer packet is disconnected (MQTT 5 reason 0x95). Far above a batch's
64 KiB, so that oversized rubbish from a hub reaches ingest, which counts and quarantines it."""
QUEUED_MESSAGES_MAX = 1_000_000
QUEUED_BYTES_MAX = 64 << 20
"""Kept for each session that is away. Beyond either, Mosquitto drops the newest although it
acknowledges them: no loss, since a hub keeps a batch until ingest's receipt."""
IN_FLIGHT_MAX = 1000
"""Unacknowledged QoS 1 messages each way for a client that sets no Receive Maximum of its own."""
SESSION_DAYS_MAX = 30
"""A session whose client stays away longer is forgotten with its queue; receipts cover it."""
SAVE_S = 60
"""The broker writes its sessions to disk so often; a crash loses what came since: see receipts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What the configuration points to."""

    access: Path
    passwords: Path
    data: Path


def configuration(port: int, files: Files) -> str:
    """Return mosquitto.conf."""
    return f"""\
# Made by Hearth at each start; changes are lost.
listener {port} {LOOPBACK}
set_tcp_nodelay true
allow_anonymous false
password_file {files.passwords}
acl_file {files.access}
persistence true
persistence_location {files.data}/
autosave_interval {SAVE_S}
persistent_client_expiration {SESSION_DAYS_MAX}d
max_packet_size {PACKET_BYTES_MAX}
max_queued_messages {QUEUED_MESSAGES_MAX}
max_queued_bytes {QUEUED_BYTES_MAX}
max_inflight_messages {IN_FLIGHT_MAX}
sys_interval 0
connection_messages false
log_dest stderr
log_timestamp_format %Y-%m-%dT%H:%M:%S
log_type error
log_type warning
log_type notice
"""


def access_rules() -> str:
    """Return the access control list: a hub, whose user name is its id, touches only its own.

    A topic that no rule names is refused: a publish with reason 0x87, while a subscription is
    accepted and simply never gets a message.
    """
    up, down = (Channel.BATCH, Channel.STATE), (Channel.RECEIPT, Channel.CONFIG)
    return "\n".join(
        [
            *(f"pattern write {_topic('%u', channel)}" for channel in up),
            *(f"pattern read {_topic('%u', channel)}" for channel in down),
            f"user {INGEST}",
            *(f"topic read {_topic('+', channel)}" for channel in up),
            *(f"topic write {_topic('+', channel)}" for channel in down),
            "",
        ]
    )


def _topic(hub: str, channel: Channel) -> str:
    return f"{TOPIC_ROOT}/+/{hub}/{channel.name.lower()}"
