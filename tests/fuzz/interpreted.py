"""Fuzz what Python parses, guided by coverage: in `tests/`, `python -m fuzz.interpreted TARGET [libFuzzer's options]`.

`control`: the control plane's frames and messages. `produce`: the pure parser of Produce responses, whose every answer
is compared with that of the compiled one. Needs atheris (from PyPI), which is no part of the `test` extra. What is
found interesting is kept in `found/`; README.md tells more.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fastprod.protocol", "fastprod.control", "fastprod._pure"]):
    import fastprod._pure as pure
    from fastprod import errors, protocol
    from fastprod.control.frames import FrameReader
    from fastprod.protocol.schema import api_of

    from .corpus import CALLS, MESSAGES, PRODUCE, Recorded, recorded

import fastprod._core as native

FOUND = Path(__file__).resolve().parent / "found"
VERSIONS = [
    (api, version)
    for api, message in MESSAGES.items()
    for version in range(api_of(message).versions.first, api_of(message).versions.last + 1)
]
FIRST = 3   # of Produce


def control(data: bytes) -> None:
    """Which message in which version, then a frame: the whole of one if the second byte is even."""
    if len(data) < 2:
        return
    api, version = VERSIONS[data[0] % len(VERSIONS)]
    frames = FrameReader(100_000)
    frames.feed(data[2:] if data[1] % 2 else (len(data) - 2).to_bytes(4, "big") + data[2:])
    try:
        while (frame := frames.next()) is not None:
            protocol.decode_response(MESSAGES[api], version, frame)
            if api in CALLS:
                CALLS[api].read(version, frame)
    except (errors.KafkaProtocolError, errors.InvalidReceiveError):
        pass


def produce(data: bytes) -> None:
    """The version, then a response."""
    if not data:
        return
    said = []
    for twin in (native, pure):
        try:
            said.append(twin.decode_produce_response(FIRST + data[0] % 11, data[1:]))
        except ValueError:
            said.append(None)
    if said[0] != said[1]:
        raise AssertionError(f"native: {said[0]}, pure: {said[1]}")


def seed(response: Recorded) -> bytes:
    """As the target takes it."""
    if response.api == PRODUCE:
        return bytes([response.version - FIRST]) + response.payload
    return bytes([VERSIONS.index((response.api, response.version)), 0]) + response.payload


def main() -> None:
    if sys.argv[1:2] not in (["control"], ["produce"]):
        sys.exit(__doc__)
    name = sys.argv.pop(1)
    apis = {"control": list(MESSAGES), "produce": [PRODUCE]}[name]
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    for number, response in enumerate(recorded(*apis)):
        (found / f"seed-{number}").write_bytes(seed(response))
    atheris.Setup([*sys.argv, "-max_len=1000", str(found)], {"control": control, "produce": produce}[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
