"""The virtual environment of a checkout: made once for each lock, by pip, from hashed wheels only.

Called by the script `hearth` before any library is there: standard library only. The first two
functions also run on Pythons too old for Hearth (3.7 and later).
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SPACE_BYTES_MIN = 600 << 20
"""Free disk needed: an environment takes 300 MB, and pip as much while it works."""
RETRIES, TIMEOUT_S = 3, 30
"""An index that sends nothing for TIMEOUT_S is asked so often again; then it is an error."""
REPORT_EVERY = 10
"""On a terminal a running count is shown; else every tenth library is told."""
QUOTED_LINES = 4
"""An error quotes so many last lines of what the tool said; all of it is in the log."""
MISLEADING = ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PYTHONHOME", "PYTHONPATH")
"""Variables that would make pip install somewhere else, or Python read something else."""
UNAVAILABLE, USAGE = 1, 2
"""Exit status: something outside does not answer; a person must act."""
NETWORK_ERRORS = ("NewConnectionError", "NameResolutionError", "TimeoutError", "ProxyError")
"""How pip names what is no fault of the lock's."""
_PINS = re.compile(r"^[a-z0-9-]+==", re.MULTILINE)
COMPOSE = "或使用 / or use deploy/compose.yaml"


def become_python(oldest: tuple[int, int], end: tuple[int, int]) -> NoReturn:
    """Start anew with a Python from `oldest` up to before `end`, if one is installed."""
    for minor in range(end[1] - 1, oldest[1] - 1, -1):
        python = shutil.which(f"python3.{minor}")
        # A version manager may have put a stand-in there that only says it is not installed.
        if python and _runs(python):
            os.execv(python, [python, *sys.argv])  # noqa: S606 - no shell is what is wanted
    found = ".".join(map(str, sys.version_info[:3]))
    _fail(
        USAGE,
        f"Python 版本不符 / Hearth needs Python 3.{oldest[1]} to 3.{end[1] - 1}, this is {found}: "
        f"请安装 / install one, such as `apt-get install python3.11 python3.11-venv`, {COMPOSE}",
    )


def refuse_platform(machines: Sequence[str]) -> NoReturn:
    """End with a message."""
    _fail(
        USAGE,
        f"不支持的平台 / only Linux on {' and '.join(machines)} is supported; {COMPOSE}",
    )


def make_environment(
    home: Path, folder: Path, lock: Path, checkout: Path, is_ready: Callable[[Path], bool]
) -> None:
    """Make `folder` from the lock, unless another process just did; ends with a message on error."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        turn = (folder.parent / "lock").open("a")
    except OSError as error:
        _fail(
            USAGE,
            f"目录不可写 / cannot write to {home}: {error.strerror}: "
            "请把 HEARTH_HOME 设为可写的目录 / set HEARTH_HOME to a folder of yours",
        )
    with turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("等待另一个进程 / waiting for another process that makes the same")
            fcntl.flock(turn, fcntl.LOCK_EX)
        if not is_ready(folder):
            _require_parts(home)
            _make(home, folder, lock, checkout)


def _require_parts(home: Path) -> None:
    free = shutil.disk_usage(home).free
    if free < SPACE_BYTES_MIN:
        _fail(
            USAGE,
            f"磁盘空间不足 / {home} has {free >> 20} MB free, {SPACE_BYTES_MIN >> 20} MB are "
            "needed: 请清理磁盘, 或把 HEARTH_HOME 设到别处 / free some, or set HEARTH_HOME elsewhere",
        )
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        _fail(
            USAGE,
            "Python 缺少 venv / this Python lacks venv: 请运行 / run "
            f"`apt-get install {_python_name()}-venv` (Debian, Ubuntu), {COMPOSE}",
        )


def _make(home: Path, folder: Path, lock: Path, checkout: Path) -> None:
    _say(f"准备 Python 环境, 仅首次需要 / making the Python environment, only this once: {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    log = home / "log" / "environment.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-I", "-m", "venv", str(folder)], log)
    install = [
        *(str(folder / "bin" / "python"), "-I", "-m", "pip", "install"),
        *("--require-hashes", "--no-deps", "--only-binary=:all:", "--no-compile"),
        *("--no-input", "--disable-pip-version-check", "--no-warn-script-location"),
        *(f"--retries={RETRIES}", f"--timeout={TIMEOUT_S}", "--progress-bar=off"),
        *("--requirement", str(lock)),
    ]
    _run(install, log, total=len(_PINS.findall(lock.read_text(encoding="utf-8"))))
    packages = folder / "lib" / _python_name() / "site-packages"
    # A path relative to this file's folder, so that checkout and home may move together.
    to_checkout = os.path.relpath(checkout, packages.resolve())
    (packages / "hearth.pth").write_text(f"{to_checkout}\n", encoding="utf-8")
    (folder / "complete").touch()  # the last step: half of an environment is never used
    _say("完成 / done")


def _run(command: Sequence[str], log: Path, total: int = 0) -> None:
    """Run a tool to its end; shows how far pip is, which names each library it takes."""
    environment = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    said: list[str] = []
    done = 0
    with subprocess.Popen(  # noqa: S603 - the arguments are ours
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as tool:
        for raw in tool.stdout or ():
            said.append(raw.decode(errors="replace").rstrip())
            if said[-1].startswith("Ignoring "):  # it is for another Python
                total -= 1
            elif said[-1].startswith(("Collecting ", "Processing ")):
                done += 1
                _show_progress(done, total)
    with log.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in said)
    if tool.returncode != 0:
        _explain(said, log)


def _show_progress(done: int, total: int) -> None:
    text = f"  安装 / installing {done}/{total}"
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text}" + ("\n" if done == total else ""))
        sys.stderr.flush()
    elif done % REPORT_EVERY == 0:
        _say(text)


def _explain(said: Sequence[str], log: Path) -> NoReturn:
    text = "\n".join(said)
    tail = "\n".join(f"    {line}" for line in said[-QUOTED_LINES:])
    if "No space left on device" in text:
        _fail(USAGE, f"磁盘空间不足 / the disk is full:\n{tail}")
    if any(name in text for name in NETWORK_ERRORS):
        _fail(
            UNAVAILABLE,
            "网络不通 / the package index cannot be reached: 请检查网络或 pip 的镜像设置 / "
            f"check the network, or the index that pip is configured with:\n{tail}",
        )
    _fail(UNAVAILABLE, f"安装失败 / it failed; all that was said is in {log}:\n{tail}")


def _python_name() -> str:
    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def _runs(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0  # noqa: S603 - from PATH


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _fail(status: int, text: str) -> NoReturn:
    _say(f"错误 / error: {text}")
    sys.exit(status)
