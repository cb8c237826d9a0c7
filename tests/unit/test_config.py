"""fastprod.config: every option's default, what it accepts, and what options mean together.

What an option *does* is shown in tests/face/test_options.py.
"""

from __future__ import annotations

import ast
import logging
import math
import pickle
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import kafka  # type: ignore[import-untyped]
import pytest

from fastprod import config, errors, option_rules
from fastprod.config import OPTIONS, PlaneOptions, load
from fastprod.partitioners import RoundRobinPartitioner
from fastprod.serializers import JsonSerializer

NAMES = [option.name for option in OPTIONS]
THEIRS = kafka.KafkaProducer.DEFAULT_CONFIG

# Where our default is another one than kafka-python's, and why.
OTHER_DEFAULT = {
    "batch_size": "memory is used only as a batch fills (design, Defaults)",
    "partitioner": "the name of the built-in one",
    "kafka_client": "a class of kafka-python's",
}
OURS_ALONE = {"buffer_memory", "compression_level", "strict_order"}


class Int64:
    """A whole number of another type, as numpy has them."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return self.value == other

    def __hash__(self) -> int:
        return hash(self.value)


class Float64(float):
    """A float of another type, as numpy has them."""


def refused(match: str, **given: Any) -> str:
    """Check that these options are refused, naming what `match` says; return the text."""
    with pytest.raises(errors.KafkaConfigurationError, match=match) as caught:
        load(given)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


@pytest.fixture
def fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(option_rules, "_warned", set())


class TestTable:
    def test_names_are_kafka_python_s_and_ours(self) -> None:
        assert len(set(NAMES)) == len(NAMES)
        assert set(NAMES) == set(THEIRS) | OURS_ALONE

    @pytest.mark.parametrize("name", sorted(set(THEIRS) - set(OTHER_DEFAULT)))
    def test_defaults_are_kafka_python_s(self, name: str) -> None:
        assert config.default_config()[name] == THEIRS[name]

    def test_our_own_defaults(self) -> None:
        defaults = config.default_config()
        assert defaults["batch_size"] == 1_000_000
        assert defaults["buffer_memory"] == 33_554_432
        assert defaults["partitioner"] == "default"
        assert defaults["kafka_client"] is None
        assert defaults["strict_order"] is False
        assert defaults["compression_level"] is None

    @pytest.mark.parametrize("name", NAMES)
    def test_each_default_is_accepted_explicitly(self, name: str) -> None:
        value = config.default_config()[name]
        loaded = load({name: value})
        if name != "client_id":
            assert loaded[name] == value

    @pytest.mark.parametrize("name", sorted(THEIRS))
    def test_kafka_python_s_default_is_accepted_explicitly(self, name: str) -> None:
        load({name: THEIRS[name]})

    def test_defaults_are_fresh_each_time(self) -> None:
        config.default_config()["socket_options"].append("x")
        load({})["metric_reporters"].append("x")
        assert config.default_config()["socket_options"] == THEIRS["socket_options"]
        assert load({})["metric_reporters"] == []

    def test_markdown_table_has_a_row_an_option(self) -> None:
        table = config.markdown_table()
        rows = table.splitlines()[2:]
        assert [row.split("|")[1].strip() for row in rows] == [f"`{name}`" for name in NAMES]
        for row in rows:
            cells = row.replace("\\|", "").split("|")
            assert len(cells) == 6
            assert all(cell.strip() for cell in cells[1:5]), row
        table.encode("ascii")

    def test_plane_options_are_the_seam_s(self) -> None:
        """The fields, in order, as DESIGN.md lists them."""
        text = (Path(config.__file__).parent / "DESIGN.md").read_text()
        part = text.split("### PlaneOptions")[1].split("###")[0]
        start = part.index("`client_id")
        listed = "".join(part[start:].split("`")[1].split("\n"))
        order = [listed.index(field) for field in PlaneOptions._fields]
        assert order == sorted(order)
        assert PlaneOptions._fields[0] == "client_id"
        assert PlaneOptions._fields[-3:] == ("codec", "compress", "level")


class TestPlaneOptions:
    def test_defaults(self) -> None:
        plane = load({"client_id": "c"}).plane_options()
        assert plane == PlaneOptions(
            client_id="c",
            acks=-1,
            idempotent=True,
            strict_order=False,
            batch_size=1_000_000,
            buffer_memory=33_554_432,
            max_request_size=1_048_576,
            receive_message_max_bytes=100_000_000,
            linger_ms=0,
            max_block_ms=60_000,
            request_timeout_ms=30_000,
            delivery_timeout_ms=120_000,
            retries=2**31 - 1,
            max_in_flight=5,
            connections_max_idle_ms=540_000,
            codec=0,
            compress=None,
        )

    def test_given(self) -> None:
        plane = load(
            {
                "acks": 1, "enable_idempotence": False, "batch_size": 1e5, "buffer_memory": 2**33,
                "linger_ms": 2.5, "retries": 3, "max_in_flight_requests_per_connection": 9,
                "compression_type": "gzip", "compression_level": 1,
            }
        ).plane_options()  # fmt: skip
        assert (plane.acks, plane.idempotent, plane.batch_size) == (1, False, 100_000)
        assert type(plane.batch_size) is int
        assert (plane.buffer_memory, plane.linger_ms, plane.retries) == (2**33, 2.5, 3)
        assert (plane.max_in_flight, plane.codec) == (9, 1)
        assert plane.compress is not None
        assert plane.compress(b"a" * 100)[:2] == b"\x1f\x8b"

    def test_batches_stay_within_max_request_size(self) -> None:
        limited = load({"max_request_size": 500_000})
        assert limited.plane_options().batch_size == 500_000
        both = {"max_request_size": 500_000, "batch_size": 2_000_000}
        assert load(both).plane_options().batch_size == 500_000
        packed = load({**both, "compression_type": "gzip"}).plane_options()
        assert packed.batch_size == 2_000_000
        default = load({"max_request_size": 500_000, "compression_type": "gzip"}).plane_options()
        assert default.batch_size == 500_000


class TestValues:
    @pytest.mark.parametrize(("given", "normal"), [("all", -1), (-1, -1), (0, 0), (1, 1), (1.0, 1)])
    def test_acks(self, given: Any, normal: int) -> None:
        assert load({"acks": given})["acks"] == normal

    @pytest.mark.parametrize("bad", ["1", "ALL", 2, -2, None, True, False, 0.5, b"all"])
    def test_bad_acks(self, bad: Any) -> None:
        refused(r"acks=.* must be 0, 1, -1 or 'all'", acks=bad)

    def test_a_number_as_text_gets_a_hint(self) -> None:
        assert "Give the int 1." in refused("acks='1'", acks="1")
        assert "turn it into a number" in refused("linger_ms='5'", linger_ms="5")

    @pytest.mark.parametrize("name", [each.name for each in OPTIONS if each.name.endswith("_ms")])
    def test_milliseconds(self, name: str) -> None:
        for good in (200_000, 200_000.5, Int64(200_000), Float64(200_000), 2**31 - 1):
            assert load({name: good})[name] == good
        if name != "request_timeout_ms":
            assert load({name: math.inf})[name] == 2**31 - 1
        for bad in (-1, 2**31, math.nan, -math.inf, "100", None, True, [1], 10**30):
            refused(f"{name}=", **{name: bad})

    @pytest.mark.parametrize(
        ("name", "low"),
        [
            ("batch_size", 0), ("buffer_memory", 1), ("max_request_size", 1),
            ("receive_message_max_bytes", 1), ("receive_buffer_bytes", 1), ("send_buffer_bytes", 1),
            ("metrics_num_samples", 1), ("max_in_flight_requests_per_connection", 1),
        ],
    )  # fmt: skip
    def test_whole_numbers(self, name: str, low: int) -> None:
        for good in (low, 5, 5.0, Int64(5)):
            loaded = load({name: good})[name]
            assert loaded == good
            assert type(loaded) is int
        bad: Any
        for bad in (low - 1, 1.5, "5", True, math.inf, math.nan, 2**63, [5]):
            refused(f"{name}=", **{name: bad})

    def test_buffer_sizes_may_be_none_and_others_not(self) -> None:
        assert load({"send_buffer_bytes": None})["send_buffer_bytes"] is None
        refused("batch_size=None", batch_size=None)

    @pytest.mark.parametrize("good", [0, 1, 2**31 - 1, math.inf, 3.0])
    def test_retries(self, good: Any) -> None:
        loaded = load({"retries": good})
        assert loaded["retries"] == good
        assert loaded.plane_options().retries == min(good, 2**31 - 1)

    @pytest.mark.parametrize("bad", [-1, 2**31, "3", None, 0.5, -math.inf, math.nan, True])
    def test_bad_retries(self, bad: Any) -> None:
        refused("retries=", retries=bad)

    @pytest.mark.parametrize(
        "name",
        ["enable_idempotence", "allow_auto_create_topics", "metrics_enabled", "strict_order"],
    )
    def test_flags(self, name: str) -> None:
        assert load({name: 1})[name] is True
        if name != "enable_idempotence":
            assert load({name: False})[name] is False
        bad: Any
        for bad in ("true", "false", None, 2, []):
            refused(f"{name}=", **{name: bad})

    def test_servers_that_are_there_once(self) -> None:
        loaded = load({"bootstrap_servers": (f"{host}:1" for host in "ab")})
        assert [str(each) for each in loaded.servers] == loaded["bootstrap_servers"] == ["a:1", "b:1"]
        refused("names no server", bootstrap_servers=iter([]))

    def test_client_id(self) -> None:
        assert load({"client_id": "me"})["client_id"] == "me"
        assert load({"client_id": ""})["client_id"] == ""
        first, second = (load({})["client_id"] for _ in range(2))
        prefix, _, number = first.rpartition("-")
        assert prefix == "fastprod-producer"
        assert second == f"{prefix}-{int(number) + 1}"
        for bad in (5, b"me", "x" * 32_768, "\ud800"):
            refused("client_id=", client_id=bad)

    @pytest.mark.parametrize(
        ("name", "number"), [("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)]
    )
    def test_compression(self, name: str, number: int) -> None:
        loaded = load({"compression_type": name})
        assert loaded["compression_type"] == name
        assert loaded["compression_attrs"] == loaded.plane_options().codec == number

    def test_bad_compression(self) -> None:
        assert "leave it at None" in refused("compression_type='none'", compression_type="none")
        assert "'gzip'?" in refused("compression_type='GZIP'", compression_type="GZIP")
        refused("compression_type=3", compression_type=3)
        refused("no effect without compression_type", compression_level=3)
        refused("compression_level=99", compression_type="zstd", compression_level=99)

    def test_a_missing_codec_is_a_runtime_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("zstandard", "cramjam"):
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(RuntimeError, match="pip install zstandard"):
            load({"compression_type": "zstd"})

    def test_socket_options(self) -> None:
        options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True), [6, 1, b"\1\0\0\0"]]
        loaded = load({"socket_options": options})["socket_options"]
        assert loaded == [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (6, 1, b"\1\0\0\0")]
        assert load({"socket_options": []})["socket_options"] == []
        for bad in (None, "x", [(1, 2)], [(1, 2, "3")], [1, 2, 3], [(1, 2, None)]):
            refused("socket_options=", socket_options=bad)

    def test_client_dns_lookup(self) -> None:
        name = "resolve_canonical_bootstrap_servers_only"
        assert load({"client_dns_lookup": name})["client_dns_lookup"] == name
        assert "'use_all_dns_ips'?" in refused("client_dns_lookup", client_dns_lookup="use_all_dns")

    @pytest.mark.parametrize(
        ("given", "normal"),
        [
            (None, None),
            ((3, 9), (3, 9)),
            ((0, 11), (0, 11)),
            ((2, 5, 0), (2, 5, 0)),
            ("2.5", (2, 5)),
        ],
    )
    def test_api_version(self, given: Any, normal: Any) -> None:
        assert load({"api_version": given})["api_version"] == normal

    def test_api_version_as_text_logs(self, caplog: pytest.LogCaptureFixture) -> None:
        assert load({"api_version": "auto"})["api_version"] is None
        assert load({"api_version": "2.5"})["api_version"] == (2, 5)
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2

    @pytest.mark.parametrize(
        "bad", [[2, 5], 2.5, 3, "x.y", (), ("2", "5"), (2.0, 5), (-1,), (True,)]
    )
    def test_bad_api_version(self, bad: Any) -> None:
        refused("api_version=", api_version=bad)

    def test_serializers_and_partitioner(self) -> None:
        serializer, partitioner = JsonSerializer(), RoundRobinPartitioner()
        loaded = load({"value_serializer": serializer, "partitioner": partitioner})
        assert loaded["value_serializer"] is serializer
        assert loaded["partitioner"] is partitioner
        refused("key_serializer='utf-8'", key_serializer="utf-8")
        refused("partitioner='nope'", partitioner="nope")


class TestNames:
    def test_unknown_options_are_named_with_what_was_probably_meant(self) -> None:
        text = refused("Unrecognized configs", linger_sm=5, compresion_type="lz4", zzz=1)
        assert "linger_sm: Did you mean 'linger_ms'?" in text
        assert "compresion_type: Did you mean 'compression_type'?" in text
        assert "zzz" in text

    def test_an_unknown_option_s_value_is_not_shown(self) -> None:
        assert "hunter2" not in refused("ssl_passwrd", ssl_passwrd="hunter2")

    def test_renamed(self, fresh_warnings: None) -> None:
        with pytest.warns(DeprecationWarning, match="bootstrap_timeout_ms") as caught:
            loaded = load({"api_version_auto_timeout_ms": 1500})
        assert loaded["bootstrap_timeout_ms"] == 1500
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load({"api_version_auto_timeout_ms": 7})["bootstrap_timeout_ms"] == 7

    def test_renamed_beside_the_new_name(self, fresh_warnings: None) -> None:
        with pytest.warns(DeprecationWarning, match="ignored"):
            loaded = load({"api_version_auto_timeout_ms": 1, "bootstrap_timeout_ms": 2})
        assert loaded["bootstrap_timeout_ms"] == 2

    def test_dropped(self, fresh_warnings: None) -> None:
        with pytest.warns(DeprecationWarning, match="no effect"):
            load({"bootstrap_topics_filter": set()})

    def test_errors_can_be_pickled(self) -> None:
        with pytest.raises(ValueError, match="acks") as caught:
            load({"acks": 7})
        again = pickle.loads(pickle.dumps(caught.value))
        assert str(again) == str(caught.value)
        assert isinstance(again, kafka.errors.KafkaConfigurationError)


def test_import_costs_neither_kafka_python_nor_a_codec() -> None:
    root = Path(config.__file__).parents[1]
    code = (
        "import sys, fastprod.config as c; c.load({'client_id': 'x'}).plane_options();"
        "print([m for m in ('kafka', 'cramjam', 'lz4', 'zstandard') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=root,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"


def test_defaults_are_stated_nowhere_else() -> None:
    """Large numbers of the table that turn up as literals in a face would be a second home."""
    faces = Path(config.__file__).parent / "faces"
    large = {o.default for o in OPTIONS if type(o.default) is int and o.default >= 1000}
    for path in faces.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and type(node.value) is int:
                assert node.value not in large, f"{path.name}:{node.lineno}"
