"""The machine that looks for the failing history: what it tries, what it finds, and what it says."""

import asyncio
import os
import random
import secrets
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.shop_under_test import test_an_order_is_paid_and_confirmed_once as shop_over_holdfast
from holdfast.testing.explore import (
    CallFails,
    Crash,
    History,
    HistoryHangs,
    Limits,
    Progress,
    WebhookComes,
    explore,
    replay,
)
from holdfast.testing.explore.history import HOWS, KINDS
from holdfast.testing.explore.running import Parts
from holdfast.testing.vendors import Fakes
from holdfast.testing.virtual_clock import VirtualClock
from holdfast.testing.world import World
from tests.testing.planted_shop import an_order_is_charged_and_shipped_once

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ROOT = Path(__file__).parents[2]


class Worlds:
    """Makes worlds and keeps them."""

    def __init__(self) -> None:
        self.made: list[World] = []

    def __call__(self, history: History) -> Parts:
        self.made.append(World(seed=history.seed, history=history))
        return self.made[-1]

    @property
    def histories(self) -> list[str]:
        return [str(world.history) for world in self.made]

    @property
    def traces(self) -> list[object]:
        """Every byte that went to a vendor, and every byte that came from one."""
        return [
            (
                [
                    (vendor, one.method, one.target, one.headers, one.body)
                    for vendor, simulator in world.fakes.simulators.items()
                    for one in simulator.requests
                ],
                [(one.webhook.body, one.manner, one.status, one.at) for one in world.webhooks.sent],
            )
            for world in self.made
        ]


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def charge_something(world: World) -> httpx.Response:
    headers = {"authorization": f"Bearer {world.fakes.stripe().api_key}"}
    data = {"amount": "100", "currency": "chf"}
    return await world.fakes.client("stripe").post("/v1/payment_intents", data=data, headers=headers)


async def the_shop_holds(world: World) -> None:
    await an_order_is_charged_and_shipped_once(world)


# What it tries


def test_every_single_step_is_tried() -> None:
    worlds = Worlds()

    assert explore(the_shop_holds, histories=150, world=worlds) is None

    first = replay(the_shop_holds, "")
    tried = set(worlds.histories)
    assert {str(Crash(at)) for at in range(len(first.places))} <= tried
    assert {
        str(CallFails(call.vendor, call.operation, call.index, kind)) for call in first.calls for kind in KINDS
    } <= tried
    assert {str(WebhookComes(number, how)) for number in range(first.webhooks) for how in HOWS} <= tried
    assert first.webhooks == 3


def test_the_first_history_has_no_step_and_none_is_tried_twice() -> None:
    worlds = Worlds()

    explore(the_shop_holds, histories=200, world=worlds)

    assert worlds.histories[0] == ""
    assert len({frozenset(line.split()) for line in worlds.histories}) == 200


def test_when_everything_was_tried_it_ends() -> None:
    worlds = Worlds()

    async def test(world: World) -> None:
        await world.crashes.run(lambda: turns(1))

    assert explore(test, histories=500, world=worlds) is None
    assert worlds.histories == [" ".join(f"crash@{at}" for at in range(steps)) for steps in range(5)]


def test_a_bug_behind_two_crashes_is_found() -> None:
    async def test(world: World) -> None:
        runs = 0

        async def program() -> None:
            nonlocal runs
            runs += 1
            await turns(20)
            if runs == 2:
                await turns(1)  # this place exists only after a crash
                runs = 0

        await world.crashes.run(program)
        assert runs in (0, 1), "it was begun three times"

    found = explore(test, seed=7)

    assert found is not None
    assert len(found.history.steps) == 2
    assert all(isinstance(step, Crash) for step in found.history.steps)


def test_a_bug_behind_a_crash_a_fault_and_a_webhook_is_found() -> None:
    async def test(world: World) -> None:
        stripe = world.fakes.stripe()
        stripe.webhook_url = "https://shop.example/hooks"
        runs, failures, heard = 0, 0, 0

        async def program() -> None:
            nonlocal runs, failures
            runs += 1
            await turns(3)
            charged = False
            while not charged:
                with suppress(httpx.TransportError):
                    charged = (await charge_something(world)).is_success
                failures += not charged

        async def app(_scope: Message, _receive: Receive, send: Send) -> None:
            nonlocal heard
            heard += 1
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        await world.crashes.run(program)
        owed = world.webhooks.owed
        await world.webhooks.to(app, "/hooks").deliver()
        assert not (runs > 1 and failures and heard > owed), "all three in one history"

    found = explore(test, histories=1000, seed=7)

    assert found is not None
    assert sorted(type(step).__name__ for step in found.history.steps) == ["CallFails", "Crash", "WebhookComes"]


