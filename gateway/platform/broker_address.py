"""Where the MQTT broker is and how to prove who one is: mqtt://user:password@host:1883."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from gateway.errors import UsageError

_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """A broker; `tls` None means plain TCP."""

    host: str
    port: int
    username: str | None = None
    password: SecretStr | None = None
    tls: ssl.SSLContext | None = None


def broker_address(
    url: str,
    *,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
) -> BrokerAddress:
    """Read a broker's URL.

    Args:
        url: mqtt://host[:port] or mqtts://host[:port], with user and password if need be.
        ca_file: what to trust for mqtts; None: what the system trusts.
        cert_file: the certificate to show, with its key in `key_file`.
        key_file: the key of `cert_file`.

    Raises:
        UsageError: the URL or a file is not as needed.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise UsageError(
            "MQTT 地址有误 / the broker's URL must be mqtt://host[:port] or mqtts://host[:port]"
        )
    try:
        tls = _tls(ca_file, cert_file, key_file) if parts.scheme == "mqtts" else None
        port = parts.port or _PORTS[parts.scheme]
    except (OSError, ValueError) as error:
        raise UsageError(f"证书或端口有误 / the broker's certificates or port: {error}") from error
    return BrokerAddress(
        host=parts.hostname,
        port=port,
        username=unquote(parts.username) if parts.username else None,
        password=SecretStr(unquote(parts.password)) if parts.password else None,
        tls=tls,
    )


def _tls(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context
