"""The command line as a whole: versions, help, exit statuses, options as text."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shell import PROGRAM, run, without

import fastprod
from fastprod.cli import main, options
from fastprod.cli.failure import CommandError, say

COMMANDS = ("demo", "broker", "produce", "perf")
PERF = ("perf", "-b", "localhost", "-t", "x", "--num-records", "1")
# The one thing that must never be seen.
TRACEBACK = "Traceback"


def test_version_says_what_runs() -> None:
    done = run("--version")
    assert (done.status, done.said) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"fastprod {fastprod.__version__}"
    assert lines[1].startswith(f"backend: {fastprod.backend}")
    assert "CRC-32C: " in done.out
    for package in ("gzip: zlib ", "snappy: cramjam ", "lz4: ", "zstd: "):
        assert package in done.out


@pytest.mark.native_only
def test_version_says_why_it_is_pure_when_asked_to_be() -> None:
    """And how to have the compiled one, which is there."""
    done = run("--version", FASTPROD_BACKEND="pure")
    assert (done.status, done.said) == (0, "")
    assert "backend: pure (because FASTPROD_BACKEND=pure)\n" in done.out
    assert "to get the compiled backend: unset FASTPROD_BACKEND\n" in done.out


def test_version_says_why_it_is_pure_when_asked_to_be_without_the_extension() -> None:
    done = run("--version", program=without("fastprod._core"), FASTPROD_BACKEND="pure")
    assert (done.status, done.said) == (0, "")
    assert "backend: pure (because FASTPROD_BACKEND=pure)\n" in done.out
    assert "pip install" in done.out


def test_version_says_why_it_is_pure_without_the_extension() -> None:
    done = run("--version", program=without("fastprod._core"), FASTPROD_BACKEND=None)
    assert (done.status, done.said) == (0, "")
    assert "backend: pure (the compiled extension cannot be loaded: " in done.out
    assert "C++ compiler" in done.out


@pytest.mark.parametrize("backend", ["native", "neither"])
def test_a_backend_that_cannot_be_had_is_one_line(backend: str) -> None:
    done = run("--version", program=without("fastprod._core"), FASTPROD_BACKEND=backend)
    assert (done.status, done.out) == (1, "")
    assert done.said.startswith("fastprod: FASTPROD_BACKEND=")
    assert done.said.count("\n") == 1


def test_version_loads_no_command() -> None:
    program = "import sys; from fastprod.cli import main; main(['--version']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.removeprefix("fastprod.cli.") in COMMANDS]
    assert not [name for name in loaded if name.startswith(("fastprod.testing", "fastprod.control", "kafka", "rich"))]


def test_a_command_loads_no_other() -> None:
    program = "import sys; from fastprod.cli import main; main(['produce', '--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in COMMANDS if f"fastprod.cli.{name}" in loaded] == ["produce"]


def test_help_names_every_command() -> None:
    done = run("--help")
    assert (done.status, done.said) == (0, "")
    assert [name for name in COMMANDS if f"\n    {name} " in done.out] == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = run(command, "--help")
    assert (done.status, done.said) == (0, "")
    assert done.out.startswith(f"usage: fastprod {command}")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "demo, broker, produce"),
        (["prodcue"], "prodcue"),
        (["--colour"], "--colour"),
        (["produce", "-b", "localhost"], "--topic"),
        (["produce", "-t", "x"], "-b HOST:PORT"),
        (["produce", "-b", "localhost", "-t", "x", "--format", "xml"], "xml"),
        (["produce", "-b", "localhost", "-t", "x", "--format", "json", "--key-separator", ":"], "--format lines"),
        (["produce", "-b", "localhost", "-t", "x", "--key-separator", ""], "--key-separator"),
        (["produce", "-b", "localhost", "-t", "x", "-X", "linger_ms"], "name=value"),
        (["produce", "-b", "localhost", "-t", "x", "-X", "linger_ms=soon"], "linger_ms=soon"),
        (["produce", "-b", "localhost", "-t", "x", "-X", "lingerms=1"], "'linger_ms'"),
        (["produce", "-b", "localhost", "-t", "x", "-X", "acks=2"], "acks=2"),
        (["produce", "-b", "localhost", "-t", "x", "-X", "enable_idempotence=maybe"], "enable_idempotence='maybe'"),
        (["produce", "-b", "localhost", "-t", "x", "-X", "value_serializer=json"], "value_serializer"),
        (["produce", "-b", "localhost:kafka", "-t", "x"], "localhost:kafka"),
        (["produce", "-b", "localhost", "-t", "x", "--config", "no-such-file.toml"], "no-such-file.toml"),
        (["perf", "-b", "localhost", "-t", "x", "--num-records", "1"], "--record-size"),
        (["perf", "-b", "localhost", "-t", "x", "--num-records", "0", "--record-size", "1"], "0 is no number above 0"),
        (["perf", "-t", "x", "--num-records", "1", "--record-size", "1"], "-b HOST:PORT"),
        ([*PERF, "--record-size", "1", "--payload-file", "x"], "--payload-file"),
        ([*PERF, "--record-size", "1", "--throughput", "0"], "0 is no rate"),
        ([*PERF, "--record-size", "1", "--keys", "101", "--key-size", "2"], "--key-size 2"),
        ([*PERF, "--record-size", "1", "-X", "acks=2"], "acks=2"),
        ([*PERF, "--record-size", "1", "-X", "acks=2", "--create-topic", "1"], "acks=2"),
        (["demo", "--records", "0"], "336776"),
        (["demo", "--partitions", "0"], "--partitions 0"),
        (["demo", "--compression", "lzma"], "lzma"),
    ],
)
def test_arguments_that_make_no_sense(arguments: list[str], named: str) -> None:
    done = run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert named in done.said
    assert TRACEBACK not in done.said


def test_an_unreachable_broker_is_named() -> None:
    done = run("produce", "-b", "127.0.0.1:1", "-t", "x", "-X", "bootstrap_timeout_ms=300")
    assert (done.status, done.out) == (1, "")
    last = done.said.splitlines()[-1]
    assert "127.0.0.1:1" in last
    assert "300 ms" in last
    assert last.count("Is a broker running there, and is the address right?") == 1
    assert "fastprod diagnose -b 127.0.0.1:1" in last
    assert TRACEBACK not in done.said


def test_a_missing_codec_names_the_package() -> None:
    done = run(
        "produce", "-b", "127.0.0.1:1", "-t", "x", "-X", "compression_type=snappy", program=without("cramjam")
    )
    assert (done.status, done.out) == (1, "")
    assert "pip install cramjam" in done.said
    assert done.said.count("\n") == 1


def test_a_reader_that_has_gone_is_no_drama() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    process = subprocess.run([*PROGRAM, "--version"], stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    assert (process.returncode, process.stderr) == (1, b"")


def test_main_returns_what_the_process_would_end_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--version"]) == 0
    assert main(["produce", "--help"]) == 0
    assert main([]) == 2
    assert main(["produce"]) == 2
    assert main(["demo", "--records", "-1"]) == 2
    capsys.readouterr()

    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastprod.cli.broker.run", interrupted)
    assert main(["broker"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("linger_ms=100", {"linger_ms": 100}),
        ("linger_ms=0.5", {"linger_ms": 0.5}),
        (" linger.ms = 7 ", {"linger_ms": 7}),
        ("batch_size=1e6", {"batch_size": 1e6}),
        ("retries=inf", {"retries": float("inf")}),
        ("acks=all", {"acks": "all"}),
        ("acks=1", {"acks": 1}),
        ("enable.idempotence=False", {"enable_idempotence": False}),
        ("strict_order=yes", {"strict_order": True}),
        ("compression_type=zstd", {"compression_type": "zstd"}),
        ("compression.type=none", {"compression_type": None}),
        ("compression_level=-5", {"compression_level": -5}),
        ("receive_buffer_bytes=none", {"receive_buffer_bytes": None}),
        ("receive_buffer_bytes=65536", {"receive_buffer_bytes": 65536}),
        ("api_version=3.9", {"api_version": (3, 9)}),
        ("api_version=auto", {"api_version": None}),
        ("client_id=a=b", {"client_id": "a=b"}),
        ("partitioner=round_robin", {"partitioner": "round_robin"}),
        ("bootstrap_servers=a:1,b:2", {"bootstrap_servers": "a:1,b:2"}),
    ],
)
def test_text_becomes_what_the_option_takes(text: str, value: dict[str, Any]) -> None:
    found = options.from_assignments([text])
    assert found == value
    assert [type(each) for each in found.values()] == [type(each) for each in value.values()]


def test_the_last_of_several_wins() -> None:
    assert options.from_assignments(["linger_ms=1", "acks=0", "linger_ms=2"]) == {"linger_ms": 2, "acks": 0}


def test_a_properties_file(tmp_path: Path) -> None:
    path = tmp_path / "producer.properties"
    path.write_text("# ours\n! theirs\n\nbootstrap.servers = a:1,b:2\r\nlinger_ms=5\nclient.id=a # b\n")
    assert options.from_file(path) == {"bootstrap_servers": "a:1,b:2", "linger_ms": 5, "client_id": "a # b"}


def test_a_line_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """The producer's warnings come from other threads than the command's lines: one would end up inside another."""
    pieces: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stderr", Stream())
    say("produce", "a line")
    assert pieces == ["fastprod produce: a line\n"]


def test_a_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "producer.toml"
    path.write_text('bootstrap_servers = ["a:1", "b:2"]\nretries = inf\nlinger.ms = 5\nenable_idempotence = false\n')
    assert options.from_file(path) == {
        "bootstrap_servers": ["a:1", "b:2"],
        "retries": float("inf"),
        "linger_ms": 5,
        "enable_idempotence": False,
    }


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.properties", b"linger_ms=1\nbatch_size\n", "line 2"),
        ("a.toml", b"linger_ms = \n", "not TOML"),
        ("a.toml", b"\xff", "cannot be read"),
    ],
)
def test_a_file_that_is_no_such(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CommandError, match=named) as raised:
        options.from_file(path)
    assert raised.value.status == 2
    assert str(path) in str(raised.value)
