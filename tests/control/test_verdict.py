"""The verdict table, row by row: producer semantics sections 4, 5.3 and D1."""

from __future__ import annotations

import pytest

from fastprod import errors
from fastprod.control.verdict import Action, BatchFacts, Rules, Verdict, judge

NOW = 1000.0
RULES = Rules(retries=2**31 - 1, delivery_timeout_s=120.0, idempotent=True)
PLAIN = RULES._replace(idempotent=False)


def facts(code: int, **changes: object) -> BatchFacts:
    base = BatchFacts(error_code=code, record_count=3, attempts=1, created=NOW - 1)
    return base._replace(**changes)


RETRY = (2, 7, 14, 15, 16, 19, 20, 51, 75, 89)
REFRESH = (3, 5, 9, 13, 56, 72, 100, 103)
MOVED = (6, 74)
FAIL = (-1, 17, 18, 21, 29, 32, 42, 43, 44, 47, 48, 76, 87, 120, 9999)
FATAL = (31, 35, 49, 53, 90)
MAYBE_WRITTEN = (-1, 3, 5, 6, 7, 9, 13, 20, 56)


@pytest.mark.parametrize("code", RETRY)
def test_retriable_without_refresh(code: int) -> None:
    verdict = judge(facts(code), RULES, NOW)
    assert verdict.action is Action.RETRY
    assert not verdict.refresh
    assert not verdict.hint


@pytest.mark.parametrize("code", REFRESH)
def test_retriable_with_refresh(code: int) -> None:
    verdict = judge(facts(code), RULES, NOW)
    assert (verdict.action, verdict.refresh, verdict.hint) == (Action.RETRY, True, False)


@pytest.mark.parametrize("code", MOVED)
def test_retriable_with_leader_hint(code: int) -> None:
    verdict = judge(facts(code), RULES, NOW)
    assert (verdict.action, verdict.refresh, verdict.hint) == (Action.RETRY, True, True)


@pytest.mark.parametrize("code", FAIL)
def test_not_retriable(code: int) -> None:
    assert judge(facts(code), RULES, NOW).action is Action.FAIL
    assert judge(facts(code), PLAIN, NOW).action is Action.FAIL


@pytest.mark.parametrize("code", FATAL)
def test_fatal_for_an_idempotent_producer_only(code: int) -> None:
    assert judge(facts(code), RULES, NOW).action is Action.FATAL
    assert judge(facts(code), PLAIN, NOW).action is Action.FAIL


@pytest.mark.parametrize("code", [*RETRY, *REFRESH, *MOVED])
def test_retriability_agrees_with_the_error_table(code: int) -> None:
    assert errors.for_code(code).retriable


@pytest.mark.parametrize("code", [*RETRY, *REFRESH, *MOVED, *FAIL, *FATAL, 45, 59])
def test_which_codes_leave_a_batch_unknown(code: int) -> None:
    verdict = judge(facts(code, base_sequence=0), RULES, NOW)
    assert verdict.unknown is (code in MAYBE_WRITTEN)


@pytest.mark.parametrize("code", [7, 13])
def test_a_batch_that_never_reached_a_socket_is_not_in_the_log(code: int) -> None:
    assert not judge(facts(code, reached=False), RULES, NOW).unknown
    assert judge(facts(code, reached=False, unknown=True), RULES, NOW).unknown


def test_an_earlier_unknown_attempt_outlives_a_definite_answer() -> None:
    assert judge(facts(19, unknown=True), RULES, NOW).unknown
    assert judge(facts(29, unknown=True), RULES, NOW) == Verdict(Action.FAIL, unknown=True)


def test_duplicate_is_success_even_after_the_future_ended() -> None:
    assert judge(facts(46), RULES, NOW) == Verdict(Action.SUCCEED)
    assert judge(facts(46, done=True, unknown=True), RULES, NOW) == Verdict(Action.SUCCEED)


