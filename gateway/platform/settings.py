"""The settings, read once where a process is composed and passed down from there.

Every field can be given as an environment variable, HEARTH_ and its name in capitals. What is a
secret is a `SecretStr` or, better, the path of a file that only its owner can read.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.errors import UsageError

CHECKOUT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"
API_PROCESSES_MAX = 16
"""Each has at least four connections to the database, of the hundred that an embedded one takes."""
HUB_BYTES_PER_S = 128 << 10
"""Two thousand readings a second in full batches; a home makes a hundred a day."""


def default_home() -> Path:
    """Return where state lives: ./var in a checkout, else the user's data directory."""
    if (CHECKOUT / "pyproject.toml").is_file():
        return CHECKOUT / "var"
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "hearth"


class Settings(BaseSettings):
    """What a person can set; docs/settings.md is made from these descriptions."""

    model_config = SettingsConfigDict(env_prefix="HEARTH_", frozen=True, extra="ignore")

    home: Annotated[Path, Field(description="The one folder that holds all state.")] = Field(
        default_factory=default_home
    )
    database_url: Annotated[
        SecretStr | None,
        Field(description="A TimescaleDB of one's own; without it an embedded one is run."),
    ] = None
    api_database_url: Annotated[
        SecretStr | None,
        Field(
            description="The same database for the API alone, as a role that reads residents' data "
            "only through the schema `access`; default: the role that `hearth db grant` admits."
        ),
    ] = None
    mqtt_url: Annotated[
        SecretStr | None,
        Field(
            description="An MQTT 5 broker of one's own, mqtt:// or mqtts://; without it an "
            "embedded one is run."
        ),
    ] = None
    mqtt_ca_file: Annotated[
        Path | None, Field(description="The certificates to trust for mqtts://.")
    ] = None
    mqtt_cert_file: Annotated[
        Path | None, Field(description="Ingest's client certificate for a broker of one's own.")
    ] = None
    mqtt_key_file: Annotated[
        Path | None, Field(description="Its key; without it the key stands with the certificate.")
    ] = None
    mqtt_host: Annotated[
        str, Field(description="The address on which the embedded broker listens for hubs.")
    ] = LOOPBACK
    mqtt_port: Annotated[
        int,
        Field(ge=0, le=65535, description="Its port; 0: any free one, the same at every start."),
    ] = 0
    mqtt_hub_bytes_per_s: Annotated[
        int,
        Field(
            ge=64 << 10,
            le=64 << 20,
            description="Bytes a second that the embedded broker reads of one hub's connection; the "
            "rest waits with the hub (docs/hub-identity.md, A hub that floods).",
        ),
    ] = HUB_BYTES_PER_S
    hub_mqtt_url: Annotated[
        str | None,
        Field(
            description="Where hubs reach the broker, mqtts://host:port, told to them when they "
            "are enrolled; without it the embedded one on this machine."
        ),
    ] = None
    hub_api_url: Annotated[
        str | None,
        Field(
            description="Where hubs reach the API to be enrolled, http:// or https://; without it "
            "this machine's."
        ),
    ] = None
    debian_mirror: Annotated[
        str | None,
        Field(
            description="Where the embedded servers' packages come from, such as "
            "https://…/debian/; without it the mirror that this machine's apt sources name."
        ),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="The least level logged.")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"],
        Field(description="auto: console on a terminal, else one JSON object a line."),
    ] = "auto"
    api_host: Annotated[str, Field(description="The address the API listens on.")] = LOOPBACK
    api_port: Annotated[
        int, Field(ge=0, le=65535, description="The port the API listens on; 0: any free one.")
    ] = 8420
    api_processes: Annotated[
        int,
        Field(
            ge=0,
            le=API_PROCESSES_MAX,
            description="Processes of the API on its one port; 0: one for each core, at most 4.",
        ),
    ] = 0
    api_url: Annotated[
        str | None,
        Field(
            pattern="^https?://[^/]+$",
            description="The address under which clients reach the API, which is the built-in "
            "issuer's name; default: http:// and where it listens.",
        ),
    ] = None
    api_rate_per_s: Annotated[
        float,
        Field(
            ge=0,
            le=1_000_000,
            description="Requests a second of one account, or of one address that has no token yet, at each "
            "process of the API; 0: no limit.",
        ),
    ] = 100.0
    api_trusted_proxies: Annotated[
        str,
        Field(
            description="Addresses or networks, between commas, of the reverse proxies in front of the "
            "API: their X-Forwarded-For says where a request comes from, which the audit keeps."
        ),
    ] = ""
    webhook_hosts: Annotated[
        str,
        Field(
            description="Hosts (names, addresses or networks, between commas) to which webhooks "
            "(of alerts and of FHIR subscriptions) may go although they are not public; http only to "
            "them."
        ),
    ] = ""
    oidc_issuer: Annotated[
        str | None,
        Field(
            pattern="^https?://.+[^/]$",
            description="An OpenID Connect issuer of one's own; without it the built-in one is "
            "used.",
        ),
    ] = None
    oidc_audience: Annotated[
        str, Field(min_length=1, description="The audience that tokens for the API name.")
    ] = "hearth"
    metrics_port: Annotated[
        int,
        Field(ge=0, le=65535, description="/metrics, /healthz, /readyz; 0: any free port."),
    ] = 0
    metrics_token_file: Annotated[
        Path | None,
        Field(
            description="The token with which Prometheus reads the API's /metrics, in a file that "
            "only its owner can read; without it an account with hearth/operations is needed."
        ),
    ] = None
    ingest_flush_rows: Annotated[
        int, Field(ge=1, le=500_000, description="Measurements after which a flush begins.")
    ] = 20_000
    ingest_flush_ms: Annotated[
        int, Field(ge=1, le=60_000, description="Age of the oldest one after which it begins.")
    ] = 200

    @property
    def issuer_url(self) -> str:
        """The built-in issuer's name: where clients reach the API."""
        return self.api_url or f"http://{self.api_host}:{self.api_port}"


def load_settings() -> Settings:
    """Return the settings of this process.

    Raises:
        UsageError: a value is wrong; the text names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"HEARTH_{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise UsageError(f"设置有误 / a setting is wrong: {faults}") from error


def is_interactive() -> bool:
    """Tell whether a person is likely to watch standard error."""
    return sys.stderr.isatty()
