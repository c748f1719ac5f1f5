"""PostgreSQL with TimescaleDB, Mosquitto, HAProxy and dbus-daemon from Debian 13, in a folder.

No root, no compiler, the system untouched: each program is a small script that starts the real one
through the folder's own loader and libraries, found beside it, so that the folder may be moved.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gateway.errors import UnavailableError, UsageError
from gateway.platform.embedded.apt import OWN_SERVERS, SUITE, PrivateApt, Progress
from gateway.platform.file_lock import exclusive

LAYOUT = 1
"""Counts up when what is kept of a package, or the wrappers, change: the folder is made anew."""
SPACE_BYTES_MIN = 400 << 20
"""Free disk needed: 110 MB of catalogue and packages, 105 MB unpacked, and a margin."""

POSTGRES = "usr/lib/postgresql/17"
PACKAGES = (
    *("postgresql-17", "postgresql-client-17", "postgresql-17-timescaledb"),
    *("mosquitto", "haproxy", "dbus-daemon"),
    # what they link to
    *("libapparmor1", "libaudit1", "libc6", "libcap-ng0", "libcap2", "libcom-err2"),
    *("libcrypt1", "libjemalloc2", "liblua5.4-0", "libopentracing1"),
    "libopentracing-c-wrapper0t64",
    *("libdbus-1-3", "libdlt2", "libexpat1", "libgcc-s1", "libgssapi-krb5-2", "libicu76"),
    *("libk5crypto3", "libkeyutils1", "libkrb5-3", "libkrb5support0", "libldap2", "liblz4-1"),
    *("liblzma5", "libpam0g", "libpcre2-8-0", "libpq5", "libreadline8t64", "libsasl2-2"),
    *("libselinux1", "libssl3t64", "libstdc++6", "libsystemd0", "libtinfo6", "libuuid1"),
    *("libwebsockets19t64", "libwrap0", "libxml2", "libxslt1.1", "libxxhash0", "libzstd1"),
    "zlib1g",
)
PROGRAMS = {
    "initdb": f"{POSTGRES}/bin/initdb",
    "postgres": f"{POSTGRES}/bin/postgres",
    "pg_dump": f"{POSTGRES}/bin/pg_dump",
    "pg_restore": f"{POSTGRES}/bin/pg_restore",
    "pgbench": f"{POSTGRES}/bin/pgbench",
    "psql": f"{POSTGRES}/bin/psql",
    "mosquitto": "usr/sbin/mosquitto",
    "mosquitto_passwd": "usr/bin/mosquitto_passwd",
    "haproxy": "usr/sbin/haproxy",
    "dbus-daemon": "usr/bin/dbus-daemon",
}
"""Every program that is kept, and where it lies."""
KEPT = (
    *(f"/{path}" for path in PROGRAMS.values()),
    f"/{POSTGRES}/lib/*.so",
    "/usr/lib/*-linux-gnu/*.so*",
    *(f"/usr/share/postgresql/17/{depth}" for depth in ("*", "*/*", "*/*/*")),
)
"""Programs, libraries and PostgreSQL's own files; the rest of each package is not unpacked."""
LEFT_OUT = (
    f"/{POSTGRES}/lib/llvmjit*.so",  # 120 MB of LLVM; just-in-time compilation is switched off
    "/usr/lib/*-linux-gnu/libexslt.so*",  # nobody links to it, and it would need two more packages
    "/usr/share/postgresql/17/man/*/*",
)

_WRAPPER = """\
#!/bin/sh
here=${{0%/*}}
lib="$here/{lib}"
exec "$lib/{loader}" --library-path "$lib" --argv0 "$here/{name}" "$here.real/{name}" "$@"
"""
_COMPLETE = "complete"
"""The last file made; a folder without it is not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A kind of processor: the names that Debian gives its libraries' folder and their loader."""

    triplet: str
    loader: str


