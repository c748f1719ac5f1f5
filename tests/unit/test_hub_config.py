"""hub.toml: what is right is read, what is wrong is named with its key and in both languages."""

from __future__ import annotations

import ssl
import tomllib
from contextlib import suppress
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from edge.config import HubConfig, check_together, load_config
from edge.hub_clock import Trust
from edge.identity import FOLDER, Identity, keep_identity, read_identity
from edge.outbox import CAPACITY_DEFAULT, Policy
from gateway.errors import UsageError
from gateway.measurement import device_id
from gateway.platform import ca
from gateway.platform.settings import CHECKOUT

SMALLEST = """
[hub]
id = "00c0ffee00c0ffee"
data_dir = "{folder}"
[mqtt]
url = "mqtts://127.0.0.1:8883"
[enrolment]
url = "http://127.0.0.1:8420"
"""
CUFF = """
[[device]]
address = "C0:26:DA:01:02:03"
name = "血压计"
"""


def load(folder: Path, text: str) -> HubConfig:
    """Load a configuration of a hub that is enrolled."""
    path = folder / "hub.toml"
    path.write_text(text.format(folder=folder), encoding="utf-8")
    with suppress(tomllib.TOMLDecodeError, KeyError):
        section = tomllib.loads(path.read_text(encoding="utf-8"))["hub"]
        enrol(folder, section["id"], Path(section["data_dir"]))
    return load_config(path)


def enrol(home: Path, hub: str, data_dir: Path) -> None:
    """Give a hub an identity, as an enrolment does."""
    key = ca.new_key()
    hubs = ca.authority(home, ca.Role.HUBS)
    certificate = hubs.issue_for_hub(key.public_key(), hub)
    identity = Identity(
        hub=ca.Bundle(certificate=certificate, key=key),
        hubs_root=hubs.pem(),
        services_root=ca.authority(home, ca.Role.SERVICES).pem(),
    )
    keep_identity(data_dir / FOLDER, identity)


def edited(old: str, new: str) -> str:
    assert old in SMALLEST
    return SMALLEST.replace(old, new)


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    config = load(tmp_path, SMALLEST)
    assert config.hub_id == 0x00C0FFEE00C0FFEE
    assert config.zone == ZoneInfo("Asia/Shanghai")
    assert config.outbox.capacity == CAPACITY_DEFAULT
    assert config.outbox.at_capacity is Policy.KEEP_OLDEST
    assert config.accepts_any
    assert config.hub.clock is Trust.NTP
    assert config.outbox_path == tmp_path / "outbox.sqlite"
    broker = config.broker()
    assert (broker.host, broker.port) == ("127.0.0.1", 8883)
    assert broker.tls is not None
    assert broker.tls.minimum_version is ssl.TLSVersion.TLSv1_3
    assert broker.tls.verify_mode is ssl.CERT_REQUIRED


def test_the_annotated_example_is_a_configuration(tmp_path: Path) -> None:
    text = (CHECKOUT / "deploy" / "hub.toml").read_text(encoding="utf-8")
    config = load(tmp_path, text.replace("/var/lib/hearth", str(tmp_path)))
    assert config.broker().tls is not None
    assert not config.accepts_any


def test_every_key_of_the_configuration_stands_in_the_example() -> None:
    text = (CHECKOUT / "deploy" / "hub.toml").read_text(encoding="utf-8")
    for name, section in HubConfig.model_fields.items():
        kind = section.annotation
        keys = getattr(kind, "model_fields", {}) or {"address": None, "name": None}
        assert f"[{name}]" in text
        assert all(f"{key} = " in text for key in keys), (name, keys)


def test_once_a_device_is_listed_no_other_is_read(tmp_path: Path) -> None:
    config = load(tmp_path, SMALLEST + CUFF)
    assert config.listed == {device_id("C0:26:DA:01:02:03")}
    assert not config.accepts_any
    text = edited("data_dir", 'accept = "any"\ndata_dir') + CUFF
    assert load(tmp_path, text).accepts_any


def test_a_renewed_certificate_counts_from_the_next_connection(tmp_path: Path) -> None:
    config = load(tmp_path, SMALLEST)
    former = read_identity(config.identity).hub.certificate
    enrol(tmp_path, "00c0ffee00c0ffee", tmp_path)
    assert read_identity(config.identity).hub.certificate != former
    assert config.broker().tls is not None


