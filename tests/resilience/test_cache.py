"""One fetch for all who want an answer, and an old answer rather than an outage."""

import asyncio
import copy
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.clock import SystemClock
from holdfast.errors import (
    CallFailed,
    CircuitOpen,
    CredentialRefused,
    Mismatch,
    NotSent,
    OutcomeUnknown,
    Refused,
    Rejected,
    Throttled,
)
from holdfast.resilience.cache import LANDING, SHARED_PAUSE, Answer, AnswerCache, SharedAnswer
from holdfast.resilience.context import deadline_scope, remaining, retry_scope
from holdfast.resilience.policy import Cache
from holdfast.testing.clock import ManualClock

STALE = Cache(60, stale=600)


class Vendor:
    """Answers when told to, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = self.running = self.cancelled = 0
        self.answers: list[asyncio.Future[str]] = []

    async def fetch(self) -> str:
        self.asked += 1
        self.running += 1
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    def says(self, text: str) -> None:
        self.answers[-1].set_result(text)

    def fails(self, error: BaseException) -> None:
        self.answers[-1].set_exception(error)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


def saying(text: str) -> Callable[[], Awaitable[str]]:
    async def fetch() -> str:
        return text

    return fetch


def failing(error: BaseException) -> Callable[[], Awaitable[str]]:
    async def fetch() -> str:
        raise error

    return fetch


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def ask(
    cache: AnswerCache[str], clock: ManualClock, fetch: Callable[[], Awaitable[str]], within: float | None = None
) -> Answer[str]:
    with deadline_scope(within, clock):
        return await cache.get("chf", fetch)


# What is kept.


async def test_a_fresh_answer_is_given_until_its_ttl_is_over(clock: ManualClock) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    assert cache.fresh("chf", clock.monotonic()) is None

    first = await cache.get("chf", saying("0.9"))
    await clock.advance(59.9)
    again = await cache.get("chf", saying("1.0"))
    await clock.advance(0.1)

    assert (again is first, again.value, again.stale, again.age(clock.monotonic())) == (True, "0.9", False, 60)
    assert cache.fresh("chf", clock.monotonic()) is None
    assert (await cache.get("chf", saying("1.0"))).value == "1.0"


async def test_what_was_not_used_for_longest_goes_first(clock: ManualClock) -> None:
    cache = AnswerCache[str](Cache(60, max_entries=2), clock=clock)
    await cache.get("a", saying("a"))
    await cache.get("b", saying("b"))

    cache.fresh("a", 0)
    await cache.get("c", saying("c"))

    assert [cache.fresh(key, 0) is not None for key in "abc"] == [True, False, True]
    assert cache.snapshot().entries == 2


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 4)), max_size=60))
@settings(deadline=None)
def test_it_holds_what_a_list_ordered_by_use_would_hold(size: int, calls: list[tuple[str, float]]) -> None:
    clock = ManualClock()
    cache = AnswerCache[str](Cache(5, max_entries=size), clock=clock)
    model: list[tuple[str, float]] = []

    for key, pause in calls:
        clock.pause(pause)
        now = clock.monotonic()
        known = next((since for name, since in model if name == key and now - since < 5), None)
        model = [entry for entry in model if entry[0] != key]
        model = [*model, (key, now if known is None else known)][-size:]

        answer = cache.get_sync(key, lambda: "new")

        assert answer.since == (now if known is None else known)
        assert cache.snapshot().entries == len(model)


async def test_counts_say_what_happened(clock: ManualClock) -> None:
    cache = AnswerCache[str](STALE, clock=clock)
    await cache.get("a", saying("a"))
    cache.fresh("a", 0)
    await cache.get("a", saying("a"))
    await clock.advance(60)
    await cache.get("a", failing(Throttled("slow down")))

    counts = cache.snapshot()

    assert (counts.hits, counts.misses, counts.stale, counts.shared, counts.entries) == (2, 2, 1, 0, 1)


# One flight.


async def test_two_hundred_callers_who_miss_make_one_fetch(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    callers = [asyncio.create_task(cache.get("chf", vendor.fetch)) for _ in range(200)]
    await settle()

    vendor.says("0.9")
    answers = await asyncio.gather(*callers)

    assert vendor.asked == 1
    assert len({id(answer) for answer in answers}) == 1


async def test_keys_fly_apart(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    callers = [asyncio.create_task(cache.get(key, vendor.fetch)) for key in ("chf", "eur")]
    await settle()

    for answer in vendor.answers:
        answer.set_result("1")
    await asyncio.gather(*callers)

    assert vendor.asked == 2


async def test_the_first_to_ask_may_go_and_the_others_get_the_answer(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    first, second = (asyncio.create_task(cache.get("chf", vendor.fetch)) for _ in range(2))
    await settle()

    first.cancel()
    await settle()
    vendor.says("0.9")

    assert (await second).value == "0.9"
    assert first.cancelled()
    assert (vendor.asked, vendor.cancelled) == (1, 0)


async def test_when_all_have_gone_the_fetch_is_cancelled(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    callers = [asyncio.create_task(cache.get("chf", vendor.fetch)) for _ in range(3)]
    await settle()

    for caller in callers:
        assert vendor.cancelled == 0
        caller.cancel()
        await settle()

    assert (vendor.cancelled, vendor.running) == (1, 0)
    late = asyncio.create_task(cache.get("chf", vendor.fetch))
    await settle()
    vendor.says("0.9")
    assert (await late).value == "0.9"


async def test_a_flight_cancelled_before_it_began_leaves_nothing(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    caller = asyncio.create_task(cache.get("chf", vendor.fetch))
    await asyncio.sleep(0)  # it has asked, and its flight has not run yet

    await cache.aclose()

    assert vendor.asked == 0
    with pytest.raises(OutcomeUnknown):
        await caller
    assert (await cache.get("chf", saying("0.9"))).value == "0.9"


async def test_whoever_comes_while_a_fetch_is_being_cancelled_gets_another(clock: ManualClock) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await leave.wait()
        return "too late"  # and it does not even end as cancelled

    leave = asyncio.Event()
    cache = AnswerCache[str](Cache(60), clock=clock)
    gone = asyncio.create_task(cache.get("chf", stubborn))
    await settle()
    gone.cancel()
    await settle()

    answer = await cache.get("chf", saying("0.9"))
    leave.set()
    await settle()

    assert answer.value == "0.9"
    assert cache.fresh("chf", clock.monotonic()) is answer


@given(st.lists(st.tuples(st.sampled_from(["join", "cancel", "answer", "fail"]), st.integers(0, 9)), max_size=40))
@settings(deadline=None)
def test_never_two_fetches_at_once_and_nobody_is_forgotten(steps: list[tuple[str, int]]) -> None:
    async def story() -> None:
        clock, vendor = ManualClock(), Vendor()
        cache = AnswerCache[str](Cache(60), clock=clock)
        callers: list[asyncio.Task[Answer[str]]] = []
        for step, number in steps:
            waiting = [caller for caller in callers if not caller.done()]
            if step == "join":
                callers.append(asyncio.create_task(cache.get("chf", vendor.fetch)))
            elif step == "cancel" and waiting:
                waiting[number % len(waiting)].cancel()
            elif step == "answer" and vendor.running:
                vendor.says("0.9")
            elif step == "fail" and vendor.running:
                vendor.fails(Refused("come back"))
            await settle()
            assert vendor.running == (1 if any(not caller.done() for caller in callers) else 0)
        await cache.aclose()
        await asyncio.gather(*callers, return_exceptions=True)
        assert vendor.running == 0
        assert not cache._tasks
        assert not cache._flights

    asyncio.run(story())


async def test_the_fetch_runs_under_a_fresh_context(clock: ManualClock) -> None:
    user = ContextVar("user", default="nobody")
    seen: list[object] = []

    async def fetch() -> str:
        with retry_scope() as outermost:
            seen.extend([user.get(), outermost])
        return ""

    user.set("ann")
    with retry_scope():
        await AnswerCache[str](Cache(60), clock=clock).get("chf", fetch)

    assert seen == ["nobody", True]


async def test_closing_cancels_what_is_under_way_and_tells_who_waits(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    caller = asyncio.create_task(cache.get("chf", vendor.fetch))
    await settle()

    await cache.aclose()
    await cache.aclose()

    assert vendor.running == 0
    with pytest.raises(OutcomeUnknown) as caught:
        await caller
    assert caught.value.reason == "cancelled"


async def test_a_fetch_that_cancels_itself_does_not_cancel_who_waits(clock: ManualClock) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)

    with pytest.raises(OutcomeUnknown, match="cancelled"):
        await cache.get("chf", failing(asyncio.CancelledError()))


def test_another_loop_flies_its_own_and_finds_the_same_answers(clock: ManualClock) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)

    first = asyncio.run(cache.get("chf", saying("0.9")))
    second = asyncio.run(cache.get("chf", saying("1.0")))

    assert second is first


def test_a_loop_that_ended_amid_a_flight_leaves_nothing_behind(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)

    async def give_up() -> None:
        caller = asyncio.create_task(cache.get("chf", vendor.fetch))
        await settle()
        assert not caller.done()

    asyncio.run(give_up())

    assert (vendor.cancelled, cache._flights, cache._tasks) == (1, {}, set())


# Nested.


async def test_a_fetch_that_asks_for_its_own_answer_does_not_wait_for_itself(clock: ManualClock) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)

    async def outer() -> str:
        return "outer of " + (await cache.get("chf", saying("inner"))).value

    async with asyncio.timeout(30):
        assert (await cache.get("chf", outer)).value == "outer of inner"


async def test_a_subtask_of_a_fetch_does_not_wait_for_that_fetch(clock: ManualClock) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)

    async def outer() -> str:
        async with asyncio.TaskGroup() as group:
            inner = group.create_task(cache.get("chf", saying("inner")))
        return inner.result().value

    async with asyncio.timeout(30):
        assert (await cache.get("chf", outer)).value == "inner"


async def test_two_fetches_that_need_each_other_do_not_wait_for_ever(clock: ManualClock) -> None:
    rates, fees = AnswerCache[str](Cache(60), clock=clock), AnswerCache[str](Cache(60), clock=clock)

    async def rate() -> str:
        await asyncio.sleep(0)
        return "rate with " + (await fees.get("fee", saying("plain fee"))).value

    async def fee() -> str:
        await asyncio.sleep(0)
        return "fee with " + (await rates.get("rate", saying("plain rate"))).value

    async with asyncio.timeout(30):
        answers = await asyncio.gather(rates.get("rate", rate), fees.get("fee", fee))

    assert [answer.value for answer in answers] == ["rate with fee with plain rate", "fee with plain rate"]


# Deadlines.


async def test_each_waits_as_long_as_its_own_deadline_allows(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    long = asyncio.create_task(ask(cache, clock, vendor.fetch, within=10))
    await settle()
    short = asyncio.create_task(ask(cache, clock, vendor.fetch, within=1))

    await clock.advance(1)
    assert short.done()
    assert not long.done()
    vendor.says("0.9")

    with pytest.raises(OutcomeUnknown) as caught:
        await short
    assert caught.value.reason == "timeout"
    assert (await long).value == "0.9"
    assert vendor.asked == 1


async def test_a_fetch_knows_the_deadline_it_has(clock: ManualClock) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    seen: list[float] = []

    async def fetch() -> str:
        seen.append(remaining(clock))
        return ""

    await ask(cache, clock, fetch, within=10)
    cache.forget()
    await ask(cache, clock, fetch)

    assert seen == [10, float("inf")]


async def test_a_fetch_that_keeps_its_deadline_says_itself_how_it_ended(clock: ManualClock) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)

    async def fetch() -> str:
        try:
            async with clock.timeout(remaining(clock)):
                await clock.sleep(100)
        except TimeoutError as error:
            raise OutcomeUnknown("rates: no answer after 3 s", provider="rates", hard=True) from error
        return ""

    caller = asyncio.create_task(ask(cache, clock, fetch, within=3))
    await clock.advance(3)

    with pytest.raises(OutcomeUnknown, match="rates: no answer after 3 s"):
        await caller


async def test_a_fetch_that_does_not_is_cancelled(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    caller = asyncio.create_task(ask(cache, clock, vendor.fetch, within=3))

    await clock.advance(3 + LANDING)

    assert vendor.cancelled == 1
    with pytest.raises(OutcomeUnknown, match="within the deadline"):
        await caller


async def test_who_has_time_left_asks_again_when_the_deadline_of_the_first_is_over(
    clock: ManualClock, vendor: Vendor
) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    deadlines = [1.0, 5.0, 9.0, 5.0]
    callers = []
    for within in deadlines:
        callers.append(asyncio.create_task(ask(cache, clock, vendor.fetch, within)))
        await settle()

    await clock.advance(1 + LANDING)
    assert vendor.asked == 2
    await clock.advance(6)  # those of 5 are gone, that of 9 is not: it was the longest the second fetch began for
    vendor.says("0.9")

    assert (await callers[2]).value == "0.9"
    assert vendor.asked == 2
    for caller in (callers[0], callers[1], callers[3]):
        with pytest.raises(OutcomeUnknown):
            await caller


async def test_a_failure_before_the_deadline_is_not_asked_again(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    short = asyncio.create_task(ask(cache, clock, vendor.fetch, within=1))
    await settle()
    long = asyncio.create_task(ask(cache, clock, vendor.fetch, within=9))
    await settle()

    vendor.fails(Refused("come back"))
    results = await asyncio.gather(short, long, return_exceptions=True)

    assert [type(result) for result in results] == [Refused, Refused]
    assert vendor.asked == 1


async def test_a_failure_at_the_last_moment_is_the_end_for_whoever_has_no_more_time(
    clock: ManualClock, vendor: Vendor
) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    caller = asyncio.create_task(ask(cache, clock, vendor.fetch, within=1))
    await clock.advance(0.99)

    vendor.fails(Refused("come back"))

    with pytest.raises(Refused):
        await caller
    assert vendor.asked == 1


async def test_without_time_left_nothing_is_sent(clock: ManualClock, vendor: Vendor) -> None:
    with pytest.raises(NotSent) as caught:
        await ask(AnswerCache[str](Cache(60), clock=clock), clock, vendor.fetch, within=0)

    assert caught.value.local
    assert vendor.asked == 0


# Failures.


async def test_every_waiter_gets_an_exception_of_its_own(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    original = Refused("come back", provider="rates", retry_after=7)
    original.add_note("tried twice")
    original.__cause__ = OSError("reset")

    async def annotate(number: int) -> Refused:
        try:
            await cache.get("chf", vendor.fetch)
        except Refused as error:
            error.add_note(f"waiter {number}")
            return error
        raise AssertionError

    waiters = [asyncio.create_task(annotate(number)) for number in range(50)]
    await settle()
    vendor.fails(original)
    errors = await asyncio.gather(*waiters)

    assert len({id(error) for error in errors}) == 50
    for number, error in enumerate(errors):
        assert error.__notes__ == ["tried twice", f"waiter {number}"]
        assert (str(error), error.provider, error.retry_after) == ("come back", "rates", 7)
        assert error.__cause__ is original.__cause__
        assert len(frames(error)) == len(frames(errors[0])) < 10
        assert "fetch" in frames(error)


async def test_a_callers_own_exceptions_do_not_share_their_notes(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    original = ValueError("the caller's own")
    original.add_note("first seen here")
    callers = [asyncio.create_task(cache.get("chf", vendor.fetch)) for _ in range(2)]
    await settle()

    vendor.fails(original)
    one, other = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(one, ValueError)
    assert isinstance(other, ValueError)
    one.add_note("only mine")

    assert other.__notes__ == ["first seen here"]


def frames(error: BaseException) -> list[str]:
    names, at = [], error.__traceback__
    while at is not None:
        names.append(at.tb_frame.f_code.co_name)
        at = at.tb_next
    return names


async def test_a_lone_caller_gets_the_very_exception(clock: ManualClock) -> None:
    original = ValueError("the caller's own")

    with pytest.raises(ValueError, match="own") as caught:
        await AnswerCache[str](Cache(60), clock=clock).get("chf", failing(original))

    assert caught.value is original


async def test_an_exception_that_cannot_be_copied_is_shared(clock: ManualClock, vendor: Vendor) -> None:
    class Odd(Exception):
        def __init__(self, *, code: int) -> None:
            super().__init__(f"code {code}")

    cache = AnswerCache[str](Cache(60), clock=clock)
    callers = [asyncio.create_task(cache.get("chf", vendor.fetch)) for _ in range(2)]
    await settle()
    original = Odd(code=1)
    with pytest.raises(TypeError):
        copy.copy(original)

    vendor.fails(original)

    assert await asyncio.gather(*callers, return_exceptions=True) == [original, original]


async def test_a_failure_is_not_kept(clock: ManualClock) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    with pytest.raises(Refused):
        await cache.get("chf", failing(Refused("come back")))

    assert (await cache.get("chf", saying("0.9"))).value == "0.9"


async def test_a_failure_nobody_waits_for_is_not_reported_as_lost(clock: ManualClock, vendor: Vendor) -> None:
    lost: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: lost.append(context))
    cache = AnswerCache[str](Cache(60), clock=clock)
    caller = asyncio.create_task(cache.get("chf", vendor.fetch))
    await settle()

    vendor.fails(Refused("come back"))
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await settle()

    assert lost == []
    assert not cache._tasks


# Old answers.


@pytest.mark.parametrize(
    "error",
    [
        NotSent("no connection"),
        CircuitOpen("open"),
        Throttled("slow down"),
        Refused("come back"),
        OutcomeUnknown("timeout"),
    ],
)
async def test_in_an_outage_an_old_answer_is_given_and_called_old(clock: ManualClock, error: CallFailed) -> None:
    cache = AnswerCache[str](STALE, clock=clock)
    await cache.get("chf", saying("0.9"))
    await clock.advance(61)

    answer = await cache.get("chf", failing(error))

    assert (answer.value, answer.stale, answer.failure) == ("0.9", True, error)
    assert answer.age(clock.monotonic()) == 61
    assert cache.fresh("chf", clock.monotonic()) is None


@pytest.mark.parametrize(
    "error", [Rejected("no"), CredentialRefused("who?"), Mismatch("other"), ValueError("the caller's own")]
)
async def test_an_old_answer_does_not_hide_what_the_vendor_says(clock: ManualClock, error: Exception) -> None:
    cache = AnswerCache[str](STALE, clock=clock)
    await cache.get("chf", saying("0.9"))
    await clock.advance(61)

    with pytest.raises(type(error)):
        await cache.get("chf", failing(error))


async def test_an_answer_that_is_too_old_is_not_given(clock: ManualClock) -> None:
    cache = AnswerCache[str](STALE, clock=clock)
    await cache.get("chf", saying("0.9"))
    await clock.advance(660)

    with pytest.raises(Refused):
        await cache.get("chf", failing(Refused("come back")))


async def test_whoever_is_out_of_time_takes_the_old_answer(clock: ManualClock, vendor: Vendor) -> None:
    cache = AnswerCache[str](STALE, clock=clock)
    await cache.get("chf", saying("0.9"))
    await clock.advance(60)
    caller = asyncio.create_task(ask(cache, clock, vendor.fetch, within=1))

    await clock.advance(2)

    assert ((await caller).value, (await caller).stale) == ("0.9", True)


async def test_what_was_forgotten_is_not_given_again(clock: ManualClock) -> None:
    cache = AnswerCache[str](STALE, clock=clock)
    for key in "ab":
        await cache.get(key, saying(key))

    cache.forget("a")
    assert cache.fresh("a", 0) is None
    assert cache.fresh("b", 0) is not None
    with pytest.raises(Refused):
        await cache.get("a", failing(Refused("come back")))

    cache.forget()
    assert cache.snapshot().entries == 0


@pytest.mark.parametrize("key", ["chf", None])
async def test_what_was_asked_before_it_was_forgotten_is_not_kept(
    clock: ManualClock, vendor: Vendor, key: str | None
) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    early = asyncio.create_task(cache.get("chf", vendor.fetch))
    await settle()

    cache.forget(key)
    late = asyncio.create_task(cache.get("chf", vendor.fetch))
    await settle()
    for answer, text in zip(vendor.answers, ("before", "after"), strict=True):
        answer.set_result(text)
    answers = [(await caller).value for caller in (early, late)]

    assert answers == ["before", "after"]
    kept = cache.fresh("chf", 0)
    assert kept is not None
    assert kept.value == "after"


# Other processes.


class Board:
    """What several processes see; it can be down, slow, or in the way."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.kept: dict[str, tuple[bytes, float, float]] = {}
        self.asked = 0
        self.down: Exception | None = None
        self.slow = self.slow_to_keep = 0.0

    def encode(self, answer: str, /) -> bytes:
        return answer.encode("ascii")

    def decode(self, data: bytes, /) -> str:
        return data.decode("ascii")

    async def get(self, key: str, /) -> SharedAnswer | None:
        await self._suffer()
        if key not in self.kept:
            return None
        data, since, _ = self.kept[key]
        return SharedAnswer(data, self.clock.monotonic() - since)

    async def put(self, key: str, data: bytes, /, *, ttl: float) -> None:
        await self._suffer()
        await self.clock.sleep(self.slow_to_keep)
        self.kept[key] = data, self.clock.monotonic(), ttl

    async def _suffer(self) -> None:
        self.asked += 1
        await self.clock.sleep(self.slow)
        if self.down:
            raise self.down


