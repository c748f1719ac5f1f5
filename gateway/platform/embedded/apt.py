"""Debian packages fetched into a folder, by apt under private directories. apt.conf(5).

Signatures are checked against Debian's key ring. Nothing of the system's apt state is read or
written but its sources, which name the mirror, and its configuration, which may name a proxy.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import UnavailableError, UsageError

SUITE = "trixie"
"""Debian 13, the first with TimescaleDB."""
KEY_RINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
MIRRORS_MAX = 3
"""So many of the machine's mirrors are asked for Debian 13; then the person is."""
APT_S_MAX = 900
"""One run of apt may take this long; then the network is taken as down."""
TIMEOUT_S = 30
"""A mirror that sends nothing for so long is tried again."""
RETRIES = 3
QUOTED_LINES = 6
"""An error quotes so many last lines of what apt said."""

OWN_SERVERS = (
    "或使用自己的服务 / or give servers of your own: HEARTH_DATABASE_URL + HEARTH_MQTT_URL, "
    "or deploy/compose.yaml"
)
"""The way that is open everywhere; ends the text of every error here."""

_CONFIGURATION = """\
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}/state";
Dir::State::Lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::Retries "{retries}";
Acquire::http::Timeout "{timeout_s}";
Acquire::https::Timeout "{timeout_s}";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
"""
"""The machine's hooks work on the system's own state, so they are cleared."""

Progress = Callable[[str], None]
"""Told, in a line for a person, what goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateApt:
    """apt with all its state in one folder."""

    folder: Path
    progress: Progress

    def fetch(self, names: Sequence[str], mirror: str | None) -> list[Path]:
        """Download packages and return their files; `mirror` None: one that the machine names.

        Raises:
            UsageError: this machine lacks what is needed; the text says what and where from.
            UnavailableError: no mirror answers or has them.
        """
        key_ring = require_tools()
        self._prepare()
        self._update(key_ring, [mirror] if mirror else debian_mirrors())
        return self._download(names)

    def _prepare(self) -> None:
        for name in ("state", "lists/partial", "cache/archives/partial", "packages"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "status").touch()
        self._configuration.write_text(
            _CONFIGURATION.format(folder=self.folder, retries=RETRIES, timeout_s=TIMEOUT_S),
            encoding="utf-8",
        )

    def _update(self, key_ring: Path, mirrors: Sequence[str]) -> None:
        said = ""
        for mirror in mirrors[:MIRRORS_MAX]:
            # target=: a machine may ask for more, such as the contents of all packages.
            source = f"deb [signed-by={key_ring} target=Packages] {mirror} {SUITE} main\n"
            (self.folder / "sources.list").write_text(source, encoding="utf-8")
            done = self._run(["update", "--error-on=any"], self.folder)
            if done.returncode == 0:
                return
            said = done.stdout
        raise UnavailableError(
            "无法从本机的软件源获取 Debian 13 的目录 / none of this machine's package mirrors "
            f"gave Debian 13's catalogue (network? key ring too old: {_install_key_ring()}; "
            f"another mirror: HEARTH_DEBIAN_MIRROR); {OWN_SERVERS}:\n{_quoted(said)}"
        )

    def _download(self, names: Sequence[str]) -> list[Path]:
        packages = self.folder / "packages"
        self.progress(f"下载 {len(names)} 个 Debian 软件包 / fetching {len(names)} Debian packages")
        done = self._run(["download", *names], packages)
        files = sorted(packages.glob("*.deb"))
        if done.returncode != 0 or len(files) != len(names):
            raise UnavailableError(
                f"下载失败 / apt got {len(files)} of {len(names)} packages; {OWN_SERVERS}:\n"
                f"{_quoted(done.stdout)}"
            )
        return files

    def _run(self, arguments: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        command = ["apt-get", f"--config-file={self._configuration}", "--quiet", *arguments]
        try:
            return subprocess.run(  # noqa: S603 - the arguments are ours
                command,
                cwd=cwd,
                env={**os.environ, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=APT_S_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"apt-get: {error.timeout:.0f} s; {OWN_SERVERS}") from error

    @property
    def _configuration(self) -> Path:
        return self.folder / "apt.conf"


def require_tools() -> Path:
    """Return Debian's key ring.

    Raises:
        UsageError: it, apt or dpkg is not on this machine.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UsageError(
                f"缺少 {tool} / {tool} is not here: 自带的数据库需要 Debian 或 Ubuntu / the embedded "
                f"servers need Debian or Ubuntu; {OWN_SERVERS}"
            )
    for key_ring in KEY_RINGS:
        if key_ring.exists():
            return key_ring
    raise UsageError(
        "缺少 Debian 公钥 / Debian's key ring is not here: 请安装 / install it with "
        f"`{_install_key_ring()}`; {OWN_SERVERS}"
    )


def debian_mirrors() -> list[str]:
    """Return the addresses under which this machine's package sources may have Debian.

    Raises:
        UsageError: the machine's sources name none.
    """
    # Release information is left out: a machine that never ran `apt-get update` has none.
    listing = subprocess.run(
        ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(COMPONENT)"],  # noqa: S607 - wherever apt is
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    mirrors = mirrors_in(line.split() for line in listing.splitlines())
    if not mirrors:
        raise UsageError(
            "本机软件源中没有 Debian 镜像 / this machine's apt sources name no mirror: "
            f"HEARTH_DEBIAN_MIRROR=https://…/debian/; {OWN_SERVERS}"
        )
    return mirrors


def mirrors_in(targets: Iterable[Sequence[str]]) -> list[str]:
    """Return where Debian may be, likeliest first, from pairs of repository and component.

    A mirror of Ubuntu usually has Debian beside it, under /debian/; Debian's signature, not the
    name, decides whether it is Debian.
    """
    found: dict[str, None] = {}
    for target in targets:
        match target:
            case [address, "main"]:
                found[re.sub(r"/ubuntu(-ports)?/?$", "/debian/", address)] = None
            case _:
                pass
    return sorted(found, key=lambda address: not address.rstrip("/").endswith("/debian"))


def _install_key_ring() -> str:
    return "apt-get install debian-archive-keyring"


def _quoted(said: str) -> str:
    return "\n".join(f"    {line}" for line in said.splitlines()[-QUOTED_LINES:])
