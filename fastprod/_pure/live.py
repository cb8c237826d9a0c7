"""What lives, counted for tests that look for leaks."""

from __future__ import annotations

import gc

from fastprod._pure.batch import Batch
from fastprod._pure.delivery import BatchOutcome, FutureRecordMetadata


def live_objects() -> dict[str, int]:
    """How many batches, buffers for their records, and futures exist in this process."""
    found = gc.get_objects()
    types = list(map(type, found))
    return {
        "batches": types.count(BatchOutcome),
        "buffers": sum(each.charge > 0 for each in found if type(each) is Batch),
        "futures": types.count(FutureRecordMetadata),
    }
