"""`KafkaBroker` against what it promises, with an Apache Kafka really started.

Records are produced and read by other people's clients: the broker is judged here, not our producer.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kafka
import pytest
from judges import PATIENCE_S, produce, read

from fastprod.testing import BrokerError, KafkaBroker

# What is tested does not depend on the twin.
pytestmark = pytest.mark.native_only


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaBroker]:
    with KafkaBroker() as started:
        yield started


def answers_within(broker: KafkaBroker, seconds: float) -> bool:
    """Say whether the broker answers ApiVersions (key 18, version 0, correlation id 7, null client id)."""
    host, port = broker.bootstrap_servers.split(":")
    with socket.create_connection((host, int(port)), seconds) as connection:
        connection.sendall(bytes.fromhex("0000000a 0012 0000 00000007 ffff"))
        try:
            return connection.recv(8)[4:] == bytes.fromhex("00000007")
        except TimeoutError:
            return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        # An orphan may stay as a zombie where the machine's first process does not collect them.
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} still runs")


def wait_until_removed(directory: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while directory.exists():
        assert time.monotonic() < deadline, f"{directory} is still there"
        time.sleep(0.05)


def test_records_produced_to_a_created_topic_are_read_back(broker: KafkaBroker) -> None:
    broker.create_topic("round-trip", partitions=3)
    values = [b"value-%d" % number for number in range(1000)]
    produce(broker, "round-trip", values)
    assert read(broker, "round-trip", 1000) == values
    assert [broker.end_offset("round-trip", partition) for partition in range(3)] == [1000, 0, 0]


def test_topics_are_created_on_first_use(broker: KafkaBroker) -> None:
    produce(broker, "made-by-producing", [b"first"])
    assert read(broker, "made-by-producing", 1) == [b"first"]


def test_segments_hold_the_bytes_in_offset_order(broker: KafkaBroker) -> None:
    broker.create_topic("segments", config={"segment.bytes": 1 << 20})
    for number in range(3):
        produce(broker, "segments", [b"%d" % number * 600_000])
    paths = broker.log_segments("segments", 0)
    assert [path.suffix for path in paths] == [".log"] * 3
    assert [int(path.stem) for path in paths] == [0, 1, 2]
    content = broker.read_log("segments", 0)
    positions = [content.index(b"%d" % number * 600_000) for number in range(3)]
    assert positions == sorted(positions)
    assert broker.log_segments("segments", 7) == []


def test_the_tools_of_kafka_run(broker: KafkaBroker) -> None:
    broker.create_topic("dumped")
    produce(broker, "dumped", [b"told by Java"])
    (segment,) = broker.log_segments("dumped")
    arguments = ["--print-data-log", "--files", str(segment)]
    command = broker.tool_command("org.apache.kafka.tools.DumpLogSegments", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "payload: told by Java" in done.stdout
    assert "isvalid: true" in done.stdout


def test_a_refused_topic_says_why(broker: KafkaBroker) -> None:
    broker.create_topic("twice")
    with pytest.raises(BrokerError, match=r"'twice' was not created: .*already exists.*36"):
        broker.create_topic("twice")
    with pytest.raises(BrokerError, match=r"no\.such\.setting"):
        broker.create_topic("other", config={"no.such.setting": 1})


def test_a_deleted_topic_is_gone_and_can_be_made_anew(broker: KafkaBroker) -> None:
    broker.create_topic("deleted")
    produce(broker, "deleted", [b"old"])
    broker.delete_topic("deleted")
    with pytest.raises(BrokerError, match="not deleted: error code 3"):
        broker.delete_topic("deleted")
    broker.create_topic("deleted", config={"cleanup.policy": "compact"})
    assert broker.end_offset("deleted") == 0


def test_topic_settings_reach_the_broker(broker: KafkaBroker) -> None:
    broker.create_topic("small", config={"max.message.bytes": 1000})
    with pytest.raises(AssertionError, match="MSG_SIZE_TOO_LARGE"):
        produce(broker, "small", [b"x" * 2000])


def test_old_records_are_kept() -> None:
    """A broker would delete what is older than a week, half a minute after its start; here it looks at once."""
    hurry = {"log.initial.task.delay.ms": 0, "log.retention.check.interval.ms": 100, "log.segment.delete.delay.ms": 0}
    with KafkaBroker(properties=hurry) as broker:
        for name, config in (("kept", None), ("deleted", {"retention.ms": 604_800_000})):
            broker.create_topic(name, config=config)
            with kafka.KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
                producer.send(name, b"old", timestamp_ms=1_700_000_000_000).get(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while begin(broker, "deleted") == 0:
            assert time.monotonic() < deadline, "the broker deletes nothing"
            time.sleep(0.05)
        assert begin(broker, "kept") == 0


def begin(broker: KafkaBroker, topic: str) -> int:
    """The first offset that the topic's only partition still has."""
    partition = kafka.TopicPartition(topic, 0)
    with kafka.KafkaConsumer(bootstrap_servers=broker.bootstrap_servers) as consumer:
        return consumer.beginning_offsets([partition])[partition]


