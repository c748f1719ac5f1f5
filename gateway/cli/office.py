"""Where hubs are enrolled, as the settings say: addresses they are told, and the office itself."""

from __future__ import annotations

from api.enrolment import Office
from gateway.errors import UnavailableError, UsageError
from gateway.platform.embedded.packages import find_packages
from gateway.platform.embedded.services import embedded_broker
from gateway.platform.settings import LOOPBACK, Settings


def office_of(settings: Settings, dsn: str) -> Office:
    """Return the office of this home over a database."""
    return Office(dsn=dsn, home=settings.home, broker_url=lambda: hub_broker_url(settings))


def hub_broker_url(settings: Settings) -> str:
    """Return where hubs reach the broker.

    Raises:
        UnavailableError: the settings do not say, and no embedded broker ever ran.
    """
    if settings.hub_mqtt_url is not None:
        return settings.hub_mqtt_url
    packages = find_packages(settings.home)
    if settings.mqtt_url is not None or packages is None:
        raise UnavailableError("HEARTH_HUB_MQTT_URL: it is not said where hubs reach the broker")
    return embedded_broker(settings, packages).hubs_url


def hub_api_url(settings: Settings) -> str:
    """Return where hubs reach the API.

    Raises:
        UsageError: the settings do not say, and its port is any free one.
    """
    if settings.hub_api_url is not None:
        return settings.hub_api_url.rstrip("/")
    if settings.api_port == 0:
        raise UsageError(
            "请设置 / set HEARTH_HUB_API_URL: 网关访问接口的地址 / where hubs reach the API, such as "
            "https://hearth.example"
        )
    return f"http://{LOOPBACK}:{settings.api_port}"