@pytest.fixture
def board(clock: ManualClock) -> Board:
    return Board(clock)


def process(clock: ManualClock, board: Board, options: Cache = STALE) -> AnswerCache[str]:
    return AnswerCache[str](options, clock=clock, shared=board)


async def test_what_one_process_fetched_the_other_has(clock: ManualClock, board: Board, vendor: Vendor) -> None:
    ours, theirs = process(clock, board), process(clock, board)
    await theirs.get(("rate", "chf", 1), saying("0.9"))
    await settle()
    await clock.advance(50)

    answer = await ours.get(("rate", "chf", 1), vendor.fetch)

    assert (answer.value, answer.stale, answer.age(clock.monotonic())) == ("0.9", False, 50)
    assert vendor.asked == 0
    assert ours.snapshot().shared == 1
    assert [ttl for *_, ttl in board.kept.values()] == [660]
    await clock.advance(10)  # its age counts from their fetch, not from when we heard of it
    assert ours.fresh(("rate", "chf", 1), clock.monotonic()) is None


async def test_an_old_answer_of_another_process_bridges_an_outage(clock: ManualClock, board: Board) -> None:
    await process(clock, board).get("chf", saying("0.9"))
    await settle()
    await clock.advance(100)

    answer = await process(clock, board).get("chf", failing(Refused("come back")))

    assert (answer.value, answer.stale, answer.age(clock.monotonic())) == ("0.9", True, 100)