class TestTooLarge:
    def test_several_records_are_split(self) -> None:
        assert judge(facts(10), RULES, NOW) == Verdict(Action.SPLIT)
        assert (
            judge(facts(10, attempts=10**6), RULES._replace(retries=0), NOW).action is Action.SPLIT
        )

    def test_one_record_fails(self) -> None:
        assert judge(facts(10, record_count=1), RULES, NOW) == Verdict(Action.FAIL)

    def test_one_that_may_be_in_the_log_is_split_only_where_its_parts_fit(self) -> None:
        """Behind a gap, or before one that is acknowledged, their answers would tell nothing."""
        batch = facts(10, unknown=True, base_sequence=5, last_acked_sequence=4)
        assert judge(batch, RULES, NOW).action is Action.SPLIT
        for elsewhere in (3, 9):
            changed = batch._replace(last_acked_sequence=elsewhere)
            assert judge(changed, RULES, NOW) == Verdict(Action.FAIL, unknown=True)
        assert judge(batch._replace(base_sequence=-1), PLAIN, NOW).action is Action.SPLIT

    def test_a_done_batch_is_never_split(self) -> None:
        assert judge(facts(10, done=True), RULES, NOW).action is Action.FAIL


class TestGates:
    @pytest.mark.parametrize("retries", [0, 1, 3])
    def test_exactly_one_send_more_than_retries(self, retries: int) -> None:
        rules = RULES._replace(retries=retries)
        if retries:
            assert judge(facts(19, attempts=retries), rules, NOW).action is Action.RETRY
        assert judge(facts(19, attempts=retries + 1), rules, NOW).action is Action.FAIL

    def test_delivery_timeout(self) -> None:
        late = judge(facts(19, created=NOW - 120), RULES, NOW)
        assert (late.action, late.expired) == (Action.FAIL, True)
        assert judge(facts(19, created=NOW - 119.9), RULES, NOW).action is Action.RETRY

    def test_a_done_batch_is_only_bookkeeping(self) -> None:
        verdict = judge(facts(6, done=True), RULES, NOW)
        assert (verdict.action, verdict.unknown, verdict.renumber) == (Action.FAIL, True, False)
        assert judge(facts(19, done=True), RULES, NOW) == Verdict(Action.FAIL)

    def test_exhausted_retries_still_ask_for_metadata(self) -> None:
        verdict = judge(facts(6, attempts=5), RULES._replace(retries=3), NOW)
        assert (verdict.action, verdict.refresh, verdict.unknown) == (Action.FAIL, True, True)


class TestRecordErrors:
    @pytest.mark.parametrize("code", [2, 19, 32, 87])
    def test_named_records_are_never_sent_again(self, code: int) -> None:
        assert judge(facts(code, has_record_errors=True), RULES, NOW).action is Action.FAIL


