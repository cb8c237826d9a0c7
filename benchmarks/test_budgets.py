"""`budgets`: what is over, and that it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from budgeting import budgets, callgrind, command


def test_which_compiler_made_the_extension() -> None:
    assert budgets.compiler_of(b"\0GCC: (Debian 12.2.0-14) 12.2.0\0") == "GCC 12.2.0"
    assert budgets.compiler_of(b"\0GCC: (GNU) 13.1.0\0Debian clang version 16.0.6 (1)\0") == "clang 16.0.6"
    assert budgets.compiler_of(b"") == "an unknown compiler"


def test_a_budget_has_some_slack() -> None:
    assert not budgets.is_over(1030, 1000)
    assert budgets.is_over(1031, 1000)
    assert budgets.budgets_of("this pair", '["this pair"]\nsend = 5\n') == {"send": 5}
    assert budgets.budgets_of("another", '["this pair"]\nsend = 5\n') is None


def test_where_nothing_can_be_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(callgrind, "is_there", lambda: False)
    assert command.main(["check", "--where-possible"]) == 0
    assert command.main(["check"]) == 2
    assert capsys.readouterr().out.count("NOT CHECKED, because valgrind is not installed") == 2


@pytest.mark.parametrize(("counted", "status"), [(1030.0, 0), (1031.0, 1)])
def test_a_count_is_held_against_the_budget(
    counted: float, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "budgets.toml"
    monkeypatch.setattr(command, "FILE", file)
    monkeypatch.setattr(callgrind, "is_there", lambda: True)
    monkeypatch.setattr(callgrind, "instructions", lambda name: counted)
    file.write_text(f'["{budgets.pair()}"]\nsend = 1000\n', encoding="utf-8")
    assert command.main(["check", "send"]) == status
    assert command.main(["measure", "send"]) == 0
    file.write_text("", encoding="utf-8")
    assert command.main(["check", "send"]) == 0
    assert f'to have it checked, add\n\n["{budgets.pair()}"]\nsend = {round(counted)}' in capsys.readouterr().out


@pytest.mark.skipif(not callgrind.is_there(), reason="valgrind is not installed")
def test_instructions_are_counted() -> None:
    """Sealing is the CRC and two copies of 120 bytes and more, in instructions of at least eight."""
    assert 20 < callgrind.instructions("seal", 16_000) < 2000