def test_a_killed_broker_refuses_connections_and_comes_back_with_its_data(broker: KafkaBroker) -> None:
    broker.create_topic("survives")
    produce(broker, "survives", [b"before"])
    address = broker.bootstrap_servers
    pid = broker.pid()
    broker.kill()
    assert not broker.is_running()
    with pytest.raises(ConnectionRefusedError):
        answers_within(broker, PATIENCE_S)
    with pytest.raises(BrokerError, match="no node is running"):
        broker.create_topic("meanwhile")
    broker.start()
    assert broker.bootstrap_servers == address
    assert broker.pid() != pid
    produce(broker, "survives", [b"after"])
    assert read(broker, "survives", 2) == [b"before", b"after"]


def test_a_stopped_broker_comes_back_with_its_data(broker: KafkaBroker) -> None:
    broker.create_topic("stopped")
    produce(broker, "stopped", [b"before"])
    broker.pause()
    broker.stop()
    assert not broker.is_running()
    broker.start()
    with pytest.raises(BrokerError, match="running already"):
        broker.start()
    assert read(broker, "stopped", 1) == [b"before"]


def test_a_paused_broker_is_silent_until_it_is_resumed(broker: KafkaBroker) -> None:
    assert answers_within(broker, PATIENCE_S)
    broker.pause()
    try:
        assert not answers_within(broker, 1)
        assert broker.is_running()
    finally:
        broker.resume()
    assert answers_within(broker, PATIENCE_S)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at the threads in /proc")
def test_a_paused_broker_stands_still(broker: KafkaBroker) -> None:
    def states() -> set[str]:
        stats = Path(f"/proc/{broker.pid()}/task").glob("*/stat")
        return {stat.read_text().rpartition(")")[2].split()[0] for stat in stats}

    for _ in range(30):
        broker.pause()
        try:
            assert states() == {"T"}
            broker.pause()  # which changes nothing
            assert states() == {"T"}
        finally:
            broker.resume()
        assert answers_within(broker, PATIENCE_S)


def test_two_brokers_are_two_clusters(broker: KafkaBroker) -> None:
    broker.create_topic("only-here")
    with KafkaBroker(in_memory=True, heap="256m") as other:
        assert other.bootstrap_servers != broker.bootstrap_servers
        assert other.directory.is_relative_to("/dev/shm") == Path("/dev/shm").is_dir()
        with pytest.raises(BrokerError, match="no leader"):
            other.end_offset("only-here")
        directory, pid = other.directory, other.pid()
    assert not directory.exists()
    wait_until_gone(pid)
    with pytest.raises(BrokerError, match="`with`"):
        _ = other.bootstrap_servers
    other.close()


