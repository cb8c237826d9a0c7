"""What options mean together, and how `bootstrap_servers` is read."""

from __future__ import annotations

import selectors
import ssl
from typing import Any, ClassVar

import pytest

from fastprod import errors
from fastprod.addresses import Address, parse_servers
from fastprod.config import load

pytestmark = pytest.mark.native_only


def refused(match: str, **given: Any) -> str:
    """Check that these options are refused, naming what `match` says; return the text."""
    with pytest.raises(errors.KafkaConfigurationError, match=match) as caught:
        load(given)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


class TestServers:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("localhost", [("localhost", 9092)]),
            ("a:1,b:2", [("a", 1), ("b", 2)]),
            (" a:1 , b ,", [("a", 1), ("b", 9092)]),
            (["a:1", "b:2"], [("a", 1), ("b", 2)]),
            (("a",), [("a", 9092)]),
            ({"a:1": None}, [("a", 1)]),
            ("PLAINTEXT://a:1", [("a", 1)]),
            (["SASL_SSL://a:1", "x+y-z.0://b"], [("a", 1), ("b", 9092)]),
            ("[::1]:9093", [("::1", 9093)]),
            ("[::1]", [("::1", 9092)]),
            ("::1", [("::1", 9092)]),
            ("fe80::1%eth0", [("fe80::1%eth0", 9092)]),
            ("10.0.0.1:65535", [("10.0.0.1", 65535)]),
            ("a,a:9092,b", [("a", 9092), ("b", 9092)]),
        ],
    )
    def test_forms(self, given: Any, expected: list[tuple[str, int]]) -> None:
        assert parse_servers(given) == tuple(Address(*each) for each in expected)
        assert load({"bootstrap_servers": given}).servers == parse_servers(given)

    @pytest.mark.parametrize("empty", ["", " , ", [], ()])
    def test_empty(self, empty: Any) -> None:
        refused("names no server", bootstrap_servers=empty)

    @pytest.mark.parametrize("bad", ["a:0", "a:65536", "a:x", "a:", "a:-1", ["a:1", "b:\u0661"]])
    def test_bad_port(self, bad: Any) -> None:
        refused("number from 1 to 65535", bootstrap_servers=bad)

    @pytest.mark.parametrize(
        "bad", [":9092", "[::1", "[a]:1", "a:b:c", "a b:1", "http://a/b", [""]]
    )
    def test_bad_host(self, bad: Any) -> None:
        refused("has no host", bootstrap_servers=bad)

    @pytest.mark.parametrize("bad", [None, 5, b"a:1", [b"a:1"], [5]])
    def test_bad_type(self, bad: Any) -> None:
        refused("bootstrap_servers=", bootstrap_servers=bad)

    def test_shown_as_it_is_written(self) -> None:
        assert [str(each) for each in parse_servers("a:1,[::1]:2")] == ["a:1", "[::1]:2"]


NOT_YET = {
    "transactional_id": "tx",
    "security_protocol": "SSL",
    "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    "ssl_check_hostname": False,
    "ssl_cafile": "ca.pem",
    "ssl_certfile": "cert.pem",
    "ssl_keyfile": "key.pem",
    "ssl_password": "secret",
    "ssl_crlfile": "crl.pem",
    "ssl_ciphers": "HIGH",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": "me",
    "sasl_plain_password": "secret",
    "sasl_kerberos_name": "kafka/host",
    "sasl_kerberos_service_name": "broker",
    "sasl_kerberos_domain_name": "host",
    "sasl_oauth_token_provider": object(),
    "proxy_url": "socks5://p",
    "socks5_proxy": "socks5://p",
    "selector": selectors.SelectSelector,
    "kafka_client": object,
    "metric_reporters": [object],
}