def test_a_hub_that_is_not_enrolled_is_told_how_to_be(tmp_path: Path) -> None:
    path = tmp_path / "hub.toml"
    path.write_text(SMALLEST.format(folder=tmp_path), encoding="utf-8")
    with pytest.raises(UsageError, match="run `hearth hub enrol CODE`"):
        load_config(path)


def test_a_certificate_of_another_hub_stops_the_start(tmp_path: Path) -> None:
    config = load(tmp_path, SMALLEST)
    enrol(tmp_path, "0000000000000001", config.hub.data_dir)
    with pytest.raises(UsageError, match=r"is hub 0000000000000001's, and .* 00c0ffee00c0ffee"):
        load_config(tmp_path / "hub.toml")


def test_the_key_is_for_its_owner_only(tmp_path: Path) -> None:
    config = load(tmp_path, SMALLEST)
    assert config.identity.stat().st_mode & 0o777 == 0o700
    assert (config.identity / "hub.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (edited('id = "00c0ffee00c0ffee"', 'id = "C0FFEE"'), r"\[hub\] id: .*16 lower-case"),
        (edited('id = "00c0ffee00c0ffee"', ""), r"\[hub\] id: Field required"),
        (edited("[hub]", '[hub]\ntimezone = "Asia/Nowhere"'), r"\[hub\] timezone: .*no time zone"),
        (edited("[hub]", "[hub]\ncolour = 1"), r"\[hub\] colour: Extra inputs"),
        (edited("[hub]", '[hub]\naccept = "listed"'), r"accept = \"listed\" needs at least one"),
        (edited("mqtts://", "mqtt://"), r"\[mqtt\] url: .*mqtts://host"),
        (edited("mqtts://", "mqtts://me:secret@"), r"\[mqtt\] url: .*certificate"),
        (edited("http://", "ftp://"), r"\[enrolment\] url: .*http://host"),
        (SMALLEST + "[outbox]\ncapacity = 5", r"\[outbox\] capacity: .*10000"),
        (SMALLEST + '[outbox]\nat_capacity = "explode"', r"\[outbox\] at_capacity"),
        (SMALLEST + '[[device]]\naddress = "C0:26"', r"\[\[device\]\] 1 address: .*no Bluetooth"),
        (SMALLEST + "[hub", "no TOML"),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        load(tmp_path, text)
    assert any("一" <= letter <= "鿿" for letter in str(caught.value)), "Chinese comes first"
    assert "secret@" not in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_config(tmp_path / "hub.toml")


def configs(folder: Path, *changes: tuple[str, str]) -> list[HubConfig]:
    """Make two configurations that may run together, but for `changes` in the second."""
    first = load(folder, edited("[hub]", '[hub]\nadapters = ["hci0"]'))
    text = edited("[hub]", '[hub]\nadapters = ["hci1"]').replace(
        "00c0ffee00c0ffee", "0000000000000001"
    )
    text = text.replace("{folder}", "{folder}/second")
    for old, new in changes:
        text = text.replace(old, new)
    return [first, load(folder, text)]


def test_hubs_that_differ_may_share_a_process(tmp_path: Path) -> None:
    check_together(configs(tmp_path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("0000000000000001", "00c0ffee00c0ffee"), r"\[hub\] id: 00c0ffee00c0ffee"),
        (("{folder}/second", "{folder}"), r"\[hub\] data_dir"),
        (("hci1", "hci0"), r"\[hub\] adapters: hci0"),
        (('adapters = ["hci1"]', ""), "each must name"),
    ],
)
def test_hubs_that_would_disturb_each_other_may_not(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        check_together(configs(tmp_path, change))


def test_one_process_has_one_metrics_port(tmp_path: Path) -> None:
    first = load(tmp_path, edited("[hub]", '[hub]\nmetrics_port = 1\nadapters = ["hci0"]'))
    _, second = configs(tmp_path, ("[hub]", "[hub]\nmetrics_port = 2"))
    with pytest.raises(UsageError, match="metrics_port"):
        check_together([first, second])
