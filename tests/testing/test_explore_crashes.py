"""Programs that are killed: what they never get to do, and what happens then."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.explore import Crashes, History
from holdfast.testing.journal import Journal


async def turn() -> None:
    await asyncio.sleep(0)


class Crashing(Protocol):
    def __call__(self, line: str = "", journal: Journal | None = None) -> Crashes: ...


@pytest.fixture
def crashing() -> Iterator[Crashing]:
    """Makes what kills programs, and lets go of them afterwards."""
    made: list[Crashes] = []

    def make(line: str = "", journal: Journal | None = None) -> Crashes:
        made.append(Crashes(History.parse(line), journal=journal))
        return made[-1]

    yield make
    for crashes in made:
        crashes.close()


@pytest.mark.parametrize("at", range(4))
async def test_a_killed_program_does_nothing_more_and_is_started_again(at: int) -> None:
    done: list[str] = []

    async def program() -> str:
        try:
            done.append("begin")
            for number in range(4):
                await turn()
                done.append(str(number))
        except BaseException:
            done.append("except")
            raise
        finally:
            done.append("finally")
        return "result"

    result = await Crashes(History.parse(f"crash@{at}")).run(program)

    begun = ["begin", *map(str, range(at))]
    assert done == [*begun, "begin", "0", "1", "2", "3", "finally"]
    assert result == "result"


async def test_awaits_are_counted_over_all_that_the_programs_do(crashing: Crashing) -> None:
    runs = 0

    async def program() -> None:
        nonlocal runs
        runs += 1
        await turn()
        await turn()

    crashes = crashing("crash@1 crash@3 crash@5")
    await crashes.run(program)
    await crashes.run(program)

    assert runs == 5
    assert crashes.struck == {1, 3, 5}


async def test_a_killed_program_leaves_no_async_with(crashing: Crashing) -> None:
    left: list[str] = []

    class Resource:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *error: object) -> None:
            left.append("left")

    async def program() -> None:
        async with Resource():
            await turn()

    await crashing("crash@0").run(program)

    assert left == ["left"]  # by the second run


async def test_all_tasks_of_a_killed_program_stand_still(crashing: Crashing) -> None:
    done: list[str] = []

    async def child(run: int) -> None:
        await turn()
        done.append(f"child of {run}")
        await grandchild(run)

    async def grandchild(run: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(turn())
        done.append(f"grandchild of {run}")

    runs = 0

    async def program() -> None:
        nonlocal runs
        runs += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(child(runs))
            await turn()  # await 0: the program's own

    await crashing("crash@0").run(program)
    await asyncio.gather(*(turn() for _ in range(5)))

    assert done == ["child of 2", "grandchild of 2"]


async def test_a_task_can_be_killed_at_its_own_await_and_takes_the_program_with_it(crashing: Crashing) -> None:
    done: list[str] = []

    async def child() -> None:
        await turn()
        done.append("child")

    async def program() -> None:
        task = asyncio.create_task(child())
        await task
        done.append("program")

    await crashing("crash@1").run(program)  # await 0 is the program's, for its child

    assert done == ["child", "program"]


async def test_neither_timeouts_nor_cancellation_wake_the_dead(crashing: Crashing) -> None:
    done: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def program() -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]  # there is one
        if len(tasks) == 2:
            return
        try:
            async with asyncio.timeout(0):
                await turn()
                await asyncio.sleep(3600)
        except TimeoutError:
            done.append("timeout")
        finally:
            done.append("finally")

    await crashing("crash@0").run(program)
    tasks[0].cancel()
    for _ in range(5):
        await turn()

    assert done == []
    assert not tasks[0].done()


async def test_what_a_killed_program_held_stays_held(crashing: Crashing) -> None:
    lock = asyncio.Lock()

    async def program() -> bool:
        if lock.locked():
            return True
        async with lock:
            await turn()
            return False

    assert await crashing("crash@0").run(program)


async def test_a_crash_can_be_scripted_by_hand_and_is_noted(crashing: Crashing) -> None:
    journal = Journal(ManualClock())
    crashes = crashing("", journal)
    crashes.at(0)

    await crashes.run(turn)

    assert [note.kind for note in journal.notes()] == ["crash", "restart"]
    assert "await 0" in journal.notes("crash")[0].text
    assert "test_explore_crashes.py" in journal.notes("crash")[0].text


async def test_without_crashes_a_program_is_simply_called(crashing: Crashing) -> None:
    async def program() -> asyncio.Task[object] | None:
        return asyncio.current_task()

    assert await crashing().run(program) is asyncio.current_task()


async def test_an_error_of_the_program_is_the_test_s(crashing: Crashing) -> None:
    async def program() -> None:
        await turn()
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        await crashing("crash@0").run(program)


async def test_whoever_is_not_killed_is_cancelled_as_ever(crashing: Crashing) -> None:
    done: list[str] = []

    async def program() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await turn()
            done.append("finally")

    running = asyncio.create_task(crashing("crash@99").run(program))
    await turn()
    await turn()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert done == ["finally"]


async def test_two_programs_at_once_die_each_for_itself(crashing: Crashing) -> None:
    done: list[str] = []

    def program(name: str) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            done.append(f"{name} begins")
            await turn()
            await turn()
            done.append(f"{name} ends")

        return run

    crashes = crashing("crash@0")  # the first await is that of the first
    await asyncio.gather(crashes.run(program("one")), crashes.run(program("other")))

    assert sorted(done) == ["one begins", "one begins", "one ends", "other begins", "other ends"]


async def test_the_loop_is_left_as_it_was_found(crashing: Crashing) -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    await crashing("crash@0").run(turn)

    assert loop.get_task_factory() is before


async def test_a_receiver_that_is_killed_gives_no_answer_and_loses_its_tasks(crashing: Crashing) -> None:
    done: list[str] = []

    async def in_background() -> None:
        await may_go_on.wait()
        done.append("background")

    may_go_on = asyncio.Event()

    tasks: list[asyncio.Task[None]] = []

    async def first() -> int:
        tasks.append(asyncio.create_task(in_background()))
        return 200

    async def second() -> int:
        await turn()
        done.append("second")
        return 200

    crashes = crashing("crash@1")  # await 0 is that of the task in the background
    answers = [await crashes.receive(first), await crashes.receive(second), await crashes.receive(second)]
    may_go_on.set()
    await turn()
    await turn()

    assert answers == [200, 0, 200]
    assert done == ["second"]


async def test_what_was_killed_is_let_go_of_in_silence(crashing: Crashing) -> None:
    done: list[str] = []

    async def stubborn() -> None:
        try:
            await turn()
        finally:
            try:
                await turn()
                done.append("cleaned up")
            finally:
                raise LookupError("and it failed")

    async def program() -> None:
        if not tasks:
            tasks.append(asyncio.create_task(stubborn()))
            await tasks[0]

    tasks: list[asyncio.Task[None]] = []
    crashes = crashing("crash@1")
    await crashes.run(program)
    assert not tasks[0].done()

    await crashes.dispose()

    assert tasks[0].done()
    assert done == ["cleaned up"]


def test_a_loop_closes_although_a_program_was_killed_in_it() -> None:
    crashes = Crashes(History.parse("crash@0"))

    asyncio.run(crashes.run(turn))
    crashes.close()

    assert crashes.struck == {0}


async def test_tasks_lie_in_sets_in_the_order_of_their_creation(crashing: Crashing) -> None:
    async def program() -> list[int]:
        tasks = [asyncio.create_task(turn()) for _ in range(20)]
        await asyncio.wait(tasks)
        return [hash(task) for task in tasks]

    hashes = await crashing("crash@999").run(program)

    assert hashes == list(range(hashes[0], hashes[0] + 20))
