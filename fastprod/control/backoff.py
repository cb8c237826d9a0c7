"""How long to wait before trying again (KIP-144, KIP-580)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

JITTER: Final = 0.2
# 2**64 of any base is past every cap; a larger exponent would only overflow a float.
_LARGEST_EXPONENT: Final = 64

RETRY_CAP_MS: Final = 1000.0


def backoff_ms(
    base_ms: float,
    cap_ms: float,
    failures: int,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """Return min(cap, base x 2^(failures-1) x U(0.8, 1.2)) in ms; 0 without a failure.

    The jitter is drawn anew by every call, so a caller that compares against a deadline calls
    once per failure and keeps the result.
    """
    if failures <= 0:
        return 0.0
    grown = base_ms * 2.0 ** min(failures - 1, _LARGEST_EXPONENT)
    return min(cap_ms, grown * uniform(1 - JITTER, 1 + JITTER))


def retry_cap_ms(retry_backoff_ms: float) -> float:
    """Return the cap of retries in ms: 1000, or the base where that is longer."""
    return max(RETRY_CAP_MS, retry_backoff_ms)