async def test_of_two_old_answers_the_newer_is_given(clock: ManualClock, board: Board) -> None:
    await process(clock, board).get("chf", saying("theirs"))
    await settle()
    await clock.advance(1)
    ours = process(clock, board)
    board.down = ConnectionError()
    await ours.get("chf", saying("ours"))
    board.down = None
    await clock.advance(60)

    answer = await ours.get("chf", failing(Refused("come back")))

    assert (answer.value, answer.stale) == ("ours", True)


@pytest.mark.parametrize("options", [Cache(10, stale=10), STALE])
async def test_what_others_know_is_asked_only_if_it_could_help(
    clock: ManualClock, board: Board, options: Cache
) -> None:
    await process(clock, board).get("chf", saying("theirs"))
    await settle()
    await clock.advance(60)
    ours = process(clock, board, options)

    assert (await ours.get("chf", saying("ours"))).value == "ours"


async def test_a_shared_store_that_is_down_is_left_alone_for_a_while(
    clock: ManualClock, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    board.down = ConnectionError("redis://:hunter2@cache")
    cache = process(clock, board)

    with caplog.at_level(logging.WARNING, "holdfast.cache"):
        answers = [(await cache.get(key, saying(key))).value for key in "abc"]
    await settle()
    assert (answers, board.asked) == (["a", "b", "c"], 1)
    assert "ConnectionError" in caplog.text
    assert "hunter2" not in caplog.text

    await clock.advance(SHARED_PAUSE)
    board.down = None
    await cache.get("d", saying("d"))
    await settle()
    assert "'d'" in board.kept


async def test_a_slow_shared_store_costs_a_tenth_of_a_second_once(clock: ManualClock, board: Board) -> None:
    board.slow = 30
    cache = process(clock, board)
    caller = asyncio.create_task(cache.get("a", saying("a")))
    await clock.advance(0.05)
    assert not caller.done()

    await clock.advance(0.05)

    assert caller.done()
    assert (await caller).value == "a"
    assert (await cache.get("b", saying("b"))).value == "b"
    assert board.asked == 1


async def test_who_asked_does_not_wait_until_the_answer_is_shared(clock: ManualClock, board: Board) -> None:
    board.slow_to_keep = 0.05
    cache = process(clock, board)

    assert (await cache.get("a", saying("a"))).value == "a"
    assert board.kept == {}
    await clock.advance(0.05)

    assert list(board.kept) == ["'a'"]


async def test_an_answer_on_its_way_to_others_does_not_outlive_the_cache(clock: ManualClock, board: Board) -> None:
    board.slow_to_keep = 0.05
    cache = process(clock, board)
    await cache.get("a", saying("a"))

    await cache.aclose()
    await clock.advance(1)

    assert board.kept == {}


async def test_what_does_not_decode_is_ignored(clock: ManualClock, board: Board) -> None:
    board.kept["'chf'"] = b"\xff", 0, 660
    cache = process(clock, board)

    assert (await cache.get("chf", saying("0.9"))).value == "0.9"
    await settle()
    assert board.kept["'chf'"][0] == b"0.9"


async def test_what_does_not_encode_is_not_shared(clock: ManualClock, board: Board) -> None:
    cache = process(clock, board)

    assert (await cache.get("chf", saying("€"))).value == "€"
    await settle()

    assert board.kept == {}
    await cache.get("usd", saying("1"))
    await settle()
    assert list(board.kept) == ["'usd'"]


@dataclass(frozen=True)
class Pair:
    base: str
    quote: str


@pytest.mark.parametrize(
    ("key", "shared"),
    [
        (("rate", "chf", 1, True, None, b"x", Decimal("1.0")), True),
        (("a", ("b",)), True),
        ((), True),
        (Pair("btc", "chf"), False),
        (("rate", Pair("btc", "chf")), False),
        (("rate", object()), False),
    ],
)
async def test_only_keys_of_plain_values_are_shared(
    clock: ManualClock, board: Board, key: object, shared: bool
) -> None:
    assert (await process(clock, board).get(key, saying("1"))).value == "1"
    await settle()

    assert bool(board.kept) is shared


async def test_different_keys_are_shared_under_different_names(clock: ManualClock, board: Board) -> None:
    keys = [("a", "b"), ("a,b",), ("a", ("b",)), ("a','b",), "a", b"a", ("a",), "('a')", 1, "1", True, None, "None"]
    for key in keys:
        cache = process(clock, board)
        await cache.get(key, saying("1"))
        await settle()

    assert len(board.kept) == len(keys)


@pytest.mark.parametrize("key", ["chf", None])
async def test_what_was_forgotten_does_not_come_back_from_others(
    clock: ManualClock, board: Board, key: str | None
) -> None:
    cache = process(clock, board)
    await cache.get("chf", saying("old"))
    await settle()
    await clock.advance(1)

    cache.forget(key)

    assert (await cache.get("chf", saying("new"))).value == "new"
    await settle()
    assert board.kept["'chf'"][0] == b"new"


async def test_many_forgotten_keys_take_no_more_room_than_answers(clock: ManualClock, board: Board) -> None:
    cache = process(clock, board, Cache(60, max_entries=3))
    for number in range(10):
        await process(clock, board).get(number, saying("old"))
    await settle()
    await clock.advance(1)

    for number in range(10):
        cache.forget(number)

    assert len(cache._forgotten) <= 3
    assert [(await cache.get(number, saying("new"))).value for number in range(10)] == ["new"] * 10


# Threads.


def test_threads_that_miss_make_one_fetch() -> None:
    cache = AnswerCache[str](Cache(60), clock=SystemClock())
    asked, started, answer = [], threading.Event(), threading.Event()

    def fetch() -> str:
        asked.append(1)
        started.set()
        answer.wait(30)
        return "0.9"

    with ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(cache.get_sync, "chf", fetch)]
        started.wait(30)
        callers += [pool.submit(cache.get_sync, "chf", fetch) for _ in range(7)]
        answer.set()
        answers = {id(caller.result(30)) for caller in callers}

    assert (len(asked), len(answers)) == (1, 1)


