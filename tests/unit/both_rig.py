"""Either twin's data plane in front of one broker double, for tests that hold for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastprod._core as native
import pytest
from pure_rig import TOPIC, Answer, Rig, once

from fastprod import _pure

MakeRig = Callable[..., Rig]
TWINS = {"native": native, "pure": _pure}
TOO_LARGE = 10
HELD = {"linger_ms": 60_000}


def each_twin(request: pytest.FixtureRequest) -> Any:
    return TWINS[request.param]


def rig_of_twin(twin: Any, any_rig: MakeRig) -> MakeRig:
    return lambda **options: any_rig(twin=twin, **options)


def decoded(twin: Any, parked: Any) -> list[Any]:
    return twin.decode_records(parked.body(), parked.base_timestamp, parked.record_count)


def refused(made: Rig, *values: bytes) -> tuple[list[Any], Any]:
    """Send the values as one batch; the futures, and the batch that the broker has refused as too large."""
    made.broker.script = once(Answer(TOO_LARGE))
    futures = [made.send(value, partition=0) for value in values]
    made.plane.set_leader_limit(TOPIC, 0)
    threaded_flush(made)
    return futures, made.parked()


def threaded_flush(made: Rig) -> None:
    """Let everything leave, without waiting for it."""
    assert made.plane.flush(0) is False
