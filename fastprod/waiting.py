"""How long a caller is willing to wait."""

from __future__ import annotations

from typing import Any

from fastprod import failures


def seconds_of(timeout: Any) -> float:
    """Return a timeout in seconds, negative or infinite ones as well.

    Raises TypeError for what is no number and ValueError for NaN, of which no wait would ever end.
    """
    # float() reads numbers out of these.
    if isinstance(timeout, (str, bytes, bytearray)):
        raise failures.bad_timeout(timeout)
    try:
        seconds = float(timeout)
    except TypeError:
        raise failures.bad_timeout(timeout) from None
    except OverflowError:
        return float("inf") if timeout > 0 else float("-inf")
    if seconds != seconds:
        raise failures.not_a_timeout(timeout)
    return seconds
