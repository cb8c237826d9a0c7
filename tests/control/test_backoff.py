"""Bounds of every backoff: exponential, 20 % jitter, capped (KIP-580)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprod.control.backoff import backoff_ms, retry_cap_ms
from fastprod.control.nodes import Reconnects


@pytest.mark.parametrize(
    ("failures", "low", "high"),
    [(1, 80, 120), (2, 160, 240), (3, 320, 480), (4, 640, 960), (5, 1000, 1000), (500, 1000, 1000)],
)
def test_retry_backoff(failures: int, low: float, high: float) -> None:
    drawn = [backoff_ms(100, 1000, failures) for _ in range(200)]
    assert all(low <= each <= high for each in drawn)


def test_no_failure_no_wait() -> None:
    assert backoff_ms(100, 1000, 0) == 0


@given(
    base=st.floats(0, 1e6),
    cap=st.floats(0, 1e6),
    failures=st.integers(0, 10**9),
)
def test_never_above_the_cap_never_negative(base: float, cap: float, failures: int) -> None:
    assert 0 <= backoff_ms(base, cap, failures) <= max(cap, 0)


def test_cap_follows_a_longer_base() -> None:
    assert retry_cap_ms(100) == 1000
    assert retry_cap_ms(5000) == 5000


class TestReconnects:
    def test_grows_with_failures_in_a_row(self) -> None:
        known = Reconnects(50, 1000)
        now, waits = 0.0, []
        for _ in range(8):
            known.failed("a:1", "refused", now)
            waits.append(known.allowed_at("a:1") - now)
            now = known.allowed_at("a:1")
        assert 0.04 <= waits[0] <= 0.06
        assert 0.08 <= waits[1] <= 0.12
        assert waits[-1] == pytest.approx(1.0)

    def test_two_failures_at_once_count_once(self) -> None:
        known = Reconnects(50, 1000)
        known.failed("a:1", "refused", 0.0)
        known.failed("a:1", "refused", 0.001)
        assert known.failures("a:1") == 1

    def test_success_forgets(self) -> None:
        known = Reconnects(50, 1000)
        known.failed("a:1", "refused", 0.0)
        known.succeeded("a:1")
        assert (known.failures("a:1"), known.allowed_at("a:1"), known.reason("a:1")) == (0, 0, None)

    def test_a_lost_connection_waits_one_base(self) -> None:
        known = Reconnects(50, 1000)
        known.lost("a:1", "gone", 10.0)
        assert 10.04 <= known.allowed_at("a:1") <= 10.06
        assert known.failures("a:1") == 0

    def test_setup_timeout_grows_to_its_bound(self) -> None:
        known = Reconnects(0, 0)
        assert 8 <= known.setup_timeout_s("a:1") <= 12
        for now in range(5):
            known.failed("a:1", "slow", float(now))
        assert known.setup_timeout_s("a:1") == 30
