"""Where the MQTT broker is and how to prove who one is: a client certificate, mqtts://host:8883."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from gateway.errors import UsageError

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h); Python's ssl has no name for it."""
_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """A broker; `tls` None means plain TCP."""

    host: str
    port: int
    username: str | None = None
    password: SecretStr | None = None
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAccess:
    """A broker's URL and the files by which one is known there; they are read when asked for."""

    url: str
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    """None: the key stands in `cert_file`."""

    def address(self) -> BrokerAddress:
        """Return the address with what the files hold now.

        Raises:
            UsageError: the URL or a file is not as needed.
        """
        return broker_address(
            self.url, ca_file=self.ca_file, cert_file=self.cert_file, key_file=self.key_file
        )

    def environment(self) -> dict[str, str]:
        """Return the settings that give another process of ours the same access."""
        files = {"CA": self.ca_file, "CERT": self.cert_file, "KEY": self.key_file}
        return {"HEARTH_MQTT_URL": self.url} | {
            f"HEARTH_MQTT_{name}_FILE": str(path) for name, path in files.items() if path
        }


def broker_address(
    url: str,
    *,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    check_time: bool = True,
) -> BrokerAddress:
    """Read a broker's URL.

    Args:
        url: mqtt://host[:port] or mqtts://host[:port], with user and password if need be.
        ca_file: what to trust for mqtts; None: what the system trusts.
        cert_file: the certificate to show.
        key_file: its key; None: it stands in `cert_file`.
        check_time: False where our own clock is known to be wrong: then certificates are checked
            but for their dates.

    Raises:
        UsageError: the URL or a file is not as needed.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise UsageError(
            "MQTT 地址有误 / the broker's URL must be mqtt://host[:port] or mqtts://host[:port]"
        )
    try:
        is_tls = parts.scheme == "mqtts"
        tls = _tls(ca_file, cert_file, key_file, check_time=check_time) if is_tls else None
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


def _tls(
    ca_file: Path | None, cert_file: Path | None, key_file: Path | None, *, check_time: bool
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if not check_time:
        context.verify_flags |= _NO_CHECK_TIME
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context