def test_a_receiver_is_killed_too_and_its_app_is_made_anew() -> None:
    made: list[int] = []
    statuses: list[int] = []

    async def test(world: World) -> None:
        stripe = world.fakes.stripe()
        stripe.webhook_url = "https://shop.example/hooks"
        await charge_something(world)

        def new_app() -> Callable[[Message, Receive, Send], Awaitable[None]]:
            made.append(len(made))

            async def app(_scope: Message, _receive: Receive, send: Send) -> None:
                await turns(1)
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b""})

            return app

        statuses.extend(sent.status for sent in await world.webhooks.to(new_app, "/hooks").deliver())

    ran = replay(test, "crash@0")

    assert ran.error is None
    assert made == [0, 1]
    assert statuses == [0, 200]


# What it says


def fails_when_killed(at_least: int) -> Callable[[World], Awaitable[None]]:
    """A test that fails when the program is killed at this await or later."""

    async def test(world: World) -> None:
        runs = 0

        async def program() -> None:
            nonlocal runs
            runs += 1
            await turns(50)

        await world.crashes.run(program)
        assert not (world.crashes.struck and max(world.crashes.struck) >= at_least), f"after {runs} runs"

    return test


@pytest.mark.parametrize("at_least", [0, 1, 7, 23, 49])
def test_what_is_found_is_shrunk_to_the_earliest_place(at_least: int) -> None:
    found = explore(fails_when_killed(at_least), seed=3)

    assert found is not None
    assert found.history == History(3, (Crash(at_least),))
    assert found.runs <= 60


def test_steps_that_do_not_matter_are_left_out_and_the_least_harm_is_kept() -> None:
    async def test(world: World) -> None:
        try:
            answer = await charge_something(world)
        except httpx.TransportError:
            return
        assert answer.status_code != 500, "it fell over"

    found = explore(test, seed=1)

    assert found is not None
    assert str(found.history).endswith("#0=status_500")
    assert len(found.history.steps) == 1


def test_the_line_that_is_printed_gives_the_same_failure() -> None:
    async def test(world: World) -> None:
        await an_order_is_charged_and_shipped_once(world, {"retry-unknown"})

    found = explore(test, seed=42)
    assert found is not None
    line = found.line
    steps, seed = line.partition("--holdfast-replay=")[2].strip('"'), int(line.partition("-seed=")[2].split()[0])

    ran = replay(test, steps, seed)

    assert line.startswith("pytest tests/testing/test_explore.py::test ")
    assert ran.error is not None
    assert str(ran.error) == str(found.error)
    assert ran.timeline == found.timeline
    assert ran.struck == set(found.history.steps)


def test_what_is_found_reads_as_a_report() -> None:
    found = explore(fails_when_killed(2), seed=3)

    assert found is not None
    text = str(found)
    assert "with 1 step when shrunk: crash@2" in text
    assert "AssertionError: after 2 runs" in text
    assert "killed at await 2" in text
    assert text.endswith(found.line)
    assert found.repeats


def test_what_does_not_fail_again_is_said_to_be_unsteady() -> None:
    left = [True]

    async def test(world: World) -> None:
        await world.crashes.run(lambda: turns(3))
        assert not (world.crashes.struck and left and left.pop()), "only once"

    found = explore(test)

    assert found is not None
    assert not found.repeats
    assert "it did not fail" in str(found)
    assert "only once" in str(found)


def test_a_failure_without_any_step_is_the_test_s_own() -> None:
    async def test(world: World) -> None:
        await turns(1)
        raise LookupError("broken from the start")

    with pytest.raises(LookupError, match="broken from the start"):
        explore(test)


def test_the_test_takes_a_world_or_its_parts_by_name() -> None:
    given: list[object] = []

    async def test(fakes: Fakes, vclock: VirtualClock) -> None:
        given.extend((fakes, vclock))

    assert replay(test, "").error is None
    assert isinstance(given[0], Fakes)
    assert isinstance(given[1], VirtualClock)


def test_progress_is_told() -> None:
    told: list[Progress] = []

    found = explore(fails_when_killed(9), histories=100, seed=3, progress=told.append)

    assert found is not None
    assert [one.tried for one in told if one.found is None] == list(range(1, found.tried + 1))
    assert {one.histories for one in told} == {100}
    assert told[-1].found == found.history


def test_error_in_another_line_is_another_failure() -> None:
    """Shrinking must not walk from one bug to another."""

    async def test(world: World) -> None:
        await world.crashes.run(lambda: turns(30))
        if world.crashes.struck:
            at = min(world.crashes.struck)
            if at >= 20:
                raise LookupError("late")
            if at >= 10:
                raise LookupError("in the middle")

    kinds: set[str] = set()
    for seed in range(9):
        found = explore(test, seed=seed)
        assert found is not None
        kinds.add(f"{found.error}: {found.history}")

    assert kinds == {"late: crash@20", "in the middle: crash@10"}


# Histories that hang


