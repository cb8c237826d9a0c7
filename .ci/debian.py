"""Debian's Pythons, of any of its suites and for any of its machines, without installing anything.

apt fetches the packages, with settings, lists and a cache of its own, from wherever this machine's packages come from
(another Debian mirror: FASTPROD_DEBIAN_MIRROR), and checks them against Debian's keys. They are unpacked into a folder
with all the libraries they need, the C library included. Their programs are started by that C library's own loader, so
they run on an older Debian too; those for another machine are started by Debian's qemu.

Needs apt, dpkg and Debian's keys (debian-archive-keyring), that is: Debian, or a container of it. `pythons.py` is the
command that uses this.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# From the newest to the oldest: each Python is taken from the first that has it.
SUITES = ("unstable", "testing", "stable", "oldstable")
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Machine(NamedTuple):
    """A kind of machine, by the kernel's name, Debian's, the one in Debian's folders, and the one in qemu's."""

    name: str
    debian: str
    triplet: str
    qemu: str


MACHINES = {
    machine.name: machine
    for machine in (
        Machine("x86_64", "amd64", "x86_64-linux-gnu", "x86_64"),
        Machine("aarch64", "arm64", "aarch64-linux-gnu", "aarch64"),
        Machine("s390x", "s390x", "s390x-linux-gnu", "s390x"),
    )
}
HERE = MACHINES.get(os.uname().machine)

SETTINGS = """\
Dir::Etc::sourcelist "{folder}/debian.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}/cache";
APT::Architecture "{debian}";
APT::Architectures {{ "{debian}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "{user}";
Acquire::Languages "none";
Debug::NoLocking "true";
"""
SOURCES = """\
Types: deb
URIs: {mirror}
Suites: {suite}
Components: main
Architectures: {debian}
Targets: Packages
Signed-By: {keys}
"""


class Suite:
    """The packages of one suite for one machine."""

    def __init__(self, folder: Path, suite: str, machine: Machine) -> None:
        self._folder = folder / suite / machine.name
        for name in ("lists/partial", "cache/archives/partial"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        named = {"folder": self._folder, "suite": suite, "debian": machine.debian, "keys": KEYS, "mirror": mirror()}
        user = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
        (self._folder / "apt.conf").write_text(SETTINGS.format(**named, user=user))
        (self._folder / "debian.sources").write_text(SOURCES.format(**named))
        # Nothing is installed here, so whatever a package depends on comes along.
        (self._folder / "status").touch()
        self._apt("apt-get", "-qq", "update")

    def pythons(self) -> list[str]:
        """The versions of CPython that this suite has, such as "3.14"."""
        names = self._apt("apt-cache", "search", "--names-only", r"^python3\.[0-9]+$")
        return re.findall(r"^python(3\.\d+) ", names, re.MULTILINE)

    def unpack_python(self, version: str, root: Path) -> None:
        """Unpack a CPython with its headers."""
        self.unpack(root, f"python{version}", f"libpython{version}-stdlib", "libstdc++6", "ca-certificates")
        # The headers of the C library would come along, and be taken for those to compile with.
        self.unpack_alone(root, f"libpython{version}-dev")
        (root / "whole").touch()

    def unpack(self, root: Path, *packages: str) -> None:
        """Unpack packages, and all that they depend on, into `root`."""
        archives = self._folder / "cache" / "archives"
        for archive in archives.glob("*.deb"):
            archive.unlink()
        self._apt("apt-get", "-qq", "--download-only", "install", *packages)
        extract(sorted(archives.glob("*.deb")), root)

    def unpack_alone(self, root: Path, *packages: str) -> None:
        """Unpack packages into `root` without what they depend on."""
        away = self._folder / "cache" / "alone"
        away.mkdir(exist_ok=True)
        for archive in away.glob("*.deb"):
            archive.unlink()
        self._apt("apt-get", "-qq", "download", *packages, cwd=away)
        extract(sorted(away.glob("*.deb")), root)

    def _apt(self, *command: str, cwd: Path | None = None) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self._folder / "apt.conf"), "LC_ALL": "C"}
        done = subprocess.run(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout


def mirror() -> str:
    """Where this machine gets Debian's packages from."""
    named = os.environ.get("FASTPROD_DEBIAN_MIRROR")
    if named:
        return named
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    known = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if not known:
        raise SystemExit("apt knows no Debian packages: run apt-get update once, or set FASTPROD_DEBIAN_MIRROR")
    return known[0]


def extract(archives: Sequence[Path], root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        subprocess.run(["dpkg-deb", "--extract", str(archive), str(root)], check=True)


class Python(NamedTuple):
    """An interpreter: its version ("3.14", "3.14t"), the machine it is for, the program, and what starts it with its
    own C library or qemu (nothing: it is started as it is)."""

    version: str
    machine: Machine
    program: Path
    starter: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.version}-{self.machine.name}"

    def environment(self, folder: Path) -> Path:
        """Make a fresh environment with nothing but pip in it, and return its Python.

        `venv` would link to the interpreter, which cannot be started by itself; a program that looks like one in its
        place can."""
        python = folder / "bin" / "python"
        site = folder / "lib" / f"python{self.version}" / "site-packages"
        for path in (python.parent, site):
            path.mkdir(parents=True, exist_ok=True)
        (folder / "pyvenv.cfg").write_text(f"home = {self.program.parent}\ninclude-system-site-packages = false\n")
        python.unlink(missing_ok=True)
        if self.starter:
            python.write_text(f'#!/bin/sh\nexec {shlex.join(self.starter)} {shlex.quote(str(self.program))} "$@"\n'
                              .replace("--argv0 SELF", '--argv0 "$0"'))
            python.chmod(0o755)
        else:
            python.symlink_to(self.program)
        return python


def root_of(folder: Path, version: str, machine: Machine) -> Path:
    return folder / "roots" / f"{version}-{machine.name}"


def interpreter(folder: Path, version: str, machine: Machine) -> Python:
    """A CPython that `Suite.unpack_python` has unpacked."""
    root = root_of(folder, version, machine)
    libraries = [root / "lib" / machine.triplet, root / "usr" / "lib" / machine.triplet]
    loader = next(path for place in (root, root / "usr") for path in sorted(place.glob("lib*/ld*.so.[0-9]")))
    starter = [str(loader), "--argv0", "SELF", "--library-path", ":".join(map(str, libraries))]
    if machine != HERE:
        starter.insert(0, str(emulator(folder, machine)))
    return Python(version, machine, root / "usr" / "bin" / f"python{version}", tuple(starter))


def emulator(folder: Path, machine: Machine) -> Path:
    """Debian's qemu for programs of this machine; it needs no libraries."""
    if HERE is None:
        raise SystemExit(f"there is no qemu to be had for {os.uname().machine}")
    root = folder / "roots" / "qemu"
    program = root / "usr" / "bin" / f"qemu-{machine.qemu}"
    if not program.exists():
        Suite(folder / "apt", "stable", HERE).unpack_alone(root, "qemu-user")
    return program
