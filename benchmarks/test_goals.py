"""Figures become verdicts and pictures as they should."""

from __future__ import annotations

import pytest
from comparing.bench import Run
from comparing.contenders import C_LIMIT, CALLBACK, CEILING, CONFLUENT, FUTURES, MEMORY_LIMIT
from comparing.goals import growth, judged, judged_arrival
from comparing.job import LATENCY, THROUGHPUT, Case
from comparing.summary import Round

USUAL = Case()


def run(name: str, rate: float, cpu_us: float = 1.0, **others: object) -> Run:
    return Run(name, 1_000, 1_000 / rate, cpu_us / 1_000, **others)  # type: ignore[arg-type]


def verdict(name: str, *runs: Run, sink: bool = False, case: Case = USUAL) -> bool | None:
    """What is said of one contender after three such rounds."""
    rounds: list[Round] = [{one.contender: one for one in runs}] * 3
    (found,) = [one for one in judged(case, rounds, THROUGHPUT, sink) if one.contender == name]
    return found.met


@pytest.mark.parametrize(
    ("ceiling", "confluent", "cpu", "met"),
    [
        (100.0, 90.0, 0.20, True),  # 90 % of the ceiling
        (400.0, 25.0, 0.20, True),  # not that, but more than 3.5 times confluent
        (400.0, 90.0, 0.20, False),
        (100.0, 90.0, 0.21, False),  # too much CPU
    ],
)
def test_one_goal_of_a_group_is_enough_and_every_group_is_asked(
    ceiling: float, confluent: float, cpu: float, met: bool
) -> None:
    runs = run(FUTURES, 90.0, cpu), run(CEILING, ceiling), run(CONFLUENT, confluent, 1.0)
    assert verdict(FUTURES, *runs) is met


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert verdict(FUTURES, run(FUTURES, 90.0, 0.1), run(CEILING, 100.0)) is None
    assert verdict(C_LIMIT, run(C_LIMIT, 70.0), run(MEMORY_LIMIT, 100.0), sink=True) is True
    assert verdict(C_LIMIT, run(C_LIMIT, 69.0), run(MEMORY_LIMIT, 100.0), sink=True) is False
    # A miss is a miss, whatever else is unknown.
    assert verdict(CALLBACK, run(CALLBACK, 90.0, 0.6), sink=True) is False


def test_void_runs_do_not_count() -> None:
    rounds: list[Round] = [{FUTURES: run(FUTURES, 1.0), CONFLUENT: Run(CONFLUENT, 1, void="lost")}]
    assert {one.met for one in judged(Case(), rounds, THROUGHPUT, False) if one.contender == FUTURES} == {None}


def test_compressed_records_must_not_be_stored_in_more_bytes() -> None:
    case = Case(compression="lz4")
    fast = run(FUTURES, 100.0, stored_bytes=103_000)
    assert verdict(FUTURES, fast, run(CONFLUENT, 40.0, stored_bytes=100_000), case=case) is True
    assert verdict(FUTURES, fast, run(CONFLUENT, 40.0, stored_bytes=99_000), case=case) is False


def test_latency_is_judged_by_p50_and_p99() -> None:
    rounds: list[Round] = [{FUTURES: run(FUTURES, 1.0, latency_ms=(1.0, 2.1, 9.0)),
                            CONFLUENT: run(CONFLUENT, 1.0, latency_ms=(1.0, 2.0, 3.0))}]  # fmt: skip
    (found,) = judged(Case(busy=1), rounds, LATENCY, False)
    assert (found.met, "p50 1.00" in found.words, "p99 1.05" in found.words) == (False, True, True)


@pytest.mark.parametrize(("beside", "met"), [(1.8, True), (1.81, False)])
def test_arrival_beside_threads_may_take_twice_as_long_and_a_millisecond(beside: float, met: bool) -> None:
    alone: list[Round] = [{FUTURES: run(FUTURES, 1.0, latency_ms=(0.1, p99, 9.0))} for p99 in (0.4, 0.4, 5.0)]
    threads: list[Round] = [{FUTURES: run(FUTURES, 1.0, latency_ms=(0.1, p99, 9.0))} for p99 in (beside, beside, 9.0)]
    (found,) = judged_arrival(alone, threads)
    assert found.met is met


def test_arrival_is_not_judged_of_what_was_not_measured() -> None:
    assert judged_arrival([{CONFLUENT: run(CONFLUENT, 1.0)}], [{CONFLUENT: run(CONFLUENT, 1.0)}]) == []
    void: list[Round] = [{FUTURES: Run(FUTURES, 1, void="lost")}]
    assert [one.met for one in judged_arrival(void, void)] == [None]


def test_nothing_is_asked_of_other_cases() -> None:
    assert judged(Case(value_size=10), [{FUTURES: run(FUTURES, 1.0)}], THROUGHPUT, False) == []


@pytest.mark.parametrize(
    ("other", "grown", "met"),
    [
        (Case(partitions=1000), 1.5, True),
        (Case(topics=200), 1.51, False),
        (Case(records=10_000_000), 1.2, True),
        (Case(records=10_000_000), 1.21, False),
        (Case(value_size=1000), 9.0, None),
    ],
)
def test_cost_may_grow_by_a_stated_share(other: Case, grown: float, met: bool | None) -> None:
    before = (Case(), [{FUTURES: run(FUTURES, 1.0, 1.0)}])
    found = growth(before, (other, [{FUTURES: run(FUTURES, 1.0, grown)}]), FUTURES)
    assert found is not None
    assert found.met is met
