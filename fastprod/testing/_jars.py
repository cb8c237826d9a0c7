"""The jars of one Apache Kafka version: resolved once by `jgo`'s pure-Python resolver, then kept in the cache."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from fastprod.testing._errors import BrokerError, MissingExtraError

Progress = Callable[[str], None]

# What to resolve for each purpose. The tools (ProducerPerformance, console consumer) bring 46 jars the broker never
# opens, so a broker alone does not ask for them.
_COORDINATES = {
    "broker": ("org.apache.kafka:kafka_2.13:{version}",),
    "tools": ("org.apache.kafka:kafka_2.13:{version}", "org.apache.kafka:kafka-tools:{version}"),
}
# Kafka's jars log through slf4j and leave the choice of a writer to the distribution; without one nothing is logged
# at all. This one writes to standard error and starts faster than log4j.
_LOG_API, _LOG_WRITER = ("org.slf4j", "slf4j-api"), ("org.slf4j", "slf4j-simple")
_DOWNLOADS_AT_ONCE = 8
_ATTEMPTS = 2


def cached_jars(cache: Path, version: str, purpose: str) -> tuple[Path, ...] | None:
    """Return the jars of an earlier `resolve_jars`, None if they are not all there."""
    try:
        names = json.loads(_manifest(cache, version, purpose).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    jars = tuple(_pool(cache) / name for name in names)
    return jars if all(jar.is_file() for jar in jars) else None


def resolve_jars(cache: Path, work: Path, version: str, purpose: str, progress: Progress) -> tuple[Path, ...]:
    """Resolve and download what `purpose` ("broker" or "tools") needs, in class path order.

    The caller holds the lock of the cache; `work` is a directory for what is on its way. A jar enters the cache whole
    and checked or not at all, so an interrupted download is only downloaded again.

    Raises:
        MissingExtraError: `jgo` is not installed.
        BrokerError: no network, or no such version.
    """
    try:
        maven: Any = import_module("jgo.maven")
        requests: Any = import_module("requests")
    except ImportError as error:
        raise MissingExtraError(
            f"the jars of Apache Kafka {version} are not here yet, and jgo, which gets them, is not installed"
        ) from error
    progress(f"resolving the jars of Apache Kafka {version} (once; they are kept in {cache})")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with tempfile.TemporaryDirectory(dir=work) as repository:
                names = _fetch(_context(maven, Path(repository)), _pool(cache), version, purpose, progress)
            break
        except requests.RequestException as error:
            if attempt == _ATTEMPTS:
                raise BrokerError(
                    f"the jars of Apache Kafka {version} could not be downloaded: is there a network? They are needed "
                    f"once and then kept in {cache}; FASTPROD_MAVEN_REPOSITORY names a mirror to use. Cause: {error}"
                ) from error
            progress("the connection failed; trying once more")
        except RuntimeError as error:
            raise BrokerError(f"the jars of Apache Kafka {version} could not be resolved: {error}") from error
    manifest = _manifest(cache, version, purpose)
    partial = manifest.with_suffix(".partial")
    partial.write_text(json.dumps(names, indent=1), encoding="utf-8")
    partial.replace(manifest)
    return tuple(_pool(cache) / name for name in names)


def _context(maven: Any, repository: Path) -> Any:
    mirror = os.environ.get("FASTPROD_MAVEN_REPOSITORY")
    remote = {"mirror": mirror.rstrip("/")} if mirror else None
    return maven.MavenContext(repo_cache=repository, remote_repos=remote)


def _fetch(context: Any, pool: Path, version: str, purpose: str, progress: Progress) -> list[str]:
    """Resolve with `context`, bring every jar into `pool`, return their names."""
    wanted = [context.create_dependency(text.format(version=version)) for text in _COORDINATES[purpose]]
    inputs, transitive = context.resolver.resolve(wanted)
    artifacts = [one.artifact for one in [*inputs, *(one for one in transitive if one.scope in ("compile", "runtime"))]]
    (log_api,) = (one for one in artifacts if (one.groupId, one.artifactId) == _LOG_API)
    artifacts.append(context.project(*_LOG_WRITER).at_version(log_api.version).artifact())
    missing = [one for one in artifacts if not (pool / one.filename).is_file()]
    progress(f"downloading {len(missing)} of {len(artifacts)} jars")
    pool.mkdir(exist_ok=True)
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as downloads:
        list(downloads.map(lambda artifact: _download(artifact, pool), missing))
    return [one.filename for one in artifacts]


def _download(artifact: Any, pool: Path) -> None:
    path = Path(artifact.resolve())
    # A jar's directory is at its end, so a truncated one is no zip file.
    if not zipfile.is_zipfile(path):
        raise BrokerError(f"{artifact.filename} was not downloaded whole; try again")
    path.replace(pool / artifact.filename)


def _pool(cache: Path) -> Path:
    return cache / "jars"


def _manifest(cache: Path, version: str, purpose: str) -> Path:
    return cache / f"kafka-{version}-{purpose}.json"