def test_a_history_that_waits_for_nothing_is_reported() -> None:
    async def test(world: World) -> None:
        lock = asyncio.Lock()

        async def program() -> None:
            async with lock:
                await turns(1)

        await world.crashes.run(program)

    found = explore(test)

    assert found is not None
    assert isinstance(found.error, HistoryHangs)
    assert "more than 30 days" in str(found.error)
    assert str(found.history) == "crash@0"


def test_a_history_that_turns_in_circles_is_reported() -> None:
    async def test(world: World) -> None:
        begun = False

        async def program() -> None:
            nonlocal begun
            while begun:
                await turns(1)
            begun = True
            await turns(2)

        await world.crashes.run(program)

    found = explore(test, limits=Limits(turns=1000))

    assert found is not None
    assert isinstance(found.error, HistoryHangs)
    assert "more than 1000 times" in str(found.error)


# One seed


def test_one_seed_is_one_sequence_of_histories_and_bytes() -> None:
    one, other, another = Worlds(), Worlds(), Worlds()
    explore(the_shop_holds, histories=120, seed=7, world=one)
    explore(the_shop_holds, histories=120, seed=7, world=other)
    explore(the_shop_holds, histories=120, seed=8, world=another)

    assert one.histories == other.histories
    assert one.traces == other.traces
    assert another.histories != one.histories
    assert another.traces[0] != one.traces[0]


def test_one_seed_is_the_same_in_every_process() -> None:
    def digest(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", "from tests.testing.test_explore import digest; print(digest())"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        return done.stdout

    assert digest("1") == digest("2") != ""


def digest() -> str:
    """What happened in some histories of both shops, for another process."""
    by_hand, over_holdfast = Worlds(), Worlds()
    explore(the_shop_holds, histories=40, seed=7, world=by_hand)
    explore(shop_over_holdfast, histories=40, seed=7, world=over_holdfast)
    return repr([(worlds.histories, worlds.traces) for worlds in (by_hand, over_holdfast)])


def test_the_program_s_own_chance_follows_the_seed_and_is_given_back() -> None:
    drawn: list[object] = []

    async def test(world: World) -> None:
        drawn.append(
            (random.random(), uuid.uuid4(), secrets.token_hex(8), os.urandom(4), random.SystemRandom().random())
        )

    before = random.getstate()
    for seed in (7, 7, 8):
        assert replay(test, "", seed).error is None

    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert random.getstate() == before
    assert os.urandom(16) != os.urandom(16)


def test_once_a_history_is_over_no_vendor_is_there_any_more() -> None:
    worlds = Worlds()

    async def test(world: World) -> None:
        async def program() -> None:
            try:
                await turns(2)
            finally:
                await charge_something(world)

        await world.crashes.run(program)

    ran = replay(test, "crash@0", world=worlds)

    assert ran.error is None
    assert len(worlds.made[0].fakes.stripe().requests) == 1  # of the run that was not killed


class Impatient(VirtualClock):
    """Cancels what it runs in the middle, and says what is left of it."""

    def __init__(self, *, times: int) -> None:
        super().__init__()
        self.times = times
        self.left: set[asyncio.Task[Any]] | None = None

    def run(self, main: Callable[[], Coroutine[Any, Any, Any]], **_settings: Any) -> Any:
        async def cancelled() -> None:
            async with asyncio.TaskGroup() as group:
                history = group.create_task(main())
                for _ in range(self.times):
                    await turns(20)
                    history.cancel()
            self.left = asyncio.all_tasks() - {asyncio.current_task()}

        super().run(cancelled)
        raise asyncio.CancelledError


@pytest.mark.parametrize("times", [1, 2])
def test_of_a_history_that_is_cancelled_itself_nothing_is_left_running(times: int) -> None:
    clock, ended = Impatient(times=times), list[str]()

    async def lasting(name: str) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(name)

    async def test(world: World) -> None:
        async def program() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(lasting("a task of the program"))
                await lasting("the program")

        left_behind = asyncio.get_running_loop().create_task(lasting("a task nobody owns"))
        try:
            await world.crashes.run(program)
        finally:
            await asyncio.sleep(60)  # so slow that it is cancelled once more
            left_behind.cancel()

    def world(history: History) -> Parts:
        return World(seed=history.seed, clock=clock, history=history)

    with pytest.raises(asyncio.CancelledError):
        replay(test, "", world=world)

    assert clock.left == set()
    assert sorted(ended) == ["a task nobody owns", "a task of the program", "the program"]


def test_what_the_vendor_had_received_is_done() -> None:
    worlds = Worlds()

    async def test(world: World) -> None:
        runs = 0

        async def program() -> None:
            nonlocal runs
            runs += 1
            if runs == 1:
                await charge_something(world)

        await world.crashes.run(program)

    before, after = (replay(test, f"crash@{at}", world=worlds) for at in (0, 1))

    assert before.struck
    assert after.struck
    assert [len(world.fakes.stripe().requests) for world in worlds.made] == [0, 1]
