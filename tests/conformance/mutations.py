"""Changes to the product that break what a conformance test names, each seen to make that test fail.

`mutate.py` makes them in a copy and runs the tests; README.md lists them.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """`old` occurs once in `file` (from fastprod/). `tests`: file and, for pytest's -k, what to choose in it; each test
    chosen must fail, whichever its parameters."""

    item: int
    file: str
    old: str
    new: str
    tests: str

    @property
    def backend(self) -> str:
        """The twin that the tests run on."""
        return "native" if self.file.startswith("_native/") else "pure"


PURE: list[Mutation] = [
    Mutation(1, "_pure/record_batch.py", "        count - 1,\n", "        count,\n",
             "test_batches: test_golden_batches and not varint"),
    Mutation(1, "_pure/varint.py", "out.append(value & 0x7F | 0x80)", "out.append(value & 0x7F)",
             "test_batches: varint and 300"),
    Mutation(2, "_pure/partition.py", "timestamp - batch.base_timestamp, count)",
             "abs(timestamp - batch.base_timestamp), count)", "test_batches: test_ts_delta_negative"),
    Mutation(3, "compression.py", "block_linked=False,\n", "block_linked=True,\n",
             "test_batches: test_codec_matrix and lz4"),
    Mutation(4, "_pure/record_batch.py", "if self._count and self.size", "if self.size",
             "test_batches: test_room_for_first_oversized_only"),
    Mutation(5, "_pure/send.py", "if bound > self._max_request_size:", "if bound > self._max_request_size + 1:",
             "test_batches: test_too_large_fails_future and max_request_size"),
    Mutation(5, "_pure/send.py", "if bound > self._buffer_memory:", "if bound > self._buffer_memory + 1:",
             "test_batches: test_too_large_fails_future and buffer_memory"),
    Mutation(6, "_pure/core.py", "            for child in children:\n                parent.partition.requeue(child)",
             "            parent.partition.queue.extend(children)", "test_splits: test_split_and_reenqueue"),
    Mutation(7, "control/verdict.py", "if facts.record_count > 1 and not facts.done:",
             "if facts.record_count > 2 and not facts.done:", "test_splits: test_split_of_split_terminates"),
    Mutation(8, "control/arbiter.py", "self._plane.set_leader_limit(parked.topic, limit)", "pass",
             "test_splits: test_split_frequency_bounded"),
    Mutation(9, "_pure/plane.py", "        return all(map(_settled, outcome.children))", "        return True",
             "test_splits: test_flush_waits_split_children"),
    Mutation(10, "_pure/murmur2.py", "return (_remembered(key) & 0x7FFFFFFF) % partitions",
             "return abs(_remembered(key)) % partitions", "test_partitions: murmur2 and random"),
    Mutation(11, "_pure/send.py", "if key is None and mode in (layout.PARTITION_DEFAULT, layout.PARTITION_STICKY):",
             "if not key and mode in (layout.PARTITION_DEFAULT, layout.PARTITION_STICKY):",
             "test_partitions: test_null_vs_empty_key"),
    Mutation(12, "_pure/accumulator.py", "if slot.produced >= 2 * self.quantum:", "if slot.produced >= self.quantum:",
             "test_partitions: test_sticky_switch"),
    Mutation(12, "_pure/accumulator.py", "            slot.produced >= self.quantum or time",
             "            slot.produced >= 2 * self.quantum or time",
             "test_partitions: test_sticky_switch and not forced"),
    Mutation(13, "_pure/drain.py", "        return batch.created + core.options.linger_ms / 1000", "        return NOW",
             "test_partitions: test_fractional_batches_avoided"),
    Mutation(14, "_pure/accumulator.py", "longest + 1 - length for", "length + 1 for",
             "test_partitions: test_adaptive_weights and not uniform"),
    Mutation(14, "_pure/accumulator.py", "return available[bisect_right(table, int(random.random() * table[-1]))]",
             "return random.choice(available)", "test_partitions: test_adaptive_weights and not uniform"),
    Mutation(15, "_pure/accumulator.py", "[each for each in partitions if each.leader >= 0] or partitions",
             "partitions", "test_partitions: test_unavailable_excluded and not stalled"),
    Mutation(15, "_pure/accumulator.py", "        if longest != min(lengths):", "        if longest < 0:",
             "test_partitions: test_unavailable_excluded and stalled"),
    Mutation(16, "_pure/drain.py", "        not batch.accepts\n        or len(partition.queue) > 1\n        or",
             "        ", "test_readiness: test_ready_full"),
    Mutation(16, "_pure/drain.py", "        return batch.created + core.options.linger_ms / 1000",
             "        return NEVER", "test_readiness: test_ready_linger"),
    Mutation(16, "_pure/drain.py", "        or batch.created <= core.flush_until\n", "",
             "test_readiness: test_ready_flush"),
    # close() flushes, too.
    Mutation(16, "_pure/drain.py", "        or core.pool.pressed\n", "", "test_readiness: test_ready_exhausted"),
    Mutation(17, "_pure/drain.py", "outbox.look_at = min(outbox.look_at, partition.retry_at)", "pass",
             "test_readiness: test_next_ready_delay and not of"),
    Mutation(17, "_pure/drain.py", "outbox.look_at = min(outbox.look_at, at)", "pass",
             "test_readiness: test_next_ready_delay and not of"),
    Mutation(17, "_pure/expiry.py", "            return batch.created + timeout_s", "            return float('inf')",
             "test_readiness: test_next_ready_delay_of_expiry"),
    Mutation(18, "_pure/drain.py", "        outbox.partitions.pop(partition, None)\n        if partition.queue:",
             "        if not partition.queue:\n            outbox.partitions.pop(partition, None)\n        else:",
             "test_drain: test_drain_rotation"),
    Mutation(19, "_pure/drain.py", "if leaving and total + batch.wire_size", "if total + batch.wire_size",
             "test_drain: test_drain_first_batch_always"),
    Mutation(20, "_pure/drain.py", "partition.retry_at)\n                continue",
             "partition.retry_at)\n                break",
             "test_drain: test_drain_blocked_tp_does_not_starve"),
    Mutation(21, "_pure/partition.py", "        if identity != self.identity or not self._proven(now):",
             "        if identity != self.identity:", "test_drain: test_muted_partition"),
    Mutation(22, "_pure/partition.py", "self.queue.insert(place, batch)", "self.queue.append(batch)",
             "test_retries: test_retry_order"),
    Mutation(23, "control/backoff.py", "return min(cap_ms, grown * uniform(1 - JITTER, 1 + JITTER))",
             "return grown * uniform(1 - JITTER, 1 + JITTER)", "test_retries: test_backoff_bounds and not newer"),
    Mutation(24, "_pure/pool.py", "if self._line or self.charged", "if self.charged",
             "test_memory: test_pool_fairness and not gives_up and not close"),
    Mutation(25, "_pure/core.py", "        self.free(parent)\n", "", "test_memory: test_pool_accounting"),
    Mutation(26, "_pure/core.py", "        if not batch.in_request:\n            self.free(batch)",
             "        self.free(batch)", "test_expiry: test_no_buffer_reuse_in_flight"),
    Mutation(27, "_pure/expiry.py", "if now < batch.created + timeout_s:", "if now < batch.created + 5 * timeout_s:",
             "test_expiry: test_expiry_queued_and_in_flight"),
    Mutation(48, "_pure/partition.py", "        if batch.stamped:\n            self.broken = True",
             "        return", "test_epochs: test_fatal_first_followers_recover and 87 and 0"),
    Mutation(49, "_pure/core.py", "        if self.options.strict_order and batch.stamped:", "        if False:",
             "test_epochs: test_strict_mode_followers_fail"),
    Mutation(52, "_pure/partition.py", "            self.unresolved = -1\n            self.epoch_asked = False",
             "            pass", "test_expiry: test_expiry_then_success_resolves_by_a_follower"),
    Mutation(56, "control/verdict.py", "        return Verdict(Action.SUCCEED)", "        return Verdict(Action.FAIL)",
             "test_in_flight: test_duplicate_is_success and not time"),
    Mutation(58, "_pure/batch.py", "return (self.base_sequence + self.count) & layout.SEQUENCE_MASK",
             "return self.base_sequence + self.count", "test_sequence_wrap: not refusal and not split"),
    Mutation(58, "control/verdict.py", "(facts.last_acked_sequence + 1) % _SEQUENCES",
             "facts.last_acked_sequence + 1", "test_sequence_wrap: refusal and next"),
    Mutation(31, "_pure/plane.py", "        self.core.closing = True\n        self.core.pool.close()",
             "        self.core.pool.close()", "test_close: test_close_semantics_sends_afterwards"),
    Mutation(36, "control/verdict.py", "    100: _REFRESH,", "    100: _RETRY,",
             "test_answers: test_metadata_triggers and 100"),
    Mutation(38, "_pure/io_loop.py", "self._core.acknowledge(batch, -1, -1)", "self._core.acknowledge(batch, 0, -1)",
             "test_answers: test_acks0"),
    Mutation(39, "_pure/io_loop.py", "connection.throttle(now + pause_s, pause_s)", "pass",
             "test_answers: test_throttle"),
    Mutation(40, "_pure/io_loop.py", "        if now >= connection.next_deadline():", "        if False:",
             "test_answers: test_request_timeout"),
    Mutation(45, "_pure/partition.py", "return head if span < layout.BATCHES_REMEMBERED else None", "return head",
             "test_in_flight: test_five_in_flight_and_those_acknowledged_meanwhile"),
    Mutation(47, "control/verdict.py", "renumber = _meets_other_state(facts) if", "renumber = True if",
             "test_in_flight: test_out_of_order_responses and 45"),
    Mutation(50, "control/verdict.py", "renumber = _meets_other_state(facts) if", "renumber = False if",
             "test_epochs: test_bump_on_45_next_batch"),
    Mutation(53, "_pure/partition.py", "            self.unresolved = batch.next_sequence\n", "            pass\n",
             "test_expiry: test_all_expired_bumps"),
    Mutation(54, "_pure/partition.py", "        if batch.stamped:\n            self.broken = True",
             "        self.broken = True", "test_expiry: test_unsent_expiry_no_gap"),
    Mutation(55, "_pure/partition.py", "            self.unresolved = batch.next_sequence\n", "            pass\n",
             "test_expiry: test_retry_exhaustion_marks_unresolved"),
    Mutation(57, "control/verdict.py", "known = facts.log_start_offset != -1", "known = True",
             "test_in_flight: test_unknown_producer_id_cases_the_broker_does_not_know"),
]  # fmt: skip

NATIVE: list[Mutation] = [
    Mutation(2, "_native/accumulator.pxi",
             "delta = <int64_t>(<uint64_t>record.timestamp - <uint64_t>batch.base_timestamp)",
             "delta = max(<int64_t>(<uint64_t>record.timestamp - <uint64_t>batch.base_timestamp), <int64_t>0)",
             "test_batches: test_ts_delta_negative"),
    Mutation(4, "_native/record_batch.pxi", "if self.records and BATCH_HEADER + at", "if BATCH_HEADER + at",
             "test_batches: test_room_for_first_oversized_only"),
    Mutation(12, "_native/accumulator.pxi", "produced >= 2 * topic.quantum", "produced >= topic.quantum",
             "test_partitions: test_sticky_switch"),
    Mutation(14, "_native/accumulator.pxi", "total += longest + 1 - topic.partitions", "total += 1 + topic.partitions",
             "test_partitions: test_adaptive_weights and not uniform"),
    Mutation(15, "_native/accumulator.pxi", "        if topic.partitions[i].leader.load(memory_order_relaxed) >= 0:",
             "        if True:", "test_partitions: test_unavailable_excluded and not stalled"),
    Mutation(16, "_native/outbox.pxi", "core.closing.load() or core.memory_waiters.load()",
             "core.closing.load()", "test_readiness: test_ready_exhausted"),
    Mutation(16, "_native/outbox.pxi", "or batch.flush_epoch <= core.flush_target.load()):", "or False):",
             "test_readiness: test_ready_flush"),
    Mutation(18, "_native/io_loop.pxi", "            outbox.rotate = at\n            return\n",
             "            return\n", "test_drain: test_drain_rotation"),
]  # fmt: skip

ALL = PURE + NATIVE
