"""The command line of `compare.py`: lists become cases, and what cannot be is refused."""

from __future__ import annotations

import argparse
import sys

import pytest
from comparing.job import Case, Job
from comparing.options import cases_of, parse


def parsed(monkeypatch: pytest.MonkeyPatch, *options: str) -> argparse.Namespace:
    monkeypatch.setattr(sys, "argv", ["compare.py", *options])
    return parse("about")


def test_every_combination_is_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(monkeypatch, "--partitions", "1,1000", "--compression", "none,zstd:3", "--topics", "200")
    assert cases_of(options) == [
        Case(partitions=1, topics=200),
        Case(partitions=1, topics=200, compression="zstd", level=3),
        Case(partitions=1000, topics=200),
        Case(partitions=1000, topics=200, compression="zstd", level=3),
    ]


def test_one_record_at_a_time_goes_alone_and_beside_a_busy_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cases_of(parsed(monkeypatch, "--latency")) == [Case(), Case(busy=1)]


@pytest.mark.parametrize(
    "options",
    [
        ("--partitions", "0"),
        ("--topics", "201"),
        ("--threads", "9"),
        ("--value-size", "1000001"),
        ("--compression", "brotli"),
        ("--only", "nobody"),
        ("--sink", "--cpu-bound"),
        ("--latency", "--memory"),
    ],
)
def test_what_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit):
        parsed(monkeypatch, *options)
    assert "error: " in capsys.readouterr().err


def test_a_job_comes_back_from_json() -> None:
    job = Job("ceiling", "host:9092", ("a", "b"), 5, Case(value_size=7, compression="lz4", busy=1))
    assert Job.from_json(job.to_json()) == job
