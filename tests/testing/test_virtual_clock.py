"""The virtual clock jumps while everything waits, and stands still while anything works."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx
import pytest
import uvloop

from benchmarks import _virtual
from holdfast import Holdfast
from holdfast.clock import Clock
from holdfast.errors import ConfigurationError, WrongLoop
from holdfast.http.transports import HttpRequest
from holdfast.queue.worker import WorkerOptions
from holdfast.stores import Store
from holdfast.stores.open import open_store
from holdfast.testing.faults import Faults, Status
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.virtual_clock import Deadlock, VirtualClock
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

HOUR = 3600.0
INVOICES = "/api/v1/payments"
THINKS = 0.2
"""Real seconds: the trap itself."""


@contextmanager
def in_no_time(most: float = 30.0) -> Generator[None]:
    """The body takes less real time than `most`; a real wait of what it waits for would take far longer."""
    begun = time.perf_counter()
    yield
    assert time.perf_counter() - begun < most


@pytest.fixture
def vclock() -> VirtualClock:
    return VirtualClock()


@asynccontextmanager
async def _slow_http(clock: VirtualClock, *delays: float) -> AsyncGenerator[str]:
    """A server in this event loop, which answers after so many virtual seconds each."""
    left, served = iter(delays), list[asyncio.Task[None] | None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                await clock.sleep(next(left))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/"
        await asyncio.wait([task for task in served if task is not None])


@asynccontextmanager
async def _slow_http_by_hand(clock: VirtualClock, *delays: float) -> AsyncGenerator[str]:
    """As `_slow_http`, for one connection, which nobody listens to while an answer is thought of."""
    loop = asyncio.get_running_loop()

    async def serve() -> None:
        connection, _ = await loop.sock_accept(listening)
        with connection:
            for delay in delays:
                while not (await loop.sock_recv(connection, 65_536)).endswith(b"\r\n\r\n"):
                    pass
                await clock.sleep(delay)
                await loop.sock_sendall(connection, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        async with asyncio.TaskGroup() as group:
            group.create_task(serve())
            yield "http://{}:{}/".format(*listening.getsockname())


# Time jumps.


async def test_it_is_a_clock_that_moves_by_itself_only_while_it_runs(vclock: VirtualClock) -> None:
    clock: Clock = vclock

    with in_no_time():
        async with vclock.running():
            await clock.sleep(HOUR)
    await asyncio.sleep(0)

    assert vclock.elapsed == clock.monotonic() == HOUR
    assert clock.now() == datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert not vclock.is_running


async def test_asyncio_anyio_and_the_clock_share_one_time(vclock: VirtualClock) -> None:
    rang: list[tuple[str, float]] = []

    def ring(name: str) -> None:
        rang.append((name, vclock.elapsed))

    async def sleep(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        ring(name)

    with in_no_time():
        async with vclock.running(), asyncio.TaskGroup() as group:
            vclock.call_later(30, ring, "clock")
            asyncio.get_running_loop().call_later(20, ring, "asyncio")
            group.create_task(sleep("task", 40))
            with anyio.move_on_after(10):
                await anyio.sleep_forever()
            ring("anyio")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(15):
                    await vclock.sleep(HOUR)
            ring("asyncio's timeout")
            with pytest.raises(TimeoutError):
                async with vclock.timeout(25):
                    await asyncio.sleep(HOUR)
            ring("the clock's timeout")

    assert rang == [
        ("anyio", 10),
        ("asyncio", 20),
        ("asyncio's timeout", 25),
        ("clock", 30),
        ("task", 40),
        ("the clock's timeout", 50),
    ]


async def test_what_is_due_at_one_time_comes_in_the_order_it_was_asked_for(vclock: VirtualClock) -> None:
    woken: list[int] = []

    async def sleep(number: int) -> None:
        await (vclock.sleep(60) if number % 2 else asyncio.sleep(60))
        woken.append(number)

    async with vclock.running(), asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(sleep(number))

    assert woken == list(range(50))


async def test_time_goes_on_after_centuries_where_a_float_is_coarser_than_the_loops_clock(vclock: VirtualClock) -> None:
    async with vclock.running(at_most=1e12):
        await asyncio.sleep(1e10)
        await asyncio.sleep(0.1)
        await vclock.sleep(0.1)

    assert vclock.elapsed == pytest.approx(1e10 + 0.2)


async def test_advance_returns_when_what_was_due_has_been_done(vclock: VirtualClock) -> None:
    done: list[float] = []

    async def work() -> None:
        while True:
            await vclock.sleep(10)
            await asyncio.to_thread(int)
            done.append(vclock.elapsed)

    task = asyncio.create_task(work())
    await vclock.advance(20)
    assert (done, vclock.elapsed) == ([10, 20], 20)
    async with vclock.running():
        await vclock.advance(15)
        assert (done, vclock.elapsed) == ([10, 20, 30], 35)
    task.cancel()


async def test_a_jump_moves_the_wall_clock_only(vclock: VirtualClock) -> None:
    async with vclock.running():
        vclock.jump(-HOUR)
        await vclock.sleep(60)

    assert vclock.elapsed == 60
    assert vclock.now() == datetime(2025, 12, 31, 23, 1, tzinfo=UTC)


async def test_eight_attempts_with_ten_minutes_between_them_take_no_time(vclock: VirtualClock) -> None:
    lnbits = _throttled(vclock)
    transport = InProcess(lnbits)

    async def post(headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        asked = HttpRequest(method="POST", url=f"http://lnbits{INVOICES}", headers=tuple(headers.items()), content=body)
        answer = await transport.send(asked)
        return answer.status, dict(answer.headers)

    with in_no_time():
        async with vclock.running():
            status = await _insist(post, lnbits, vclock)

    assert (status, vclock.elapsed) == (201, 4200)


async def test_eight_attempts_over_real_sockets_in_one_loop_take_no_time(vclock: VirtualClock) -> None:
    lnbits = _throttled(vclock)

    with in_no_time():
        async with (
            vclock.running(),
            Edge(lnbits) as edge,
            httpx.AsyncClient(base_url=edge.url, trust_env=False) as client,
        ):

            async def post(headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str]]:
                answer = await client.post(INVOICES, headers=headers, content=body)
                return answer.status_code, dict(answer.headers)

            status = await _insist(post, lnbits, vclock)

    assert (status, vclock.elapsed) == (201, 4200)


async def test_a_timeout_of_httpx_strikes_a_slow_server_in_the_same_loop(vclock: VirtualClock) -> None:
    with in_no_time(7):
        async with (
            vclock.running(),
            _slow_http(vclock, 30, 3) as url,
            _client() as client,
        ):
            with pytest.raises(httpx.ReadTimeout):
                await client.get(url)
            answer = await client.get(url)
            assert (answer.status_code, vclock.elapsed) == (200, 8)
            await client.aclose()


# Time stands still while somebody works.


async def test_a_thread_that_works_is_waited_for(vclock: VirtualClock) -> None:
    async with vclock.running():
        async with asyncio.timeout(5):
            await asyncio.to_thread(time.sleep, THINKS)

    assert vclock.elapsed == 0


async def test_a_thread_of_anyio_is_waited_for(vclock: VirtualClock) -> None:
    async with vclock.running():
        with anyio.fail_after(5):
            await anyio.to_thread.run_sync(time.sleep, THINKS)

    assert vclock.elapsed == 0


async def test_a_thread_of_ones_own_is_waited_for_while_it_holds(vclock: VirtualClock) -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    holds = threading.Event()

    def work() -> None:
        with vclock.hold():
            holds.set()
            time.sleep(THINKS)
            loop.call_soon_threadsafe(done.set)

    async with vclock.running():
        thread = threading.Thread(target=work)
        thread.start()
        holds.wait()
        async with asyncio.timeout(5):
            await done.wait()
        thread.join()

    assert vclock.elapsed == 0


async def test_a_thread_that_pauses_lets_time_pass_and_works_on_when_it_has(vclock: VirtualClock) -> None:
    def retry() -> list[float]:
        seen: list[float] = []
        for _ in range(3):
            assert vclock.pause(600) is False
            time.sleep(THINKS / 10)
            seen.append(vclock.elapsed)
        return seen

    with in_no_time():
        async with vclock.running(), asyncio.TaskGroup() as group:
            ticking = group.create_task(_tick(vclock, 1))
            seen = await asyncio.to_thread(retry)
            ticking.cancel()

    assert seen == [600, 1200, 1800]


async def test_a_pause_ends_with_its_event_and_with_the_clock(vclock: VirtualClock) -> None:
    rung, forever = threading.Event(), threading.Event()
    rung.set()
    ended: list[bool] = []

    def wait() -> None:
        ended.append(vclock.pause(10, rung))
        later = threading.Timer(THINKS / 4, forever.set)
        later.start()
        ended.append(vclock.pause(1e12, forever))

    async with vclock.running(at_most=1e13):
        async with asyncio.timeout(None):
            task = asyncio.get_running_loop().run_in_executor(None, wait)
            with vclock.hold():
                await task
        outlasting = threading.Thread(target=lambda: ended.append(vclock.pause(1e12)))
        outlasting.start()
        await vclock.sleep(1)
    outlasting.join()

    assert ended == [True, True, False]


async def test_a_thread_that_waits_for_the_loop_does_not_hold_time(vclock: VirtualClock) -> None:
    loop = asyncio.get_running_loop()

    def ask() -> None:
        asyncio.run_coroutine_threadsafe(asyncio.sleep(HOUR), loop).result()

    with in_no_time():
        async with vclock.running():
            await asyncio.to_thread(ask)
            await anyio.to_thread.run_sync(anyio.from_thread.run, asyncio.sleep, HOUR)

    assert vclock.elapsed == 2 * HOUR


@pytest.mark.parametrize("slow_http", [_slow_http, _slow_http_by_hand])
async def test_a_thread_that_calls_a_server_of_the_loop_does_not_hold_time(
    vclock: VirtualClock, slow_http: Callable[..., AbstractAsyncContextManager[str]]
) -> None:
    def call(url: str) -> list[int]:
        with httpx.Client(timeout=10, trust_env=False) as client:
            return [client.get(url).status_code for _ in range(5)]

    with in_no_time():
        async with vclock.running(), slow_http(vclock, 30, 30, 0, 0, 30) as url:
            statuses = await asyncio.to_thread(call, url)

    assert (statuses, vclock.elapsed) == ([200] * 5, 90)


async def test_what_is_silent_for_too_long_is_told_of_once_and_no_longer_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    vclock, over = VirtualClock(patience=THINKS), threading.Event()

    async with vclock.running():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.to_thread(over.wait)
        over.set()

    warnings = [record.message for record in caplog.records if record.name == "holdfast.testing"]
    assert len(warnings) == 1
    assert "Event.wait" in warnings[0]
    assert vclock.elapsed == 5


async def test_a_thread_that_works_for_long_is_no_deadlock() -> None:
    vclock = VirtualClock(patience=THINKS / 10)

    async with vclock.running():
        await asyncio.to_thread(time.sleep, THINKS)

    assert vclock.elapsed == 0


# Servers outside of the loop.

SLOW_SERVER = f"""
import asyncio, sys
async def serve(reader, writer):
    while await reader.readline():
        await asyncio.sleep({THINKS})
        writer.write(b"answer\\n")
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@pytest.fixture
def slow_server() -> Generator[int]:
    """The port of a process that thinks for a while before each answer."""
    with subprocess.Popen([sys.executable, "-c", SLOW_SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.kill()


async def test_a_server_in_another_process_is_waited_for(vclock: VirtualClock, slow_server: int) -> None:
    async with vclock.running():
        async with asyncio.timeout(1):
            assert await _ask(slow_server, 2) == ["answer"] * 2

    assert vclock.elapsed == 0


async def test_a_server_in_another_thread_is_waited_for(vclock: VirtualClock) -> None:
    with _server_in_a_thread() as port:
        async with vclock.running():
            async with asyncio.timeout(1):
                assert await _ask(port, 2) == ["answer"] * 2
    assert vclock.elapsed == 0


async def test_an_idle_connection_to_a_server_outside_does_not_hold_time(vclock: VirtualClock) -> None:
    with _server_in_a_thread() as port:
        with in_no_time():
            async with vclock.running():
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"question\n")
                await reader.readline()
                await vclock.sleep(HOUR)
        writer.close()
        await writer.wait_closed()

    assert vclock.elapsed == HOUR


async def test_a_server_that_never_answers_is_waited_for_no_longer_than_patience_says() -> None:
    vclock = VirtualClock(patience=THINKS)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        async with vclock.running():
            reader, writer = await asyncio.open_connection(*deaf.getsockname())
            writer.write(b"question\n")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(HOUR):
                    await reader.readline()
        writer.close()
        await writer.wait_closed()

    assert vclock.elapsed == HOUR


async def test_a_child_process_that_is_waited_for_holds_time(vclock: VirtualClock) -> None:
    code = f"import time; time.sleep({THINKS}); print('ready', flush=True); time.sleep({THINKS})"

    async with vclock.running():
        async with asyncio.timeout(1):
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
            assert child.stdout is not None
            said = await child.stdout.readline()
            status = await child.wait()

    assert (said, status, vclock.elapsed) == (b"ready\n", 0, 0)


# Stores and hubs.


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty store on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/holdfast.db"
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return f"{server.store_url}&namespace=n{uuid4().hex}"
    if request.param == "postgres":
        database: PostgresServer = request.getfixturevalue("postgres_server")
        return f"{database.url}?schema=s{uuid4().hex}"
    return "memory://"


@pytest.mark.parametrize("loop", [True, False], ids=["asyncio too", "the clock only"])
async def test_a_hub_works_through_leases_retries_and_timers(vclock: VirtualClock, url: str, loop: bool) -> None:
    hub = Holdfast(store=url, clock=vclock, worker=WorkerOptions(retry_base=4.0, takeover=0.0))
    began: list[float] = []

    @hub.call("slow")
    async def slow(_: object) -> None:
        began.append(vclock.elapsed)
        await vclock.sleep(25)  # its lease of ten seconds is kept meanwhile
        if len(began) < 3:
            raise RuntimeError("again")

    with in_no_time(60):
        async with vclock.running(loop=loop), hub.lifespan():
            await hub.outbox.add("slow", None, key="one")
            await vclock.sleep(100)

    assert len(began) == 3
    assert all(later - sooner >= 25 for sooner, later in pairwise(began))


async def test_hours_pass_over_a_hub_on_a_file(vclock: VirtualClock, tmp_path: Path) -> None:
    store, quiet = f"sqlite:///{tmp_path}/holdfast.db", WorkerOptions(takeover=0.0, idle=60.0)
    hub = Holdfast(store=store, clock=vclock, worker=quiet, sweep_every=60.0, fleet=False)
    ticks: list[float] = []

    @hub.every(timedelta(minutes=10), name="tick")
    async def tick(_: object) -> None:
        ticks.append(vclock.elapsed // 600)

    with in_no_time(60):
        async with vclock.running(), hub.lifespan():
            await vclock.sleep(2 * HOUR + 1)

    assert ticks[-12:] == [float(number) for number in range(1, 13)]


async def test_a_lease_runs_out_after_its_virtual_time(vclock: VirtualClock, url: str) -> None:
    store: Store = open_store(url, clock=vclock)
    async with vclock.running(), store:
        first = await store.leases.acquire("sweep", owner="one", ttl=30)
        refused = await store.leases.acquire("sweep", owner="other", ttl=30)
        await vclock.sleep(31)
        second = await store.leases.acquire("sweep", owner="other", ttl=30)

    assert first is not None
    assert refused is None
    assert second is not None


def test_a_day_of_sweeps_takes_seconds() -> None:
    begun = time.perf_counter()
    _virtual.working_hub(24.0, worker=WorkerOptions(takeover=0.0, idle=60.0), sweep_every=60.0)
    assert time.perf_counter() - begun < 600


# Who comes when is decided by the program alone.


def _bustle() -> list[tuple[float, str]]:
    clock, log = VirtualClock(), list[tuple[float, str]]()

    async def worker(name: str, pauses: list[float]) -> None:
        for pause in pauses:
            await (clock.sleep(pause) if name < "c" else asyncio.sleep(pause))
            log.append((clock.elapsed, name))
            if name == "b":
                await asyncio.to_thread(time.sleep, 0.001)
                log.append((clock.elapsed, "b, back"))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name, pause in (("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.1)):
                group.create_task(worker(name, [pause] * 30))

    clock.run(main)
    return log


def test_two_runs_are_alike() -> None:
    assert _bustle() == _bustle()


async def test_a_run_is_alike_in_a_loop_that_has_lived_for_a_while() -> None:
    def within(clock: VirtualClock, log: list[tuple[float, str]]) -> list[asyncio.Task[None]]:
        async def worker(name: str, pause: float) -> None:
            for _ in range(30):
                await asyncio.sleep(pause)
                log.append((clock.elapsed, name))

        return [asyncio.create_task(worker(name, pause)) for name, pause in (("a", 0.1), ("b", 0.2), ("c", 0.3))]

    logs: list[list[tuple[float, str]]] = [[], []]
    for log in logs:
        clock = VirtualClock()
        async with clock.running():
            await asyncio.gather(*within(clock, log))

    assert logs[0] == logs[1]


# What is put back.


@pytest.mark.parametrize("error", [None, KeyError, asyncio.CancelledError])
@pytest.mark.parametrize("loop", [True, False], ids=["asyncio too", "the clock only"])
async def test_leaving_puts_the_loop_back(vclock: VirtualClock, loop: bool, error: type[BaseException] | None) -> None:
    own: Any = asyncio.get_running_loop()
    before = own.time(), vars(own).keys() | set(), vars(own._selector).keys() | set()

    async def body() -> None:
        async with vclock.running(loop=loop):
            await vclock.sleep(HOUR)
            if error is not None:
                raise error

    with nullcontext() if error is None else pytest.raises(error):
        await body()

    assert (vars(own).keys(), vars(own._selector).keys()) == before[1:]
    assert own.time() - before[0] < HOUR


async def test_what_is_still_scheduled_is_due_after_as_many_real_seconds_as_it_had_left(vclock: VirtualClock) -> None:
    loop, fired = asyncio.get_running_loop(), asyncio.Event()

    async with vclock.running():
        await asyncio.sleep(HOUR)
        begun = time.perf_counter()
        loop.call_later(HOUR + THINKS, fired.set)
        await asyncio.sleep(HOUR)
    await fired.wait()

    assert THINKS * 0.9 < time.perf_counter() - begun < THINKS + 60


async def test_what_is_scheduled_when_it_begins_keeps_the_time_it_had_left(vclock: VirtualClock) -> None:
    async def outer() -> float:
        with anyio.move_on_after(60):
            await anyio.sleep_forever()
        return vclock.elapsed

    async def other() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(120):
                await asyncio.Event().wait()
        return vclock.elapsed

    tasks = [asyncio.create_task(outer()), asyncio.create_task(other())]
    await asyncio.sleep(0)
    async with vclock.running():
        ended = await asyncio.gather(*tasks)

    assert ended == [pytest.approx(60, abs=1), pytest.approx(120, abs=1)]


async def test_sleepers_of_the_clock_stand_still_outside(vclock: VirtualClock) -> None:
    task = asyncio.create_task(vclock.sleep(10))
    await asyncio.sleep(0)

    async with vclock.running():
        await vclock.sleep(4)
    await asyncio.sleep(0.01)
    assert not task.done()
    async with vclock.running():
        await task

    assert vclock.elapsed == 10


async def test_cancelling_the_body_passes_through(vclock: VirtualClock) -> None:
    async def body() -> None:
        async with vclock.running():
            await asyncio.to_thread(time.sleep, THINKS)

    task = asyncio.create_task(body())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert not vclock.is_running


# Only the clock.


async def test_with_the_loop_left_alone_asyncio_keeps_real_time(vclock: VirtualClock) -> None:
    loop = asyncio.get_running_loop()

    with in_no_time():
        async with vclock.running(loop=False):
            begun = loop.time()
            async with asyncio.timeout(60):
                await vclock.sleep(HOUR)
            assert loop.time() - begun < 60
            ticking = asyncio.create_task(_tick(vclock, 1.0))
            await asyncio.sleep(0.02)  # a task that waits for no virtual time is waited for
            ticking.cancel()

    assert vclock.elapsed == HOUR


# Errors that say what to do.


async def test_it_runs_once_at_a_time_and_one_to_a_loop(vclock: VirtualClock) -> None:
    async with vclock.running():
        with pytest.raises(ConfigurationError, match="already"):
            async with vclock.running():
                pass
        with pytest.raises(ConfigurationError, match="another virtual clock"):
            async with VirtualClock().running():
                pass
        with pytest.raises(ConfigurationError, match="event loop already"):
            vclock.run(partial(asyncio.sleep, 1))
        await vclock.sleep(1)

    assert vclock.elapsed == 1


def test_another_kind_of_loop_is_refused_with_what_to_do(vclock: VirtualClock) -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"not uvloop.*ManualClock"):
            async with vclock.running():
                pass

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def test_it_serves_the_loop_that_it_runs(vclock: VirtualClock) -> None:
    def elsewhere() -> None:
        with pytest.raises(WrongLoop):
            asyncio.run(vclock.sleep(1))

    async with vclock.running():
        await asyncio.to_thread(elsewhere)


async def test_a_body_that_nobody_can_wake_is_told_where_it_waits() -> None:
    vclock = VirtualClock(patience=THINKS)

    async def wait_for_nothing() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="wait_for_nothing"):
        async with vclock.running():
            await wait_for_nothing()
    await asyncio.sleep(0)  # nothing is left of the cancellation


async def test_a_body_that_waits_in_vain_while_others_tick_is_told_so(vclock: VirtualClock) -> None:
    ticking = asyncio.create_task(_tick(vclock, 60))

    with pytest.raises(Deadlock, match="3600 s of virtual time"):
        async with vclock.running(at_most=HOUR):
            await asyncio.Event().wait()
    ticking.cancel()


# A loop of its own.


def test_a_run_returns_what_the_program_did_and_finishes_what_it_left(vclock: VirtualClock) -> None:
    ended: list[str] = []

    async def linger(name: str) -> None:
        try:
            await asyncio.sleep(HOUR)
        finally:
            await asyncio.sleep(1)
            ended.append(name)

    async def items() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            ended.append("generator")

    async def main() -> float:
        generator = items()
        left.extend([asyncio.create_task(linger("task")), generator])
        await anext(generator)
        await asyncio.to_thread(int)
        await asyncio.sleep(60)
        return vclock.elapsed

    left: list[object] = []

    assert vclock.run(main) == 60
    assert sorted(ended) == ["generator", "task"]
    assert vclock.run(partial(asyncio.sleep, 1, "again")) == "again"


def test_a_run_passes_errors_and_deadlocks_on() -> None:
    async def fail() -> None:
        raise KeyError("no")

    async def wait() -> None:
        await asyncio.Event().wait()

    vclock = VirtualClock(patience=0.01)
    with pytest.raises(KeyError):
        vclock.run(fail)
    with pytest.raises(Deadlock):
        vclock.run(wait)


# Plugins and scopes.


@pytest.mark.asyncio(loop_scope="session")
async def test_it_runs_in_a_loop_of_the_session(vclock: VirtualClock) -> None:
    async with vclock.running():
        await asyncio.sleep(HOUR)
    assert vclock.elapsed == HOUR


class TestInAFixture:
    @pytest.fixture
    async def running(self, vclock: VirtualClock) -> AsyncGenerator[VirtualClock]:
        async with vclock.running():
            yield vclock

    async def test_time_passes_in_the_test(self, running: VirtualClock) -> None:
        await asyncio.sleep(HOUR)
        assert running.elapsed == HOUR


def test_it_runs_under_anyio() -> None:
    async def main() -> float:
        vclock = VirtualClock()
        async with vclock.running(), anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, HOUR)
        return vclock.elapsed

    assert anyio.run(main, backend="asyncio") == HOUR


# What the tests stand on.


async def _tick(clock: VirtualClock, every: float) -> None:
    while True:
        await clock.sleep(every)


def _throttled(clock: Clock) -> LNbitsSimulator:
    faults = Faults()
    faults.on("lnbits").script(*[Status(429, retry_after=600)] * 7, None)
    return LNbitsSimulator(seed=7, clock=clock, faults=faults)


_client = partial(httpx.AsyncClient, timeout=5, trust_env=False)
Post = Callable[[dict[str, str], bytes], Awaitable[tuple[int, dict[str, str]]]]


async def _insist(post: Post, lnbits: LNbitsSimulator, clock: VirtualClock) -> int:
    async with asyncio.timeout(2 * HOUR):
        while True:
            status, headers = await post({"x-api-key": lnbits.invoice_key}, b'{"out": false, "amount": 21}')
            if status != 429:
                return status
            await clock.sleep(float(headers["retry-after"]))


async def _ask(port: int, times: int) -> list[str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers: list[str] = []
    for _ in range(times):
        writer.write(b"question\n")
        answers.append((await reader.readline()).decode().strip())
    writer.close()
    await writer.wait_closed()
    return answers


@contextmanager
def _server_in_a_thread() -> Generator[int]:
    """With an event loop of its own, which thinks for a while before each answer."""
    port, stop = list[int](), list[Callable[[], object]]()
    ready = threading.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await asyncio.sleep(THINKS)
            writer.write(b"answer\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        over = asyncio.Event()
        port.append(server.sockets[0].getsockname()[1])
        stop.append(partial(asyncio.get_running_loop().call_soon_threadsafe, over.set))
        ready.set()
        async with server:
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=[main()])
    thread.start()
    ready.wait()
    try:
        yield port[0]
    finally:
        stop[0]()
        thread.join()