class TestNotYet:
    @pytest.mark.parametrize("name", NOT_YET)
    def test_set_options_are_refused_by_name(self, name: str) -> None:
        text = refused(f"{name} is set.* not supported yet", **{name: NOT_YET[name]})
        assert "secret" not in text

    def test_an_unknown_security_protocol_is_not_taken_for_plaintext(self) -> None:
        assert "'SASL_SSL'?" in refused("security_protocol=", security_protocol="sasl_ssl")
        assert "'PLAINTEXT'?" in refused("security_protocol=", security_protocol="PLAIN_TEXT")
        refused("security_protocol=", security_protocol=None)


class TestIdempotence:
    CONFLICTS: ClassVar = (
        {"acks": 1},
        {"acks": 0},
        {"retries": 0},
        {"max_in_flight_requests_per_connection": 6},
        {"api_version": (0, 10, 2)},
    )

    @pytest.mark.parametrize("conflict", CONFLICTS, ids=str)
    def test_the_default_gives_way_with_one_log_line(
        self, conflict: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        loaded = load(conflict)
        assert loaded["enable_idempotence"] is False
        assert not loaded.plane_options().idempotent
        assert not loaded.idempotence_required
        (record,) = caplog.records
        assert next(iter(conflict)) in record.getMessage()
        twice = "Retries may write records twice" in record.getMessage()
        assert twice is not bool({"acks": 0, "retries": 0}.items() & conflict.items())
        assert loaded["acks"] == conflict.get("acks", -1)

    @pytest.mark.parametrize("conflict", CONFLICTS, ids=str)
    @pytest.mark.parametrize("asked", ["enable_idempotence", "strict_order"])
    def test_asked_for_it_is_an_error(self, conflict: dict[str, Any], asked: str) -> None:
        text = refused("contradicts", **{asked: True}, **conflict)
        assert f"{asked}=True" in text

    def test_all_conflicts_are_named(self) -> None:
        text = refused(
            "contradicts",
            enable_idempotence=True,
            acks=1,
            retries=0,
            max_in_flight_requests_per_connection=7,
        )
        for name in ("acks=1", "retries=0", "max_in_flight_requests_per_connection=7"):
            assert name in text

    @pytest.mark.parametrize("conflict", CONFLICTS, ids=str)
    def test_explicitly_off_is_silent(
        self, conflict: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        assert load({"enable_idempotence": False, **conflict})["enable_idempotence"] is False
        assert caplog.records == []

    def test_required_only_when_asked_for(self) -> None:
        assert not load({}).idempotence_required
        assert load({"enable_idempotence": True}).idempotence_required
        assert load({"strict_order": True}).idempotence_required
        assert not load({"enable_idempotence": False}).idempotence_required

    def test_strict_order_without_idempotence(self) -> None:
        refused("strict_order=True needs", strict_order=True, enable_idempotence=False)

    def test_agreeing_values_keep_it(self) -> None:
        loaded = load({"acks": "all", "retries": 1, "max_in_flight_requests_per_connection": 5})
        assert loaded["enable_idempotence"] is True


class TestTogether:
    def test_an_explicit_delivery_timeout_that_cannot_be_kept(self) -> None:
        text = refused("delivery_timeout_ms=30000", delivery_timeout_ms=30_000, linger_ms=1)
        assert "1 + 30000 = 30001" in text
        exact = load({"delivery_timeout_ms": 30_001, "linger_ms": 1})
        assert exact["delivery_timeout_ms"] == 30_001

    def test_the_default_delivery_timeout_grows(self) -> None:
        loaded = load({"request_timeout_ms": 200_000, "linger_ms": 50})
        assert loaded["delivery_timeout_ms"] == 200_050
        assert load({"request_timeout_ms": 100_000})["delivery_timeout_ms"] == 120_000

    @pytest.mark.parametrize(("codec", "version"), [("lz4", (0, 8, 1)), ("zstd", (2, 0))])
    def test_codec_and_api_version(self, codec: str, version: tuple[int, ...]) -> None:
        refused("needs brokers from", compression_type=codec, api_version=version)
        load({"compression_type": codec, "api_version": (2, 1)})
