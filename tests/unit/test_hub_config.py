"""hub.toml: what is right is read, what is wrong is named with its key and in both languages."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import structlog

from edge.config import HubConfig, check_together, load_config
from edge.hub_clock import Trust
from edge.outbox import CAPACITY_DEFAULT, Policy
from gateway.errors import UsageError
from gateway.measurement import device_id
from gateway.platform.settings import CHECKOUT

SMALLEST = """
[hub]
id = "00c0ffee00c0ffee"
data_dir = "{folder}"
[mqtt]
url = "mqtt://127.0.0.1:1883"
"""
CUFF = """
[[device]]
address = "C0:26:DA:01:02:03"
name = "血压计"
"""


def load(folder: Path, text: str) -> HubConfig:
    path = folder / "hub.toml"
    path.write_text(text.format(folder=folder), encoding="utf-8")
    return load_config(path)


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
    assert (broker.host, broker.port, broker.tls) == ("127.0.0.1", 1883, None)
    assert (broker.username, broker.password) == ("00c0ffee00c0ffee", None)


def test_the_annotated_example_is_a_configuration(tmp_path: Path) -> None:
    secret = tmp_path / "mqtt_password"
    secret.write_text("a secret\n")
    secret.chmod(0o600)
    text = (CHECKOUT / "deploy" / "hub.toml").read_text(encoding="utf-8")
    path = tmp_path / "hub.toml"
    path.write_text(text.replace("/etc/hearth/mqtt_password", str(secret)), encoding="utf-8")
    config = load_config(path)
    password = config.broker().password
    assert password is not None
    assert password.get_secret_value() == "a secret"
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


def test_a_new_password_counts_from_the_next_connection(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("old\n")
    secret.chmod(0o600)
    config = load(tmp_path, SMALLEST + f'password_file = "{secret}"\n')
    secret.write_text("new\n")
    password = config.broker().password
    assert password is not None
    assert password.get_secret_value() == "new"
    assert "new" not in repr(config.broker())


def test_a_secret_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("secret\n")
    secret.chmod(0o644)
    with structlog.testing.capture_logs() as logs:
        load(tmp_path, SMALLEST + f'password_file = "{secret}"\n')
    (event,) = logs
    assert event["event"] == "secret_readable_by_others"
    assert event["cure"] == f"chmod 600 {secret}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (edited('id = "00c0ffee00c0ffee"', 'id = "C0FFEE"'), r"\[hub\] id: .*16 lower-case"),
        (edited('id = "00c0ffee00c0ffee"', ""), r"\[hub\] id: Field required"),
        (edited("[hub]", '[hub]\ntimezone = "Asia/Nowhere"'), r"\[hub\] timezone: .*no time zone"),
        (edited("[hub]", "[hub]\ncolour = 1"), r"\[hub\] colour: Extra inputs"),
        (edited("[hub]", '[hub]\naccept = "listed"'), r"accept = \"listed\" needs at least one"),
        (edited("mqtt://", "http://"), "mqtt://host"),
        (edited("mqtt://", "mqtt://me:secret@"), r"\[mqtt\] url: .*password_file"),
        (SMALLEST + 'cert_file = "x"', "cert_file and key_file go together"),
        (SMALLEST + 'password_file = "/nowhere"', r"password_file /nowhere"),
        (
            SMALLEST + 'ca_file = "/nowhere"\n[outbox]\ncapacity = 5',
            r"\[outbox\] capacity: .*10000",
        ),
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
