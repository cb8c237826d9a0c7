"""What the README says must be so."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastprod
from fastprod import config, errors, partitioners
from fastprod.cli import main
from fastprod.testing import FaultProxy, KafkaBroker

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def between(name: str) -> str:
    """Return what stands between the markers of that name."""
    found = re.findall(rf"<!-- {name}:begin -->\n(.*?)<!-- {name}:end -->", README, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_the_table_of_options_is_that_of_the_code() -> None:
    """Mend it with: python -c "from fastprod import config; print(config.markdown_table())"."""
    assert between("options").strip() == config.markdown_table().strip()


def test_the_extras_are_those_of_the_package() -> None:
    extras = set(PROJECT["optional-dependencies"])
    table = README.partition("| Extra |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
    assert {name for row in named for name in re.findall(r"`(\w+)`", row)} == extras
    assert set(re.findall(r"'\.\[(\w+)\]'", README)) <= extras


def test_the_python_version_is_that_of_the_package() -> None:
    assert f"Python {PROJECT['requires-python'].removeprefix('>=')} or later" in README


def test_the_changelog_names_this_version() -> None:
    assert f"## [{fastprod.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(re.findall(r'partitioner="(\w+)"', README))))
def test_partitioners_it_names_exist(name: str) -> None:
    assert name in partitioners.MODES


def test_errors_it_names_exist() -> None:
    for name in set(re.findall(r"`(?:kafka\.errors\.)?(\w+(?:Error|Available))`", README)):
        assert issubclass(getattr(errors, name), errors.KafkaError)
    assert errors.NoBrokersAvailable is errors.KafkaTimeoutError


def parameters(function: Callable[..., object]) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_options_it_names_exist() -> None:
    """Whatever is written as name=value outside the table of options, in a program or behind -X. (The names of
    ScriptedBroker have a test with its own.)"""
    text = README.replace(between("options"), "").replace(between("scripted"), "")
    # Of topics, calls and results.
    of_topics = {"factor", "replicas", "type", "partitions"}
    others = of_topics | {"timeout", "partition", "key", "value", "name", "topic", "offset"}
    others |= {*parameters(KafkaBroker), *parameters(FaultProxy.cut_at), *parameters(KafkaBroker.wait_for_leader)}
    others |= {*parameters(fastprod.KafkaProducer.send_arrow), *parameters(fastprod.KafkaProducer.send_many)}
    named = set(re.findall(r"(?<![\w.])([a-z_]+)=(?=[\w\"'(])", text)) - others
    assert {"acks", "linger_ms", "batch_size", "enable_idempotence", "strict_order"} <= named
    assert named <= set(config.default_config())


def test_commands_it_names_exist(capsys: pytest.CaptureFixture[str]) -> None:
    rows = re.findall(r"^\| `fastprod (\w+)[^|]*\|([^|]*)\|", README, re.MULTILINE)
    assert [command for command, _ in rows] == ["demo", "broker", "produce", "perf", "diagnose"]
    for command, text in rows:
        assert main([command, "--help"]) == 0
        helped = capsys.readouterr().out
        assert all(option in helped for option in re.findall(r"--\w+", text))


def test_the_methods_of_a_proxy_it_names_exist() -> None:
    table = README.partition("| Method of a proxy |")[2].partition("\n\n")[0]
    first_cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {name for cell in first_cells for name in re.findall(r"`(\w+)[`(]", cell)}
    assert {"cut", "hold", "tap", "heal"} <= named
    with FaultProxy(("127.0.0.1", 1)) as proxy:
        assert [name for name in named if not hasattr(proxy, name)] == []


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).is_file()


def test_it_is_ascii() -> None:
    assert README.isascii()