class TestSequences:
    """5.3, rules (a) and (b) of 45, and 59."""

    @pytest.mark.parametrize(
        ("base", "last_acked", "unresolved", "renumber"),
        [
            (10, 4, -1, False),  # (a) behind a hole
            (5, 4, -1, True),  # (b) right after the last ack
            (0, -1, -1, True),  # (b) the very first
            (0, 2**31 - 1, -1, True),  # (b) across the wrap
            (5, 4, 10, False),  # unresolved, and another one is next
            (10, 4, 10, True),  # (b) the unresolved-next: what came before is not in the log
        ],
    )
    def test_out_of_order(
        self, base: int, last_acked: int, unresolved: int, renumber: bool
    ) -> None:
        batch = facts(
            45,
            base_sequence=base,
            last_acked_sequence=last_acked,
            unresolved_sequence=unresolved,
        )
        assert judge(batch, RULES, NOW) == Verdict(Action.RETRY, renumber=renumber)
        # Asked about for the second time: 45 proves that it is not in the log, hence not unknown.
        settled = batch._replace(unknown=True, settled=True)
        assert judge(settled, RULES, NOW) == Verdict(Action.RETRY, renumber=renumber)

    @pytest.mark.parametrize("code", [45, 59])
    def test_what_may_lie_unread_in_a_lost_connection_is_asked_about_again(self, code: int) -> None:
        batch = facts(code, base_sequence=5, last_acked_sequence=4, log_start_offset=0, unknown=True)
        assert judge(batch, RULES, NOW) == Verdict(Action.RETRY, unknown=True, renumber=True)
        assert judge(batch._replace(done=True), RULES, NOW) == Verdict(Action.FAIL, unknown=True)
        assert judge(batch._replace(settled=True), RULES, NOW) == Verdict(Action.RETRY, renumber=True)

    def test_a_broker_that_does_not_know_is_asked_until_it_does(self) -> None:
        batch = facts(59, base_sequence=5, last_acked_sequence=4, log_start_offset=-1, unknown=True)
        assert judge(batch, RULES, NOW) == Verdict(Action.RETRY, unknown=True)

    @pytest.mark.parametrize("unresolved", [-1, 5, 9])
    def test_out_of_order_with_others_behind_it_that_may_be_there(self, unresolved: int) -> None:
        """The broker may remember the last of them alone: nothing is proved yet."""
        batch = facts(45, base_sequence=5, last_acked_sequence=4, unresolved_sequence=unresolved)
        doubted = batch._replace(unknown=True, later_unknown=True)
        for each in (doubted, doubted._replace(settled=True)):
            assert judge(each, RULES, NOW) == Verdict(Action.RETRY, unknown=True, renumber=True)
            assert judge(each._replace(done=True), RULES, NOW) == Verdict(Action.FAIL, unknown=True)
        for ended in (doubted._replace(later_lost=True), batch._replace(unknown=True, later_lost=True)):
            assert judge(ended, RULES, NOW) == Verdict(Action.FAIL, unknown=True), "nobody is left to ask about"
        first_attempt = batch._replace(later_unknown=True, later_lost=True)
        assert judge(first_attempt, RULES, NOW).unknown is False

    def test_out_of_order_behind_one_that_is_there(self) -> None:
        """None is taken out of order, so this one is there, too."""
        batch = facts(45, base_sequence=5, last_acked_sequence=9, unknown=True, overtaken=True)
        assert judge(batch, RULES, NOW) == Verdict(Action.SUCCEED)

    @pytest.mark.parametrize("code", [45, 59])
    def test_a_part_of_one_that_may_be_in_the_log(self, code: int) -> None:
        """The whole may be what is in its place."""
        part = facts(
            code, base_sequence=5, last_acked_sequence=4, log_start_offset=0, unknown=True, split=True
        )
        assert judge(part, RULES, NOW) == Verdict(Action.FAIL, unknown=True)
        early = part._replace(last_acked_sequence=3, log_start_offset=-1)
        assert judge(early, RULES, NOW) == Verdict(Action.RETRY, unknown=True)
        assert judge(part._replace(unknown=False), RULES, NOW).renumber

    def test_out_of_order_without_idempotence_fails(self) -> None:
        assert judge(facts(45), PLAIN, NOW) == Verdict(Action.FAIL)

    def test_exhausted_on_out_of_order_fails_without_a_new_number(self) -> None:
        batch = facts(45, base_sequence=5, last_acked_sequence=4, attempts=4)
        assert judge(batch, RULES._replace(retries=3), NOW) == Verdict(Action.FAIL)

    @pytest.mark.parametrize(("log_start", "renumber"), [(-1, False), (7, True), (0, True)])
    def test_unknown_producer_id(self, log_start: int, renumber: bool) -> None:
        batch = facts(59, base_sequence=5, last_acked_offset=3, log_start_offset=log_start)
        assert judge(batch, RULES, NOW) == Verdict(Action.RETRY, renumber=renumber)
