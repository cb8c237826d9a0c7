"""The check that every contender passes before it is timed: against the sink, in its checking mode."""

from __future__ import annotations

import tempfile
from pathlib import Path

from comparing.child_process import ChildProcess, VoidError
from comparing.contenders import CONTENDERS
from comparing.job import Case, Job
from comparing.kept import difference, read
from comparing.sink import Counted, Sink

# Several batches a partition and more than a page of keys, from the slowest client in a second; or bytes enough.
_RECORDS = 12_000
_BYTES = 24 << 20


def check(case: Case, contender: str) -> str:
    """Let it send some thousand records; what is wrong with what came, in words, or "" if nothing is."""
    records = min(_RECORDS, max(_BYTES // case.value_size, 16))
    topics = tuple(f"check-{number}" for number in range(case.topics))
    with tempfile.TemporaryDirectory() as folder:
        keep = Path(folder, "kept")
        with Sink(case.partitions, keep) as sink:
            job = Job(contender, sink.address, topics, records, case._replace(busy=0))
            try:
                with ChildProcess(job) as child:
                    outcome = child.outcome()
            except VoidError as error:
                return str(error)
            wrong = problems(sink.counted(), outcome.first + outcome.acknowledged)
        if wrong:
            return wrong
        counts = [case.first_records]
        counts += [records // case.threads + (number < records % case.threads) for number in range(case.threads)]
        try:
            found = read(keep)
        except Exception as error:  # whatever the decoder makes of it
            return f"a batch cannot be decoded: {error!r}"
        return difference(found, case.value_size, counts, case.partitions, CONTENDERS[contender].hashes)


def problems(counted: Counted, acknowledged: int) -> str:
    """What the sink itself has found wrong."""
    if counted.problems:
        return f"{counted.problems} problem(s), the first: {counted.first_problem}"
    if counted.records != acknowledged:
        return f"{acknowledged} records were acknowledged, and the sink has {counted.records}"
    return ""
