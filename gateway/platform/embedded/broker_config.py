"""The embedded broker's configuration: Mosquitto 2, mosquitto.conf(5), and who may touch what.

Two listeners, both TLS 1.3 with client certificates. On the hubs' a connection is its hub, whatever
it says of itself: the user name and the client id are the certificate's name. On the services' a
client id is the service's to choose (ingest has one a lane); a hub's certificate is refused there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.platform.settings import LOOPBACK
from gateway.wire import TOPIC_ROOT, Channel

INGEST = "ingest"
"""The service that reads every hub's batches and answers them."""

PACKET_BYTES_MAX = 16 << 20
"""A client that sends a longer packet is disconnected (MQTT 5 reason 0x95). Four times the longest batch
of the wire format: rubbish of 10 MB still reaches ingest, which counts and quarantines it, so that a
hub that went wrong is seen there and not only in the broker's log."""
QUEUED_MESSAGES_MAX = 1_000_000
QUEUED_BYTES_MAX = 64 << 20
"""Kept for each session that is away. Beyond either, Mosquitto drops the newest although it
acknowledges them: no loss, since a hub keeps a batch until ingest's receipt."""
IN_FLIGHT_MAX = 4096
"""Unacknowledged QoS 1 messages each way; a client's own Receive Maximum may lower it."""
KEEP_ALIVE_S_MAX = 600
"""A client that asks for longer is told this: a hub that vanished is known to be gone by then."""
HUBS_MAX = 19_000
"""Connections of hubs; further ones are refused. One process has 20,000 file descriptors."""
SESSION_DAYS_MAX = 30
"""A session whose client stays away longer is forgotten with its queue; receipts cover it."""
SAVE_S = 60
"""The broker writes its sessions to disk so often; a crash loses what came since: see receipts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Where the broker listens: for hubs on `host`, for services on loopback."""

    host: str
    port: int
    services_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What the configuration points to."""

    access: Path
    data: Path
    certificate: Path
    key: Path
    hubs: Path
    """The root that vouches for hubs."""
    services: Path
    """The root that vouches for services."""
    revoked: Path
    """The list of hubs' certificates that count no more; Mosquitto reads it again on SIGHUP."""


def configuration(listeners: Listeners, files: Files) -> str:
    """Return mosquitto.conf."""
    return f"""\
# Made by Hearth at each start; changes are lost.
per_listener_settings false
allow_anonymous false
acl_file {files.access}

# Hubs.
listener {listeners.port} {listeners.host}
cafile {files.hubs}
crlfile {files.revoked}
use_username_as_clientid true
max_connections {HUBS_MAX}
{_tls(files)}
# Services.
listener {listeners.services_port} {LOOPBACK}
cafile {files.services}
{_tls(files)}
set_tcp_nodelay true
persistence true
persistence_location {files.data}/
autosave_interval {SAVE_S}
persistent_client_expiration {SESSION_DAYS_MAX}d
max_packet_size {PACKET_BYTES_MAX}
max_queued_messages {QUEUED_MESSAGES_MAX}
max_queued_bytes {QUEUED_BYTES_MAX}
max_inflight_messages {IN_FLIGHT_MAX}
max_keepalive {KEEP_ALIVE_S_MAX}
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


def _tls(files: Files) -> str:
    return f"""\
certfile {files.certificate}
keyfile {files.key}
tls_version tlsv1.3
require_certificate true
use_identity_as_username true
"""


def _topic(hub: str, channel: Channel) -> str:
    return f"{TOPIC_ROOT}/+/{hub}/{channel.name.lower()}"
