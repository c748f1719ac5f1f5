"""What is in deploy/, as far as it can be read here: no container and no systemd runs in a test."""

from __future__ import annotations

import json
import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli.docs import metrics_table
from gateway.cli.main import COMMANDS
from gateway.platform.embedded.broker_config import (
    Files,
    Listeners,
    access_rules,
    configuration,
)
from gateway.platform.embedded.gate_config import Gate, gate_configuration
from gateway.platform.settings import CHECKOUT, HUB_BYTES_PER_S, LOOPBACK, Settings

DEPLOY = CHECKOUT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
OURS = ("schema", "ingest", "api")
UNITS = sorted(DEPLOY.glob("*.service"))
ANYWHERE = "0.0.0.0"  # noqa: S104 - inside the container; compose.yaml says what is let in
IN_A_CONTAINER = Path("/mosquitto/config")
_METRIC = re.compile(r"hearth_[a-z_]+")
_WITHOUT_ROOTS_POWERS = ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictSUIDSGID")


def unit_named(path: Path) -> ConfigParser:
    unit = ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment,method-assign] # systemd's keys have capitals
    unit.read(path, encoding="utf-8")
    return unit


def directives(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("service", OURS)
def test_a_service_of_ours_reads_only_settings_that_there_are(service: str) -> None:
    known = {f"HEARTH_{name.upper()}" for name in Settings.model_fields}
    assert set(COMPOSE["services"][service]["environment"]) <= known


@pytest.mark.parametrize("service", OURS)
def test_a_service_of_ours_runs_a_command_that_there_is(service: str) -> None:
    described = COMPOSE["services"][service]
    words = described.get("command") or re.findall(r"hearth ([a-z]+)", described["entrypoint"][-1])
    assert set(words) <= {command.name for command in COMMANDS}


@pytest.mark.parametrize("service", OURS)
def test_a_container_of_ours_has_no_more_rights_than_it_needs(service: str) -> None:
    described = COMPOSE["services"][service]
    assert described["read_only"]
    assert described["cap_drop"] == ["ALL"]


def test_every_volume_and_dependency_of_the_containers_is_described() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).exists() or "certs" in source


def test_no_secret_stands_in_the_compose_file() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    assert all("${" in line for line in text.splitlines() if "PASSWORD" in line)


def test_prometheus_token_is_a_file_that_only_the_api_is_shown() -> None:
    shown = {
        name: service["secrets"]
        for name, service in COMPOSE["services"].items()
        if "secrets" in service
    }
    assert shown == {"api": ["metrics-token"]}
    api = COMPOSE["services"]["api"]
    (name,) = api["secrets"]
    assert Path(api["environment"]["HEARTH_METRICS_TOKEN_FILE"]) == Path("/run/secrets") / name
    file = Path(COMPOSE["secrets"]["metrics-token"]["file"])
    kept_out = f"deploy/{file.name}"
    for ignored in (".gitignore", ".dockerignore"):
        lines = (CHECKOUT / ignored).read_text(encoding="utf-8").splitlines()
        assert kept_out in {line.removeprefix("/") for line in lines}, ignored


def test_the_token_of_the_containers_belongs_to_the_images_user() -> None:
    (uid,) = re.findall(r"useradd .*--uid (\d+)", (DEPLOY / "Dockerfile").read_text("utf-8"))
    assert f"chown {uid} deploy/metrics-token" in (DEPLOY / "compose.yaml").read_text("utf-8")


def test_the_image_installs_what_the_lock_has_with_its_hashes_as_no_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    instructions = [line.split()[0] for line in directives(text) if not line.startswith(" ")]
    assert set(instructions) <= {
        *("FROM", "COPY", "RUN", "ENV", "USER", "VOLUME", "ENTRYPOINT", "CMD"),
    }
    assert "--require-hashes" in text
    assert instructions.index("USER") < instructions.index("ENTRYPOINT")


def test_the_containers_broker_is_configured_as_the_embedded_one() -> None:
    certs = IN_A_CONTAINER / "certs"
    files = Files(
        access=IN_A_CONTAINER / "access",
        data=Path("/mosquitto/data"),
        certificate=certs / "broker.pem",
        key=certs / "broker.key",
        hubs=certs / "hubs-ca.pem",
        services=certs / "services-ca.pem",
        revoked=certs / "revoked-hubs.pem",
    )
    embedded = configuration(Listeners(host=ANYWHERE, port=8883, services_port=8884), files)
    expected = [
        line.replace(f"8884 {LOOPBACK}", f"8884 {ANYWHERE}")  # services are in other containers
        for line in directives(embedded)
    ]
    folder = DEPLOY / "mosquitto"
    assert directives((folder / "mosquitto.conf").read_text(encoding="utf-8")) == expected
    assert (folder / "access").read_text(encoding="utf-8") == access_rules()


def test_the_containers_gate_is_configured_as_the_embedded_one() -> None:
    gate = Gate(host=ANYWHERE, port=8883, broker_port=8883, bytes_per_s=HUB_BYTES_PER_S)
    expected = gate_configuration(gate).replace(f"{LOOPBACK}:8883", "broker:8883")
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")
    assert directives(text) == directives(expected)
    assert "ports" not in COMPOSE["services"]["broker"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_runs_a_command_that_there_is_and_starts_it_again(path: Path) -> None:
    unit = unit_named(path)
    assert set(unit.sections()) == {"Unit", "Service", "Install"}
    program, name, *_ = unit["Service"]["ExecStart"].split()
    assert program.endswith("/hearth")
    assert name in {command.name for command in COMMANDS}
    assert unit["Service"]["Restart"] == "always"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_no_root_and_cannot_become_it(path: Path) -> None:
    service = unit_named(path)["Service"]
    assert service["User"] == "hearth"
    assert all(service[key] == "yes" for key in _WITHOUT_ROOTS_POWERS)


def test_the_dashboard_asks_only_for_metrics_that_there_are() -> None:
    dashboard = json.loads((DEPLOY / "dashboards" / "hearth.json").read_text(encoding="utf-8"))
    known = set(_METRIC.findall("\n".join(metrics_table())))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            asked = {name.removesuffix("_bucket") for name in _METRIC.findall(target["expr"])}
            assert asked, panel["title"]
            assert asked <= known