def test_threads_get_a_failure_each_and_the_old_answer_if_there_is_one(clock: ManualClock) -> None:
    cache = AnswerCache[str](STALE, clock=clock)

    def fail() -> str:
        raise Refused("come back")

    with pytest.raises(Refused):
        cache.get_sync("chf", fail)
    cache.get_sync("chf", lambda: "0.9")
    clock.pause(61)

    answer = cache.get_sync("chf", fail)

    assert (answer.value, answer.stale) == ("0.9", True)


def following(cache: AnswerCache[str], key: str) -> threading.Event:
    """Set when a second thread waits for the flight of the first."""
    flight = cache._thread_flights[key]
    waits, wait = threading.Event(), flight.over.wait

    def seen(timeout: float | None = None) -> bool:
        waits.set()
        return wait(timeout)

    flight.over.wait = seen  # type: ignore[method-assign]  # the only way to know that somebody waits
    return waits


@pytest.mark.parametrize("killed", [False, True])
def test_a_thread_that_waits_gets_a_copy_of_a_failure_and_outlives_a_killed_one(killed: bool) -> None:
    cache = AnswerCache[str](Cache(60), clock=SystemClock())
    started, end = threading.Event(), threading.Event()
    original: BaseException = SystemExit() if killed else Refused("come back")

    def fetch() -> str:
        started.set()
        end.wait(30)
        raise original

    def result(fetch: Callable[[], str]) -> object:
        try:
            return cache.get_sync("chf", fetch).value
        except BaseException as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(result, fetch)
        started.wait(30)
        waits = following(cache, "chf")
        second = pool.submit(result, lambda: "0.9")
        waits.wait(30)
        end.set()
        mine, theirs = first.result(30), second.result(30)

    assert mine is original
    assert theirs == "0.9" if killed else (type(theirs) is Refused and theirs is not original)


