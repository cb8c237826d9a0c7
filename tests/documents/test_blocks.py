"""Every code block of the README and of docs/ is run, or stands on a short list that says why not."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from fastprod import config
from fastprod.control.diagnosis import diagnose
from fastprod.testing import Api, KafkaBroker, ScriptedBroker

from .pages import PAGES, ROOT, Block, as_pattern, blocks_of
from .reader import ADDRESS, commands_of, run_command, run_program, sessions_of, topics_in

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
LANGUAGES = {"python", "sh", "console", "json", "text"}
# What the Python twin runs as well; of the others it would do the same once more.
FIRST_PAGES = {"README.md", "docs/index.md"}
# They start brokers of their own, which is what takes the time.
BROKERS = "KafkaBroker("

# Commands that are not run, and why.
LEFT_OUT = {
    r"pip install [^&|;]*": "tests/unit/test_package.py installs; the extras are held against pyproject.toml below",
    r"fastprod broker [^&|;]*": "it runs until Ctrl-C: test_walkthrough.py and test_broker_command.py start it",
    r"python3 -m venv .*&& .*fastprod demo": "tests/cli/test_demo.py runs it; CI begins with such an installation",
    r"python3 -m venv .*\.ci/tests\.py": "it is what CI runs, this test included",
}
# A program that runs for long, and who runs it.
ENDLESS = {"# shop.py": "test_walkthrough.py"}
# What would take too long, or is not on every machine.
SMALLER = {
    "tail -F ": "cat ",
    "--num-records 5000000": "--num-records 20000",
}
# Text that nothing prints, and who proves it.
TOLD = {
    "enable_idempotence=False, five in flight": "tests/faults/test_order.py plays all three",
    "$ fastprod diagnose -b kafka.example.com:9092": "test_what_diagnose_says below",
    "order ... failed: KafkaTimeoutError: ": "test_walkthrough.py",
}
# Pages whose text blocks are made from the code, and who proves it.
MADE = {"docs/api.md": "tests/unit/test_public_surface.py holds it against the docstrings"}
# What a program of the README prints, where the README does not say.
PRINTED = {
    "send_many(": "array('i', [0, 0]) array('q', [0, 1])\n",
    "send_arrow(": "array('q', [0, 1, 2])\n",
    "with KafkaBroker() as broker:": "[...orders-0....log...]\n",
    "ScriptedBroker({\"orders\": 3}": "1 2\n",
}


def printed_by(block: Block) -> str | None:
    """What the page says that a block prints, None where it says nothing."""
    at = BLOCKS.index(block) + 1
    if at < len(BLOCKS) and BLOCKS[at].page == block.page and BLOCKS[at].language == "text" and BLOCKS[at].follows:
        return BLOCKS[at].text
    if block.page == "README.md":
        return next((printed for piece, printed in PRINTED.items() if piece in block.text), None)
    return None


def is_output(block: Block) -> bool:
    at = BLOCKS.index(block)
    return at > 0 and BLOCKS[at - 1].language == "python" and printed_by(BLOCKS[at - 1]) == block.text


def of(*languages: str) -> list[Any]:
    """The blocks in these languages, each marked for the twins that run it."""
    return [
        pytest.param(
            block,
            id=block.place,
            marks=[] if block.page in FIRST_PAGES and BROKERS not in block.text else [pytest.mark.native_only],
        )
        for block in BLOCKS
        if block.language in languages and not block.text.startswith(tuple(ENDLESS))
    ]


@pytest.fixture
def servers(kafka_broker: KafkaBroker, request: pytest.FixtureRequest) -> str:
    """The reader's Kafka, which has none of the topics that the block names."""
    admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap_servers})
    named = topics_in([request.node.callspec.params["block"].text])
    for topic in named & set(admin.list_topics(timeout=30).topics):
        kafka_broker.delete_topic(topic)
    return kafka_broker.bootstrap_servers


@pytest.mark.parametrize("block", of("python"))
def test_a_program_runs(block: Block, servers: str, tmp_path: Path) -> None:
    said = run_program(block.text, tmp_path, servers)
    printed = printed_by(block)
    if printed is not None:
        assert as_pattern(printed).fullmatch(said), said


@pytest.mark.parametrize("block", of("sh"))
def test_commands_run(block: Block, servers: str, tmp_path: Path) -> None:
    write_files(tmp_path, servers)
    for command in commands_of(block.text):
        if not any(re.fullmatch(left_out, command) for left_out in LEFT_OUT):
            assert "fastprod " in command, f"not a command of ours, and on no list: {command}"
            for given, smaller in SMALLER.items():
                command = command.replace(given, smaller)
            run_command(command, tmp_path, servers)