def test_the_port_asked_for_is_used_and_a_taken_one_is_named(broker: KafkaBroker) -> None:
    port = int(broker.bootstrap_servers.split(":")[1])
    with pytest.raises(BrokerError, match=rf"port {port} on 127\.0\.0\.1 is taken"), KafkaBroker(port=port):
        pytest.fail("started on a port that is taken")


def test_a_broker_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    refused = KafkaBroker(properties={"num.io.threads": "many"}, log_dir=tmp_path)
    with pytest.raises(BrokerError, match=r"did not start(?s:.)*Invalid value many for configuration num\.io\.threads"):
        refused.__enter__()
    assert list(tmp_path.iterdir()) == []


def test_properties_reach_the_broker_as_they_are(tmp_path: Path) -> None:
    directory = tmp_path / "a directory with \u00fc and \u4e16"
    directory.mkdir()
    with KafkaBroker(properties={"auto.create.topics.enable": False}, log_dir=directory) as broker:
        assert broker.directory.parent == directory
        broker.create_topic("made", partitions=2)
        with pytest.raises(BrokerError, match="no leader"):
            broker.end_offset("not-made")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": 0}, "nodes=0: supported are 1 to 9"),
        ({"version": "3.8.1"}, r"version='3\.8\.1': supported are releases 2\.8\.x .*, 3\.9\.x, and 4\.0\.0 and later"),
        ({"version": "latest"}, "version='latest'"),
        ({"listeners": ("SSL",)}, r"listeners=\('SSL',\): supported is \('PLAINTEXT',\)"),
        ({"listeners": "PLAINTEXT"}, "listeners='PLAINTEXT'"),
        ({"port": 70000}, "port=70000"),
        ({"port": 65534, "nodes": 3}, "port=65534: supported are 1 to 65533"),
    ],
)
def test_what_is_not_supported_is_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KafkaBroker(**arguments)


@pytest.fixture
def elsewhere() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Run programs that start a broker and `report` its process id and directory; killed at the end."""
    processes: list[subprocess.Popen[str]] = []

    def run(code: str) -> subprocess.Popen[str]:
        program = f"""
            import os, sys, threading, time
            from fastprod.testing import KafkaBroker
            def report(broker):
                print(broker.pid(), broker.directory, flush=True)
            {textwrap.indent(textwrap.dedent(code), " " * 12).strip()}
        """
        command = [sys.executable, "-c", textwrap.dedent(program)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def reported(process: subprocess.Popen[str]) -> tuple[int, Path]:
    assert process.stdout is not None
    pid, directory = process.stdout.readline().split(maxsplit=1)
    return int(pid), Path(directory.strip())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_broker_and_its_data_go_with_the_process_that_started_it(
    elsewhere: Callable[[str], subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = elsewhere(
        """
        with KafkaBroker() as broker:
            report(broker)
            time.sleep(3600)
        """
    )
    pid, directory = reported(process)
    os.kill(pid, 0)
    process.send_signal(number)
    process.wait(PATIENCE_S)
    wait_until_gone(pid)
    wait_until_removed(directory)


def test_the_broker_goes_although_a_forked_child_lives_on(
    elsewhere: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = elsewhere(
        """
        broker = KafkaBroker().__enter__()
        report(broker)
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            time.sleep(3600)
        time.sleep(3600)
        """
    )
    pid, directory = reported(process)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait(PATIENCE_S)
        wait_until_gone(pid)
        wait_until_removed(directory)
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_broker_outlives_the_thread_that_started_it_and_a_child_that_exits(
    elsewhere: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = elsewhere(
        """
        brokers = []
        starter = threading.Thread(target=lambda: brokers.append(KafkaBroker().__enter__()))
        starter.start()
        starter.join()
        if os.fork() == 0:
            sys.exit()
        os.wait()
        time.sleep(1)
        brokers[0].create_topic("alive")
        report(brokers[0])
        """
    )
    pid, directory = reported(process)
    # It ends without closing the broker: the exit handler does.
    assert process.wait(PATIENCE_S) == 0
    wait_until_gone(pid)
    wait_until_removed(directory)
