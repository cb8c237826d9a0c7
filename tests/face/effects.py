"""Marks a test as the one that shows what an option does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])


def shows(*options: str) -> Callable[[Test], Test]:
    """The decorated test fails if one of these options has no effect (test_options.py counts)."""

    def mark(test: Test) -> Test:
        return test

    return mark
