"""Two hundred producers, however they end, leave no thread, no descriptor and no memory behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastprod.testing import KafkaBroker

from .conftest import MakeTopic, refused_address
from .leaks_child import KINDS, PRODUCERS

# What the allocators may still take for themselves after a hundred producers, bytes.
CHANCE = 3_000_000
DAY_MS = 86_400_000


@pytest.mark.parametrize("kind", list(KINDS))
def test_two_hundred_producers(own_broker: KafkaBroker, topic: MakeTopic, kind: str) -> None:
    address = refused_address() if kind == "unreachable" else own_broker.bootstrap_servers
    child = Path(__file__).with_name("leaks_child.py")
    command = [sys.executable, str(child), address, topic(message_timestamp_before_max_ms=DAY_MS), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    before, half, end = map(json.loads, done.stdout.splitlines())
    print(before, half, end, sep="\n")
    assert half["left"] == end["left"] == before["left"]
    assert end["left"]["threads"] == ["MainThread"]
    assert end["objects"] - half["objects"] < PRODUCERS / 2
    assert end["resident"] - half["resident"] < CHANCE
