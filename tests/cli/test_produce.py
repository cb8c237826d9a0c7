"""`fastprod produce` against a real broker: what arrives is read by another client."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shell import PATIENCE_S, MakeTopic, run, run_on_terminal, start, values, without
from shell import read as read_topic

from fastprod.cli import outcomes
from fastprod.testing import KafkaBroker


def produce(broker: KafkaBroker, topic: str, *options: str, data: bytes = b"") -> tuple[int, str]:
    done = run("produce", "-b", broker.bootstrap_servers, "-t", topic, *options, data=data)
    assert done.out == ""
    assert "Traceback" not in done.said
    return done.status, done.said


def frame(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


# What arrives


def test_lines_from_a_file(kafka_broker: KafkaBroker, make_topic: MakeTopic, tmp_path: Path) -> None:
    topic = make_topic()
    path = tmp_path / "input.txt"
    path.write_bytes(b"one\r\n\ntwo\nlast")
    status, said = produce(kafka_broker, topic, str(path))
    assert status == 0
    assert said.startswith("fastprod produce: 4 of 4 records acknowledged; ")
    assert said.count("\n") == 1
    assert values(kafka_broker.bootstrap_servers, topic) == [b"one", b"", b"two", b"last"]


def test_keyed_lines_from_standard_input(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic(6)
    data = b"".join(b"key-%06d\t%d\n" % (number % 50, number) for number in range(5000))
    assert produce(kafka_broker, topic, "--key-separator", "\\t", "-", data=data)[0] == 0
    found = read_topic(kafka_broker.bootstrap_servers, topic)
    assert sorted(int(each.value or b"") for each in found) == list(range(5000))
    for key in {each.key for each in found}:
        mine = [each for each in found if each.key == key]
        assert len({each.partition for each in mine}) == 1
        assert [int(each.value or b"") for each in mine] == sorted(int(each.value or b"") for each in mine)


def test_frames_arrive_byte_by_byte(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic()
    sent = [bytes(range(256)) * 40, b"", b"\r\n"]
    assert produce(kafka_broker, topic, "--format", "frames", data=b"".join(map(frame, sent)))[0] == 0
    assert values(kafka_broker.bootstrap_servers, topic) == sent


def test_every_field_of_an_envelope_arrives(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic(3)
    lines = [
        {"key": "k", "value": "v", "partition": 2, "timestamp_ms": 1_700_000_000_000, "headers": {"h": "x"}},
        {"key_base64": "AP8=", "value": None, "partition": 1},
    ]
    assert produce(kafka_broker, topic, "--format", "json", data="\n".join(map(json.dumps, lines)).encode())[0] == 0
    tombstone, full = read_topic(kafka_broker.bootstrap_servers, topic)
    assert full == (2, 0, b"k", b"v", [("h", b"x")], 1_700_000_000_000)
    assert tombstone[:4] == (1, 0, b"\x00\xff", None)


def test_of_what_nobody_acknowledges_it_does_not_say_so(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic()
    status, said = produce(kafka_broker, topic, "-X", "acks=0", data=b"one\ntwo\n")
    assert status == 0
    assert "fastprod produce: 2 of 2 records sent, which acks=0 lets nobody acknowledge; " in said
    assert "records acknowledged" not in said
    # They may still be on their way to the other nodes, and are not to be read before.
    assert values(kafka_broker.bootstrap_servers, topic, 2) == [b"one", b"two"]


def test_options_reach_the_producer(kafka_broker: KafkaBroker, make_topic: MakeTopic, tmp_path: Path) -> None:
    topic = make_topic()
    path = tmp_path / "producer.toml"
    path.write_text(f'bootstrap_servers = "{kafka_broker.bootstrap_servers}"\ncompression_type = "zstd"\n')
    options = ("produce", "--config", str(path), "-t", topic)
    assert run(*options, data=b"a" * 1000).status == 0
    assert run(*options, "-X", "compression_type=gzip", data=b"a" * 1000).status == 0
    log = kafka_broker.read_log(topic)
    second = 12 + int.from_bytes(log[8:12], "big")
    assert [log[start + 22] & 7 for start in (0, second)] == [4, 1]


# What goes wrong


@pytest.mark.parametrize(
    ("options", "data", "place"),
    [
        (("--key-separator", ":"), b"a:1\nb:2\nc\nd:4\n", "line 3"),
        (("--format", "json"), b'{"value": "1"}\n\n{"value": "2"}\n{"value": 3}\n', "line 4"),
        (("--format", "frames"), frame(b"1") + frame(b"2") + b"\x00\x00\x00\x09x", "frame 3"),
        (("--format", "json"), b'{"value": "1"}\n{"value": "2"}\n{"value": "3", "partition": 9}\n', "line 3"),
        (("-X", "max_request_size=2000"), b"1\n2\n" + b"3" * 1990 + b"\n4\n", "line 3"),
    ],
)
def test_bad_input_is_named_and_nothing_before_it_is_lost(
    kafka_broker: KafkaBroker, make_topic: MakeTopic, options: tuple[str, ...], data: bytes, place: str
) -> None:
    topic = make_topic()
    # It must leave because the command ends, not because its time has come.
    status, said = produce(kafka_broker, topic, "-X", "linger_ms=60000", *options, data=data)
    assert status == 1
    complaint, total = said.splitlines()
    assert complaint.startswith(f"fastprod produce: {place}: ")
    assert total.startswith("fastprod produce: 2 of 2 records acknowledged; ")
    assert values(kafka_broker.bootstrap_servers, topic) == [b"1", b"2"]


def test_a_record_that_the_broker_refuses(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic(max_message_bytes=500)
    data = b"\n".join([b"1", b"x" * 1000, b"2", *[b"y" * 1000] * 7])
    status, said = produce(kafka_broker, topic, data=data)
    assert status == 1
    shown = [line for line in said.splitlines() if "was not acknowledged: MessageSizeTooLargeError: " in line]
    assert [line.split()[2:4] for line in shown] == [["line", str(place)] for place in (2, 4, 5, 6, 7)]
    assert said.splitlines()[-1].startswith("fastprod produce: 2 of 10 records acknowledged, 8 failed; ")
    assert values(kafka_broker.bootstrap_servers, topic) == [b"1", b"2"]


def test_a_topic_that_does_not_exist(kafka_broker: KafkaBroker) -> None:
    options = ("-X", "allow_auto_create_topics=false", "-X", "max_block_ms=300")
    status, said = produce(kafka_broker, "nobody-made-this", *options, data=b"a\n")
    assert status == 1
    assert "line 1: it cannot be sent: KafkaTimeoutError: " in said
    assert "'nobody-made-this'" in said


def test_a_file_that_cannot_be_read(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    for path, reason in ((missing, "No such file"), (str(tmp_path), "directory")):
        status, said = produce(kafka_broker, "x", path)
        assert status == 1
        assert path in said
        assert reason in said


# Streaming


def test_a_line_does_not_wait_for_the_next(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic()
    process = start("produce", "-b", kafka_broker.bootstrap_servers, "-t", topic)
    assert process.stdin is not None
    for line in (b"one", b"two", b"three"):
        process.stdin.write(line + b"\n")
        read_topic(kafka_broker.bootstrap_servers, topic, {b"one": 1, b"two": 2, b"three": 3}[line])
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_a_failure_is_told_while_the_input_rests(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic(max_message_bytes=500)
    process = start("produce", "-b", kafka_broker.bootstrap_servers, "-t", topic)
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"x" * 1000 + b"\n")
    # Python may warn about its own things first; the input stays open all the while.
    while b"line 1 was not acknowledged" not in (line := process.stderr.readline()):
        assert line
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1


def test_ctrl_c_delivers_what_was_read(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic()
    process = start("produce", "-b", kafka_broker.bootstrap_servers, "-t", topic)
    assert process.stdin is not None
    process.stdin.write(b"first\nsecond\npart of")
    read_topic(kafka_broker.bootstrap_servers, topic, 2)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[1].decode()
    assert process.returncode == 130
    assert said.startswith("fastprod produce: 2 of 2 records acknowledged; ")
    assert said.count("\n") == 1


def test_a_second_ctrl_c_gives_up() -> None:
    # A broker of its own: one that was paused for long is left out by its cluster for a while.
    with KafkaBroker() as broker:
        broker.create_topic("x")
        process = start("produce", "-b", broker.bootstrap_servers, "-t", "x")
        assert process.stdin is not None
        process.stdin.write(b"first\n")
        read_topic(broker.bootstrap_servers, "x", 1)
        broker.pause()
        process.stdin.write(b"second\n")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        # The first leaves it waiting for the broker.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=20)[1].decode()
        finally:
            process.kill()
    assert process.returncode == 130
    # The broker may have been paused between writing the first record and acknowledging it.
    assert re.match(r"fastprod produce: (1 of 2 records acknowledged, 1|0 of 2 records acknowledged, 2) given up; ",
                    said.splitlines()[-1])
    assert "Traceback" not in said


def test_ctrl_c_while_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = start("produce", "-b", f"127.0.0.1:{silent.getsockname()[1]}", "-t", "x")
        # Its first request has come, and no answer ever will.
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1)
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, said) == (130, b"", b"")


def test_memory_does_not_grow_with_the_input(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic()
    program = (
        "import sys; from fastprod.cli import main; status = main(sys.argv[1:]); "
        "print(*[line for line in open('/proc/self/status') if line.startswith('VmHWM')]); sys.exit(status)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "produce", "-b", kafka_broker.bootstrap_servers, "-t", topic],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    chunk = (b"x" * 999 + b"\n") * 1000
    for _ in range(200):
        process.stdin.write(chunk)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    # The input has 200 MB; buffer_memory is 32 MiB. The line is such as "VmHWM: 71234 kB".
    assert int(out.split()[1]) < 150 * 1024


def test_few_futures_are_kept_however_many_records_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Future:
        is_done = False

        def succeeded(self) -> bool:
            return self.is_done

    kept: list[int] = []
    futures = [Future() for _ in range(50)]
    failures: list[object] = []
    counted = outcomes.Outcomes(lambda number, error: failures.append(number))

    def acknowledge(seconds: float) -> None:
        kept.append(counted.waiting)
        for future in futures[: counted.accepted - 5]:
            future.is_done = True
        counted._settle()

    monkeypatch.setattr(outcomes, "_MOST_WAITING", 10)
    monkeypatch.setattr(outcomes, "_LOOK_S", 1000)
    monkeypatch.setattr("fastprod.cli.outcomes.time.sleep", acknowledge)
    with counted:
        for number, future in enumerate(futures):
            counted.add(number, future)  # type: ignore[arg-type]
    assert set(kept) == {11}
    assert counted.acknowledged + counted.waiting == 50
    assert failures == []


# The progress bar


@pytest.mark.parametrize("program", [None, without("rich")], ids=["rich", "plain"])
def test_a_bar_on_a_terminal(
    kafka_broker: KafkaBroker, make_topic: MakeTopic, tmp_path: Path, program: tuple[str, ...] | None
) -> None:
    topic = make_topic()
    path = tmp_path / "fifo"
    os.mkfifo(path)
    # A pipe that is written slowly keeps the command up until the bar has been drawn.
    writer = subprocess.Popen(
        [sys.executable, "-c", "import sys, time\nwith open(sys.argv[1], 'w') as f:\n for i in range(8):\n"
         "  print(i, file=f, flush=True)\n  time.sleep(0.1)", str(path)]
    )  # fmt: skip
    options = {} if program is None else {"program": program}
    done = run_on_terminal("produce", "-b", kafka_broker.bootstrap_servers, "-t", topic, str(path), **options)
    assert writer.wait(PATIENCE_S) == 0
    assert done.status == 0
    assert "records acknowledged" in done.said
    assert done.said.count("\r") > 3
    # It is gone when the last line comes.
    assert "fastprod produce: 8 of 8 records acknowledged; " in done.said.splitlines()[-1]


def test_no_bar_where_it_is_not_wanted(kafka_broker: KafkaBroker, make_topic: MakeTopic, tmp_path: Path) -> None:
    path = tmp_path / "input.txt"
    path.write_text("a\n")
    arguments = ("produce", "-b", kafka_broker.bootstrap_servers, "-t", make_topic(), str(path))
    done = run_on_terminal(*arguments, "--no-progress")
    assert done.status == 0
    assert done.said.startswith("fastprod produce: 1 of 1 records acknowledged; ")
