"""What a vendor's own package does runs under the guard as every exchange of ours."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from holdfast.clock import Clock
from holdfast.errors import CircuitOpen, NotSent, OutcomeUnknown
from holdfast.http.session import Http
from holdfast.http.transports import HttpRequest, HttpResponse, Transport
from holdfast.http.vendor import HttpDefaults
from holdfast.outcome import Effect
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Policy, Retry
from holdfast.testing.clock import ManualClock

T = TypeVar("T")
Exchange = Callable[[Transport, Clock], Awaitable[str]]


class Acme(HttpDefaults):
    name = "acme"
    base_url = "https://acme.example"


class Idle:
    """A transport that answers."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=200, content=request.method.encode())

    async def aclose(self) -> None:
        pass


class Lost:
    """A package whose first answers are lost."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def __call__(self, transport: Transport, clock: Clock) -> str:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def transport() -> Idle:
    return Idle()


@pytest.fixture
def http(clock: ManualClock, transport: Idle) -> Http:
    policy = Policy(timeout=5, deadline=60, retry=Retry(attempts=2), breaker=Breaker(consecutive=3))
    return Http(Acme(), transport, Guard("acme", policy, clock=clock), clock)


async def passing(clock: ManualClock, work: Coroutine[Any, Any, T]) -> T:
    """Await it while time passes as far as it must."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await clock.advance(0.25)
    finally:
        task.cancel()
        await asyncio.wait([task])
    return task.result()


async def test_it_gets_the_connections_own_transport_and_clock(http: Http, clock: ManualClock, transport: Idle) -> None:
    async def ask(given: Transport, time: Clock) -> str:
        assert (given, time) == (transport, clock)
        return (await given.send(HttpRequest(method="GET", url="https://elsewhere.example/"))).content.decode()

    assert await http.run(ask, operation="ask", effect=Effect.READ) == "GET"


@pytest.mark.parametrize(
    ("effect", "valid", "calls"),
    [
        (Effect.READ, None, 2),
        (Effect.IDEMPOTENT, None, 2),
        (Effect.KEYED, True, 2),
        (Effect.KEYED, False, 1),
        (Effect.ONCE, None, 1),
    ],
)
async def test_a_lost_answer_is_asked_for_again_only_where_that_does_no_harm(
    http: Http, clock: ManualClock, effect: Effect, valid: bool | None, calls: int
) -> None:
    lost = Lost(OutcomeUnknown("lost"))
    key_valid = None if valid is None else lambda: valid or not lost.calls  # valid, or only once
    work = http.run(lost, operation="work", effect=effect, key_valid=key_valid)

    if calls == 1:
        with pytest.raises(OutcomeUnknown, match="lost"):
            await passing(clock, work)
    else:
        assert await passing(clock, work) == "done"
    assert lost.calls == calls


async def test_what_says_nothing_of_the_vendor_passes_through_and_is_not_repeated(
    http: Http, clock: ManualClock
) -> None:
    broken = Lost(KeyError("a bug"))
    with pytest.raises(KeyError):
        await passing(clock, http.run(broken, operation="work", effect=Effect.READ))
    assert broken.calls == 1


@pytest.mark.parametrize(("timeout", "told"), [(2, "2 s"), (None, "5 s")])
async def test_it_ends_at_its_time_limit(http: Http, clock: ManualClock, timeout: float | None, told: str) -> None:
    async def hang(transport: Transport, time: Clock) -> str:
        await time.sleep(3600)
        return "never"

    with pytest.raises(OutcomeUnknown, match=f"had no answer after {told}"):
        await passing(clock, http.run(hang, operation="hang", effect=Effect.ONCE, timeout=timeout))


async def test_an_open_circuit_stops_it(http: Http, clock: ManualClock) -> None:
    dead = Lost(*[NotSent("no relay", hard=True) for _ in range(3)])
    for _ in range(2):
        with pytest.raises(NotSent):
            await passing(clock, http.run(dead, operation="work", effect=Effect.READ))
    assert dead.calls == 3

    with pytest.raises(CircuitOpen):
        await passing(clock, http.run(dead, operation="work", effect=Effect.READ))
    assert dead.calls == 3