MACHINES = {
    "x86_64": Machine(triplet="x86_64-linux-gnu", loader="ld-linux-x86-64.so.2"),
    "aarch64": Machine(triplet="aarch64-linux-gnu", loader="ld-linux-aarch64.so.1"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """The unpacked programs."""

    root: Path

    def program(self, name: str) -> Path:
        """Return the path of one of `PROGRAMS`."""
        return self.root / PROGRAMS[name]


def find_packages(home: Path) -> Packages | None:
    """Return what lies ready under this home."""
    root = _root(home, machine())
    return Packages(root=root) if (root / _COMPLETE).exists() else None


def ensure_packages(home: Path, progress: Progress, mirror: str | None = None) -> Packages:
    """Return the packages, fetching and unpacking them first where they are not there yet.

    Two that ask at once do it once; one that is killed leaves nothing that the next would use.

    Raises:
        UsageError: the machine lacks something; the text says what, and the other ways.
        UnavailableError: no mirror answers.
    """
    if found := find_packages(home):
        return found
    require_writable(home)
    waiting = "等待另一个进程 / waiting for another process that fetches the same packages"
    with exclusive(home / "packages" / "lock", lambda: progress(waiting)):
        if found := find_packages(home):
            return found
        require_space(home)
        kind = machine()
        return _make(_root(home, kind), kind, progress, mirror)


def machine() -> Machine:
    """Return this machine's kind.

    Raises:
        UsageError: Debian's packages are not used on it.
    """
    name = os.uname().machine
    if name not in MACHINES:
        raise UsageError(
            f"不支持的处理器 / no embedded servers for {name}, only for {', '.join(MACHINES)}; "
            f"{OWN_SERVERS}"
        )
    return MACHINES[name]


def require_writable(home: Path) -> None:
    """Make the home if it is not there.

    Raises:
        UsageError: this user cannot write to it.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        writable = os.access(home, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UsageError(
            f"目录不可写 / cannot write to {home}: 请把 HEARTH_HOME 设为可写的目录 / "
            "set HEARTH_HOME to a folder of yours"
        )


def require_space(home: Path) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        UsageError: less than `SPACE_BYTES_MIN` is free.
    """
    free = shutil.disk_usage(home).free
    if free < SPACE_BYTES_MIN:
        raise UsageError(
            f"磁盘空间不足 / {home} has {free >> 20} MB free, {SPACE_BYTES_MIN >> 20} MB are "
            "needed: 请清理磁盘, 或把 HEARTH_HOME 设到别处 / free some, or set HEARTH_HOME elsewhere"
        )


def kept_members(members: Iterable[tarfile.TarInfo]) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a package that are unpacked."""
    for member in members:
        path = PurePosixPath("/", member.name)
        if (
            not member.isdir()
            and any(path.match(pattern) for pattern in KEPT)
            and not any(path.match(pattern) for pattern in LEFT_OUT)
        ):
            yield member


def _root(home: Path, kind: Machine) -> Path:
    recipe = "\n".join([SUITE, kind.triplet, str(LAYOUT), *PACKAGES, *PROGRAMS.values()])
    return home / "packages" / hashlib.sha256(recipe.encode()).hexdigest()[:16]


def _make(root: Path, kind: Machine, progress: Progress, mirror: str | None) -> Packages:
    unfinished = root.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    apt = unfinished / "apt"
    apt.mkdir(parents=True)
    files = PrivateApt(folder=apt, progress=progress).fetch(PACKAGES, mirror)
    progress("解包 / unpacking")
    for file in files:
        _unpack(file, unfinished)
    shutil.rmtree(apt)
    _wrap_programs(unfinished, kind)
    versions = "".join(f"{file.stem}\n" for file in files)
    (unfinished / _COMPLETE).write_text(versions, encoding="utf-8")
    unfinished.rename(root)
    progress("数据库与消息代理已就绪 / database and broker programs are ready")
    return Packages(root=root)


def _unpack(package: Path, root: Path) -> None:
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as unpacker,  # noqa: S603 - ours
        tarfile.open(fileobj=unpacker.stdout, mode="r|") as archive,
    ):
        # Python 3.11.4 and later refuse what would land outside the folder; the packages are
        # Debian's own, their signature checked.
        archive.extraction_filter = getattr(tarfile, "tar_filter", None)
        archive.extractall(root, members=kept_members(archive))  # noqa: S202 - see above
    if unpacker.returncode != 0:
        raise UnavailableError(f"dpkg-deb: {package.name}: {unpacker.returncode}")


def _wrap_programs(root: Path, kind: Machine) -> None:
    for name, path in PROGRAMS.items():
        program = root / path
        real = program.parent.with_name(f"{program.parent.name}.real") / program.name
        real.parent.mkdir(exist_ok=True)
        program.rename(real)
        lib = os.path.relpath(root / "usr/lib" / kind.triplet, program.parent)
        program.write_text(_WRAPPER.format(lib=lib, loader=kind.loader, name=name))
        program.chmod(0o755)
