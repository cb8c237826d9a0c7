"""`diagnose()`: what stands between this machine and a cluster is named, and what to change."""

from __future__ import annotations

import dataclasses
import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import in_time

from fastprod import Diagnosis, KafkaProducer, cli, config
from fastprod.control.diagnosis import diagnose
from fastprod.diagnosis import Check
from fastprod.testing import KafkaBroker, ScriptedBroker
from fastprod.testing.scripted.releases import Api

from .conftest import Make

UNRESOLVED = "no-such-host.invalid"
Serve = Callable[[Callable[[socket.socket], None]], str]


def examine(servers: str, timeout_ms: float = 4_000, *topics: str, **options: Any) -> Diagnosis:
    return diagnose(config.load({"bootstrap_servers": servers, **options}), timeout_ms, topics)


def only_problem(diagnosis: Diagnosis) -> Check:
    """The one thing that is wrong, which the text tells too."""
    (problem,) = diagnosis.problems
    assert not diagnosis.ok
    assert problem.remedy
    for part in ("FAIL", problem.seen, problem.remedy, "1 problem found"):
        assert part in str(diagnosis)
    return problem


def advertise(broker: ScriptedBroker, host: str, port: int | None = None) -> None:
    """Have node 2's advertised address told as another one."""

    def edit(said: Any) -> Any:
        changed = [
            dataclasses.replace(each, host=host, port=each.port if port is None else type(each.port)(port))
            if each.node_id == 2
            else each
            for each in said.brokers
        ]
        return dataclasses.replace(said, brokers=tuple(changed))

    broker.on(Api.METADATA).answer(edit=edit)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that do something with every connection; returns their addresses."""
    listeners: list[socket.socket] = []

    def begin(handle: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        handle(connection)
                    except OSError:
                        continue

        threading.Thread(target=run, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield begin
    for each in listeners:
        each.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_all_is_well(broker: ScriptedBroker) -> None:
    diagnosis = examine(broker.bootstrap_servers, 10_000, "t")
    assert diagnosis.ok
    assert diagnosis.problems == ()
    assert [each.role for each in diagnosis.addresses] == ["bootstrap"] * 2 + ["advertised"] * 2
    assert [each.node_id for each in diagnosis.addresses] == [None, None, 1, 2]
    for each in diagnosis.addresses:
        assert [check.step for check in each.checks] == ["resolve", "connect", "protocol", "versions", "metadata"]
        assert each.release == (4, 3)
    assert [check.step for check in diagnosis.cluster] == ["leaders", "identity"]
    assert "all 4 partitions of 2 topics have a leader" in str(diagnosis)
    assert str(diagnosis).splitlines()[-1].startswith("All is well (")


def test_it_writes_nothing_and_creates_no_topic(broker: ScriptedBroker) -> None:
    diagnosis = examine(broker.bootstrap_servers, 4_000, "not-there")
    problem = only_problem(diagnosis)
    assert problem.step == "leaders"
    assert "'not-there'" in problem.seen
    assert "not-there" not in broker.topics
    assert broker.count(Api.PRODUCE) == 0


def test_a_name_that_nobody_knows() -> None:
    problem = only_problem(examine(f"{UNRESOLVED}:9092"))
    assert problem.step == "resolve"
    assert UNRESOLVED in problem.seen


def test_nobody_listens_at_one_of_the_bootstrap_servers(broker: ScriptedBroker) -> None:
    dead = f"127.0.0.1:{free_port()}"
    diagnosis = examine(f"{dead},{broker.bootstrap_servers}")
    problem = only_problem(diagnosis)
    assert problem.step == "connect"
    assert f"{dead}: Connection refused" in problem.seen
    assert [each.ok for each in diagnosis.addresses] == [False, True, True, True, True]


def test_an_advertised_name_that_this_machine_cannot_resolve(broker: ScriptedBroker) -> None:
    advertise(broker, UNRESOLVED)
    diagnosis = examine(broker.address(1))
    problem = only_problem(diagnosis)
    assert problem.step == "resolve"
    assert UNRESOLVED in problem.seen
    assert problem.remedy.startswith(f"Broker 2 tells clients to connect to {UNRESOLVED}:")
    assert "advertised.listeners" in problem.remedy
    assert [each.ok for each in diagnosis.addresses] == [True, True, False]


def test_an_advertised_port_that_nobody_listens_at(broker: ScriptedBroker) -> None:
    advertise(broker, "127.0.0.1", free_port())
    problem = only_problem(examine(broker.address(1)))
    assert problem.step == "connect"
    assert "advertised.listeners" in problem.remedy


def test_an_advertised_address_that_is_another_cluster(broker: ScriptedBroker) -> None:
    with ScriptedBroker({"t": 1}) as other:
        other.on(Api.METADATA).answer(edit=lambda said: dataclasses.replace(said, cluster_id="elsewhere"))
        host, _, port = other.bootstrap_servers.rpartition(":")
        advertise(broker, host, int(port))
        problem = only_problem(examine(broker.address(1)))
    assert problem.step == "cluster"
    assert "elsewhere" in problem.seen


def test_a_server_that_says_nothing_costs_its_share_of_the_time(broker: ScriptedBroker, serve: Serve) -> None:
    silent = serve(lambda connection: (connection.recv(65536), connection.recv(1)))
    with in_time("diagnose within 4,000 ms", 4, slack_s=1):
        diagnosis = examine(f"{silent},{broker.bootstrap_servers}", 4_000)
    problem = only_problem(diagnosis)
    assert problem.step == "protocol"
    assert "does not answer ApiVersions" in problem.seen
    assert [each.ok for each in diagnosis.addresses] == [False, True, True, True, True]


def test_an_http_server(serve: Serve) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    problem = only_problem(examine(serve(answer)))
    assert problem.step == "protocol"
    assert "HTTP server" in problem.seen


def test_a_server_that_hangs_up(serve: Serve) -> None:
    problem = only_problem(examine(serve(lambda connection: None)))
    assert problem.step == "protocol"
    assert "closed the connection instead of answering ApiVersions" in problem.seen


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_tls_listener(serve: Serve, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def shake(connection: socket.socket) -> None:
        connection.settimeout(1)
        context.wrap_socket(connection, server_side=True).close()

    problem = only_problem(examine(serve(shake)))
    assert problem.step == "protocol"
    assert problem.seen == "it is a TLS server"
    assert "PLAINTEXT" in problem.remedy


def test_a_listener_that_wants_a_login(broker: ScriptedBroker) -> None:
    broker.on(Api.METADATA).drop()
    problem = diagnosed = examine(broker.address(1)).problems[0]
    assert problem.step == "metadata"
    assert "SASL" in diagnosed.remedy


def test_a_partition_without_leader(broker: ScriptedBroker) -> None:
    broker.down(2, noticed=True)
    broker.move_leader("other", 0, 1)
    for partition in range(3):
        broker.move_leader("t", partition, 2 if partition == 1 else 1)
    problem = only_problem(examine(broker.address(1)))
    assert problem.step == "leaders"
    assert "'t': no leader for 1 of 3 partitions (1)" in problem.seen


def test_idempotence_that_is_not_allowed(broker: ScriptedBroker) -> None:
    broker.on(Api.INIT_PRODUCER_ID).refuse(31)
    problem = only_problem(examine(broker.bootstrap_servers))
    assert problem.step == "identity"
    assert "ClusterAuthorizationFailedError" in problem.seen
    assert "IdempotentWrite" in problem.remedy
    assert examine(broker.bootstrap_servers, enable_idempotence=False).ok


def test_a_broker_that_fetches_its_first_ids_is_well(broker: ScriptedBroker) -> None:
    broker.on(Api.INIT_PRODUCER_ID, times=2).refuse(14)
    assert examine(broker.bootstrap_servers).ok
    assert broker.count(Api.INIT_PRODUCER_ID) == 3


def test_one_that_gives_no_ids_at_all_is_still_starting(broker: ScriptedBroker) -> None:
    broker.on(Api.INIT_PRODUCER_ID).refuse(14)
    problem = only_problem(examine(broker.bootstrap_servers))
    assert "CoordinatorLoadInProgressError" in problem.seen
    assert "still starting" in problem.remedy


def test_idempotence_that_is_not_offered(broker: ScriptedBroker) -> None:
    del broker.offered[Api.INIT_PRODUCER_ID]
    assert "enable_idempotence=False" in only_problem(examine(broker.bootstrap_servers)).remedy


def test_a_producer_tells_while_its_cluster_is_down_and_after_close(broker: ScriptedBroker, make: Make) -> None:
    producer = make()
    producer.send("t", b"value").get(10)
    assert producer.diagnose().ok
    for node in (1, 2):
        broker.down(node)
    diagnosis = producer.diagnose(2_000)
    assert [each.step for each in diagnosis.problems] == ["connect", "connect"]
    for node in (1, 2):
        broker.up(node)
    producer.close(0)
    assert producer.diagnose().ok


def test_the_topics_a_producer_uses_must_be_there(broker: ScriptedBroker, make: Make) -> None:
    producer = make(metadata_max_age_ms=300_000)
    producer.send("t", b"value").get(10)
    broker.auto_create = 0
    broker.delete_topic("t")
    assert "'t'" in only_problem(producer.diagnose()).seen


@pytest.mark.parametrize("timeout_ms", [0, -1, float("nan")])
def test_a_timeout_that_is_none(broker: ScriptedBroker, timeout_ms: float) -> None:
    with pytest.raises(ValueError, match="timeout_ms must be above 0"):
        examine(broker.bootstrap_servers, timeout_ms)


def test_the_command(broker: ScriptedBroker, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diagnose", "-b", broker.bootstrap_servers, "-t", "t"]) == 0
    assert "All is well" in capsys.readouterr().out
    assert cli.main(["diagnose", "-b", broker.bootstrap_servers, "-t", "not-there"]) == 1
    assert "'not-there'" in capsys.readouterr().out
    assert cli.main(["diagnose", "-b", f"{UNRESOLVED}:1", "--timeout", "2"]) == 1
    assert "1 problem found" in capsys.readouterr().out
    assert cli.main(["diagnose"]) == 2
    assert cli.main(["diagnose", "-b", "x:1", "--timeout", "0"]) == 2
    assert cli.main(["diagnose", "-b", "x:1", "-X", "acks=7"]) == 2


def test_a_real_broker(kafka_broker: KafkaBroker) -> None:
    kafka_broker.create_topic("diagnosed", partitions=2)
    with KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers) as producer:
        producer.send("diagnosed", b"value").get(30)
        diagnosis = producer.diagnose()
    assert diagnosis.ok, str(diagnosis)
    assert diagnosis.cluster_id
    release = tuple(map(int, kafka_broker.version.split(".")[:2]))
    assert all(each.release == release for each in diagnosis.addresses)
    host = diagnosis.addresses[1].address.rpartition(":")[0]
    assert host == "localhost" or ipaddress.ip_address(host).is_loopback
