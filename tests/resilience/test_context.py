"""What surrounds a call: the deadline, an outer retry, an open transaction."""

import asyncio
from contextvars import Context, copy_context
from math import inf

import pytest

from holdfast.resilience.context import deadline_scope, in_transaction, remaining, retry_scope, transaction
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Policy, Rate
from holdfast.testing.clock import ManualClock


async def test_the_sooner_of_two_deadlines_holds() -> None:
    clock = ManualClock()

    with deadline_scope(10, clock):
        with deadline_scope(3, clock):
            assert remaining(clock) == 3
        with deadline_scope(30, clock):
            assert remaining(clock) == 10
        await clock.advance(4)
        assert remaining(clock) == 6

    assert remaining(clock) == inf


async def test_a_deadline_that_passed_leaves_nothing_and_never_less() -> None:
    clock = ManualClock()

    with deadline_scope(1, clock):
        await clock.advance(5)
        assert remaining(clock) == 0
    with deadline_scope(-5, clock):
        assert remaining(clock) == 0


def test_no_deadline_changes_nothing() -> None:
    clock = ManualClock()

    with deadline_scope(None, clock):
        assert remaining(clock) == inf
    with deadline_scope(2, clock), deadline_scope(None, clock):
        assert remaining(clock) == 2


def test_the_wall_clock_has_no_say_in_deadlines() -> None:
    clock = ManualClock()

    with deadline_scope(10, clock):
        clock.jump(3600)
        assert remaining(clock) == 10


def test_an_error_ends_a_scope_too() -> None:
    clock = ManualClock()

    with pytest.raises(KeyError), deadline_scope(1, clock), retry_scope(), transaction():
        raise KeyError

    assert remaining(clock) == inf
    assert not in_transaction()
    with retry_scope() as may:
        assert may


def test_only_the_outermost_of_those_who_retry_may() -> None:
    with retry_scope() as outer, retry_scope() as inner:
        assert (outer, inner) == (True, False)


def test_who_does_not_retry_takes_it_from_nobody() -> None:
    with retry_scope(False) as outer, retry_scope() as inner, retry_scope() as innermost:
        assert (outer, inner, innermost) == (True, True, False)


def test_who_does_not_retry_does_not_hide_who_does() -> None:
    with retry_scope(), retry_scope(False), retry_scope() as innermost:
        assert not innermost


async def test_tasks_see_what_surrounded_their_start_and_disturb_nobody() -> None:
    clock = ManualClock()

    async def look() -> tuple[float, bool]:
        with deadline_scope(1, clock), transaction():
            await asyncio.sleep(0)
            return remaining(clock), in_transaction()

    with deadline_scope(5, clock):
        looks = [asyncio.create_task(look()) for _ in range(3)]
        assert (remaining(clock), in_transaction()) == (5, False)

        assert [await each for each in looks] == [(1, True)] * 3
        assert (remaining(clock), in_transaction()) == (5, False)


def test_an_empty_context_has_neither_deadline_nor_transaction() -> None:
    clock = ManualClock()

    with deadline_scope(5, clock), transaction():
        assert Context().run(remaining, clock) == inf
        assert not Context().run(in_transaction)


def test_a_scope_may_be_closed_in_another_context() -> None:
    for scope in (transaction(), deadline_scope(5, ManualClock()), retry_scope()):
        opened = copy_context()
        opened.run(scope.__enter__)

        opened.copy().run(scope.__exit__, None, None, None)  # as frameworks do with a request's generators

        assert not opened.run(in_transaction)


async def test_a_task_that_outlives_the_transaction_may_call_again() -> None:
    over = asyncio.Event()

    async def later() -> tuple[bool, bool]:
        during = in_transaction()
        await over.wait()
        return during, in_transaction()

    with transaction():
        task = asyncio.ensure_future(later())
        await asyncio.sleep(0)
    over.set()

    assert await task == (True, False)


async def test_a_forgotten_call_takes_nothing_from_whoever_is_running_when_it_is_collected() -> None:
    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    for forgotten in (Guard("usual").read(never), Guard("careful", Policy(rate=Rate(1, key=str))).read(never)):
        forgotten.send(None)
        with transaction():
            forgotten.close()

            assert in_transaction()