def test_a_thread_out_of_time_stops_waiting(clock: ManualClock) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)
    started, end = threading.Event(), threading.Event()

    def fetch() -> str:
        started.set()
        end.wait(30)
        return "0.9"

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.get_sync, "chf", fetch)
        started.wait(30)
        with deadline_scope(5, clock), pytest.raises(OutcomeUnknown) as caught:
            cache.get_sync("chf", lambda: "never asked")
        end.set()

        assert first.result(30).value == "0.9"
    assert (caught.value.reason, clock.monotonic()) == ("timeout", 5)


def test_a_thread_that_asks_for_what_it_is_fetching_does_not_wait_for_itself(clock: ManualClock) -> None:
    cache = AnswerCache[str](Cache(60), clock=clock)

    answer = cache.get_sync("chf", lambda: "outer of " + cache.get_sync("chf", lambda: "inner").value)

    assert answer.value == "outer of inner"


def test_two_threads_that_need_each_other_do_not_wait_for_ever() -> None:
    cache = AnswerCache[str](Cache(60), clock=SystemClock())
    both = threading.Barrier(2)

    def fetch(other: str) -> str:
        both.wait(30)
        return "with " + cache.get_sync(other, lambda: "plain").value

    with ThreadPoolExecutor(2) as pool:
        callers = [pool.submit(cache.get_sync, key, partial(fetch, other)) for key, other in ("ab", "ba")]
        values = [caller.result(30).value for caller in callers]

    assert all(value.endswith("with plain") for value in values)
