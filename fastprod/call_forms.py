"""Which way a user's function can be called. `inspect` is slow to import, and only loaded when there is one."""

from __future__ import annotations

import functools
from collections.abc import Callable


def takes(function: Callable[..., object], count: int) -> bool:
    """Whether it can be called with `count` positional arguments; True where nobody can tell."""
    import inspect

    known = isinstance(function, type | functools.partial) or inspect.isroutine(function)
    # Asked of an object whose class has __call__ as a class method (kafka-python 2's partitioners
    # do), `signature` takes one parameter too many away; the bound method knows better.
    target = function if known else getattr(function, "__call__")  # noqa: B004, B009
    try:
        inspect.signature(target).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return True
    return True
