"""Child processes: they end with their parent, and say why they failed."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.errors import UnavailableError
from gateway.platform.process import LOG_BYTES_MAX, Child, Program, RunAs, open_log
from tests.fixtures.servers import eventually, is_gone

pytestmark = pytest.mark.integration
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs children as another user")

PARENT = """
import sys
from pathlib import Path
from gateway.platform.process import Child, Program
child = Child(Program(name="sleep", argv=("sleep", "1000"), log=Path(sys.argv[1])))
print(child.pid, file=sys.stderr, flush=True)
sys.stdin.read()
"""
STUBBORN = "trap '' TERM; echo deaf; while :; do sleep 0.05; done"


def program(log: Path, *argv: str, run_as: RunAs | None = None) -> Program:
    return Program(name="example", argv=argv, log=log, run_as=run_as)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log" / "example.log"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent(log: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(log)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        assert parent.stderr is not None
        child = int(parent.stderr.readline())
        assert not is_gone(child)
        parent.send_signal(number)
    assert eventually(lambda: is_gone(child))


def test_a_child_outlives_the_thread_that_started_it(log: Path) -> None:
    children: list[Child] = []
    thread = threading.Thread(target=lambda: children.append(Child(program(log, "sleep", "1000"))))
    thread.start()
    thread.join()
    assert children[0].is_alive()
    children[0].stop()
    assert not children[0].is_alive()


def test_a_child_that_does_not_listen_is_killed(log: Path) -> None:
    child = Child(program(log, "/bin/sh", "-c", STUBBORN))
    child.wait_ready(lambda: "deaf" in log.read_text(), within_s=10)
    child.stop(within_s=0.2)
    assert not child.is_alive()


def test_killing_reaches_the_childs_own_children(log: Path) -> None:
    child = Child(program(log, "/bin/sh", "-c", "sleep 1000 & echo $!; wait"))
    child.wait_ready(lambda: log.read_text().endswith("\n"), within_s=10)
    grandchild = int(log.read_text())
    child.kill()
    assert eventually(lambda: is_gone(grandchild))


def test_a_child_that_ends_before_it_is_ready_says_why(log: Path) -> None:
    child = Child(program(log, "/bin/sh", "-c", "echo the disk is gone; exit 3"))
    with pytest.raises(UnavailableError, match=r"(?s)ended with 3.*the disk is gone"):
        child.wait_ready(lambda: False, within_s=10)


def test_a_child_that_is_never_ready_is_given_up(log: Path) -> None:
    child = Child(program(log, "sleep", "1000"))
    with pytest.raises(UnavailableError, match="not ready after"):
        child.wait_ready(lambda: False, within_s=0.1)
    child.kill()


def test_a_program_that_is_not_there_is_named(log: Path) -> None:
    with pytest.raises(UnavailableError, match=r"no-such-program: .*No such file"):
        # By its path: where PATH has folders that one may not read, the answer is another.
        Child(program(log, str(log.parent / "no-such-program"))).wait(within_s=10)


def test_a_program_that_takes_too_long_is_killed(log: Path) -> None:
    child = Child(program(log, "sleep", "1000"))
    with pytest.raises(UnavailableError, match="not done after"):
        child.wait(within_s=0.1)
    assert not child.is_alive()


def test_stopping_twice_or_after_the_end_is_quiet(log: Path) -> None:
    child = Child(program(log, "true"))
    child.wait(within_s=10)
    child.stop()
    child.kill()
    child.stop()


def test_a_log_that_has_grown_too_long_is_put_aside(log: Path) -> None:
    open_log(log).close()
    log.write_bytes(b"x" * (LOG_BYTES_MAX + 1))
    open_log(log).close()
    assert log.stat().st_size == 0
    assert log.with_name("example.log.1").stat().st_size == LOG_BYTES_MAX + 1


@as_root
def test_a_child_of_root_can_be_another_user(log: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    run_as = RunAs(uid=nobody.pw_uid, gid=nobody.pw_gid, namespace=False)
    Child(program(log, "/bin/sh", "-c", "id -u; id -g; id -G", run_as=run_as)).wait(within_s=10)
    gid = str(nobody.pw_gid)
    assert log.read_text().split() == [str(nobody.pw_uid), gid, gid]


@as_root
def test_in_a_namespace_another_user_reaches_what_is_ours(log: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    nobody = pwd.getpwnam("nobody")
    run_as = RunAs(uid=nobody.pw_uid, gid=nobody.pw_gid, namespace=True)
    command = f"id -u; touch {closed}/made; chown 1 {closed}/made || echo no power"
    Child(program(log, "/bin/sh", "-c", command, run_as=run_as)).wait(within_s=10)
    assert log.read_text().split()[0] == str(nobody.pw_uid)
    assert "no power" in log.read_text()
    assert (closed / "made").stat().st_uid == os.geteuid()


@as_root
@pytest.mark.parametrize("namespace", [False, True])
def test_a_child_that_is_another_user_ends_with_its_parent_too(
    log: Path, *, namespace: bool
) -> None:
    nobody = pwd.getpwnam("nobody")
    run_as = f"run_as=RunAs(uid={nobody.pw_uid}, gid={nobody.pw_gid}, namespace={namespace})"
    code = PARENT.replace("Program\n", "Program, RunAs\n").replace("log=", f"{run_as}, log=")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(log)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        assert parent.stderr is not None
        child = int(parent.stderr.readline())
        # The launcher has become the program once its name is the program's.
        name = Path(f"/proc/{child}/comm")
        assert eventually(lambda: name.read_text() == "sleep\n")
        parent.kill()
    assert eventually(lambda: is_gone(child))
