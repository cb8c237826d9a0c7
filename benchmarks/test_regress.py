"""`regress`: what counts as a regression, and that it measures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
from regressing import build, command, rounds, verdict

ROOT = Path(__file__).resolve().parent.parent


def ratio(*each: float) -> verdict.Ratio:
    return verdict.Ratio("one", each)


@pytest.mark.parametrize(
    ("each", "slower"),
    [
        ((1.10, 1.11, 1.09), True),
        ((1.06, 1.06, 1.00), True),
        # The median is past the limit, but hardly more than half of the rounds are.
        ((1.06, 1.07, 1.06, 1.00, 1.01), False),
        ((1.04, 1.04, 1.04), False),
        # One round in which something else used the machine.
        ((1.00, 1.90, 1.00), False),
        ((0.50, 0.51, 0.52), False),
    ],
)
def test_a_regression_is_past_the_limit_in_most_rounds(each: tuple[float, ...], slower: bool) -> None:
    assert ratio(*each).is_past(1.05) is slower


def test_ratios_are_formed_inside_a_round() -> None:
    measured = [({"a": 1.0, "gone": 1.0}, {"a": 2.0, "new": 1.0}), ({"a": 10.0, "gone": 1.0}, {"a": 30.0, "new": 1.0})]
    assert verdict.ratios(measured) == [verdict.Ratio("a", (2.0, 3.0))]
    assert verdict.only_one_has(measured) == ["gone", "new"]


def test_sides_take_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order: list[str] = []

    def run(side: build.Side, options: list[str], folder: Path) -> rounds.Times:
        order.append(side.name)
        return {"a": {"base": 1.0, "head": 2.0}[side.name]}

    monkeypatch.setattr(rounds, "times_of", run)
    sides = (build.Side("base", tmp_path, tmp_path), build.Side("head", tmp_path, tmp_path))
    assert rounds.measured(sides, 3, [], tmp_path, lambda text: None) == [({"a": 1.0}, {"a": 2.0})] * 3
    assert order == ["base", "head", "head", "base", "base", "head"]


def test_the_suite_is_measured_and_held_against_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both sides are this environment: what is looked at is that there is a row, not what it says."""
    sides = build.Side("base", Path(sys.executable), ROOT), build.Side("head", Path(sys.executable), ROOT)
    table = tmp_path / "table.md"
    args = argparse.Namespace(select="test_crc32c and pure", rounds=2, limit=1e9, markdown=table, json=None)
    assert command.compare(sides, args, tmp_path) == 0
    args.limit = 1e-9
    assert command.compare(sides, args, tmp_path) == 1
    row = next(line for line in table.read_text(encoding="utf-8").splitlines() if "test_crc32c[pure]" in line)
    assert "2 of 2" in row
    assert "SLOWER" in row
    assert "1 of 1 benchmarks slower than 1e-09 times BASE: test_micro.py::" in capsys.readouterr().out


def test_a_suite_that_fails_is_not_measured(tmp_path: Path) -> None:
    side = build.Side("base", Path(sys.executable), tmp_path)
    with pytest.raises(build.NotMeasured, match="the benchmarks of base failed"):
        rounds.times_of(side, [], tmp_path)


def test_a_revision_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["no-such-revision"]) == 2
    assert "no-such-revision" in capsys.readouterr().err