@pytest.mark.parametrize("block", of("console"))
def test_a_session_goes_as_shown(block: Block, servers: str, tmp_path: Path) -> None:
    write_files(tmp_path, servers)
    for command, printed in sessions_of(block.text):
        said = run_command(command, tmp_path, servers).replace(servers, ADDRESS)
        assert as_pattern(printed).fullmatch(said), said


def write_files(folder: Path, servers: str) -> None:
    """What the commands read."""
    (folder / "app.log").write_text("it starts\n")
    (folder / "producer.toml").write_text(f'bootstrap_servers = "{servers}"\nlinger_ms = 5\n')
    (folder / "orders.jsonl").write_text('{"key": "c1", "value": "one"}\n')


@pytest.mark.parametrize("block", of("json"))
def test_records_in_json_are_taken(block: Block, kafka_broker: KafkaBroker, servers: str, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in block.text.splitlines()]
    partitions = 1 + max(line.get("partition", 0) for line in lines)
    topic = f"json-{block.line}"
    kafka_broker.create_topic(topic, partitions)
    (tmp_path / "records.jsonl").write_text(block.text)
    run_command(f"fastprod produce -b {servers} -t {topic} --format json records.jsonl", tmp_path, servers)
    assert sum(kafka_broker.end_offset(topic, number) for number in range(partitions)) == len(lines)
    kafka_broker.delete_topic(topic)


@pytest.mark.native_only
class TestWhatIsNotRun:
    def test_every_language_is_one_that_is_run(self) -> None:
        assert len(BLOCKS) > 40
        assert [f"{block.place}: {block.language!r}" for block in BLOCKS if block.language not in LANGUAGES] == []

    def test_text_is_printed_by_what_is_before_it_or_proven_elsewhere(self) -> None:
        text = [block for block in BLOCKS if block.language == "text" and block.page not in MADE]
        told = tuple(TOLD)
        assert [block.place for block in text if not is_output(block) and not block.text.startswith(told)] == []

    def test_the_lists_hold_nothing_that_is_gone(self) -> None:
        commands = [command for block in BLOCKS if block.language == "sh" for command in commands_of(block.text)]
        for left_out in LEFT_OUT:
            assert any(re.fullmatch(left_out, command) for command in commands), left_out
        for piece in SMALLER:
            assert any(piece in command for command in commands), piece
        for start in [*TOLD, *ENDLESS]:
            assert any(block.text.startswith(start) for block in BLOCKS), start
        for piece in PRINTED:
            assert any(piece in block.text for block in BLOCKS if block.page == "README.md"), piece

    @pytest.mark.parametrize("first_words", ["# app.py", "# gunicorn.conf.py"])
    def test_what_a_server_runs_is_what_gunicorn_is_given_elsewhere(self, first_words: str) -> None:
        """tests/faults/test_fork.py gives gunicorn those of the README; other pages repeat them."""
        repeated = [block for block in BLOCKS if block.text.startswith(first_words)]
        assert repeated[0].page == "README.md"
        assert {block.text for block in repeated} == {repeated[0].text}

    def test_extras_it_names_are_those_of_the_package(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
        named = {name for names in re.findall(r"'(?:\.|fastprod)\[([\w,]+)\]'", text) for name in names.split(",")}
        assert named
        assert named <= set(project["optional-dependencies"])


@pytest.mark.native_only
def test_what_diagnose_says() -> None:
    """The README's example, whose hosts are not here."""
    (shown,) = [block.text for block in BLOCKS if block.text.startswith("$ fastprod diagnose -b kafka.example.com")]
    nowhere = "no-such-host.invalid"
    with ScriptedBroker({}, version="4.3") as broker:
        host, _, port = broker.bootstrap_servers.partition(":")

        def advertise(said: Any) -> Any:
            changed = [dataclasses.replace(each, host=nowhere, port=type(each.port)(9092)) for each in said.brokers]
            return dataclasses.replace(said, brokers=tuple(changed))

        broker.on(Api.METADATA).answer(edit=advertise)
        said = str(diagnose(config.load({"bootstrap_servers": f"{host}:{port}"}), 10_000, []))
    here = {
        "kafka.example.com:9092": f"{host}:{port}", "kafka.example.com": host,
        "192.0.2.7:9092": f"{host}:{port}", "192.0.2.7": host,
        "broker-1": nowhere,
        "Name or service not known": "...",
    }
    text = shown.partition("\n")[2]
    for there, instead in here.items():
        text = text.replace(there, instead)
    assert as_pattern(" ".join(text.split()) + "...").fullmatch(" ".join(said.split())), said
