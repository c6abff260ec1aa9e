"""A provider is looked after in every process that receives for it, and nowhere else; its failures are told."""

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from holdfast import Holdfast, Secrets
from holdfast.errors import NotSent
from holdfast.http.session import Http
from holdfast.queue.signals import UpkeepFailed
from holdfast.queue.upkeep import SupportsUpkeep
from holdfast.resilience import Priority
from holdfast.resilience.context import surroundings
from holdfast.telemetry import Signal, Telemetry
from holdfast.testing.clock import ManualClock
from tests.payments.vendors import SigningVendor

DOOR = "https://shop.example/webhooks"


@dataclass(kw_only=True, eq=False)
class Certified(SigningVendor):
    """One that keeps something it has to fetch."""

    looked_at: list[float] = field(default_factory=list[float])
    priorities: list[Priority] = field(default_factory=list[Priority])
    failure: Exception | None = None
    clock: ManualClock | None = None

    async def upkeep(self, http: Http) -> None:
        assert self.clock is not None
        self.looked_at.append(self.clock.monotonic())
        self.priorities.append(surroundings.get()[2])
        if self.failure is not None:
            raise self.failure


class Desk:
    """A hub with one door."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.vendor = Certified(name="certified", clock=self.clock)
        self.signals: list[Signal] = []
        self.hub = Holdfast(
            store="memory://",
            secret=Secrets("hub-secret"),
            public_url=DOOR,
            payments=[self.vendor],
            clock=self.clock,
            telemetry=Telemetry([self.signals.append]),
        )

    async def post(self, *, turns: int = 20) -> int:
        """One request; then so many turns of the loop."""
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"not signed"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/certified", "headers": []}
        await self.hub.receiver(scope, receive, send)
        for _ in range(turns):
            await asyncio.sleep(0)
        return statuses[0]

    @property
    def failures(self) -> list[Signal]:
        return [signal for signal in self.signals if isinstance(signal, UpkeepFailed)]


def test_the_protocol_is_what_a_provider_has() -> None:
    assert isinstance(Certified(), SupportsUpkeep)
    assert not isinstance(SigningVendor(), SupportsUpkeep)


async def test_the_first_request_is_looked_after_at_once_and_then_every_minute_or_so() -> None:
    desk = Desk()
    async with desk.hub:
        begun = desk.clock.monotonic()
        assert await desk.post() == 401
        assert desk.vendor.looked_at == [begun]

        await desk.clock.advance(47)
        assert await desk.post() == 401
        assert len(desk.vendor.looked_at) == 1

        await desk.clock.advance(300)

    gaps = [later - earlier for earlier, later in zip(desk.vendor.looked_at, desk.vendor.looked_at[1:], strict=False)]
    assert len(gaps) >= 4
    assert all(48 <= gap <= 72 for gap in gaps)
    assert set(desk.vendor.priorities) == {Priority.BULK}


async def test_who_receives_nothing_looks_after_nothing() -> None:
    desk = Desk()
    async with desk.hub:
        work = asyncio.ensure_future(desk.hub.work())
        await desk.clock.advance(300)
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work

    assert desk.vendor.looked_at == []


async def test_what_fails_is_told_without_secrets_and_tried_again() -> None:
    desk = Desk()
    desk.vendor.failure = NotSent("hub-secret is no way to reach them")
    async with desk.hub:
        assert await desk.post() == 401
        desk.vendor.failure = None
        await desk.clock.advance(150)

    assert desk.failures == [UpkeepFailed("certified", "NotSent: *** is no way to reach them")]
    assert len(desk.vendor.looked_at) >= 3


async def test_a_hub_that_closes_waits_for_no_upkeep_and_one_that_opens_again_begins_anew() -> None:
    desk = Desk()
    for _ in range(2):
        async with desk.hub:
            await desk.post()

    assert len(desk.vendor.looked_at) == 2


async def test_a_hub_that_closes_before_the_first_step_leaves_nothing_behind() -> None:
    desk = Desk()
    async with desk.hub:
        await desk.post(turns=0)
    assert desk.vendor.looked_at == []

    async with desk.hub:
        await desk.post()
    assert len(desk.vendor.looked_at) == 1


async def test_a_request_to_a_hub_that_is_not_open_is_answered_as_before() -> None:
    desk = Desk()
    assert await desk.post() == 401
    assert desk.vendor.looked_at == []


async def test_the_thread_of_a_wsgi_server_is_looked_after_too_and_ends_when_it_is_told_to() -> None:
    # given
    looked = threading.Event()

    class Watched(Certified):
        async def upkeep(self, http: Http) -> None:
            looked.set()

    hub = Holdfast(store="memory://", secret=Secrets("s"), public_url=DOOR, payments=[Watched(name="certified")])
    server, statuses = hub.receiver.wsgi, list[str]()

    def start_response(status: str, headers: object) -> None:
        statuses.append(status)

    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/certified", "CONTENT_LENGTH": "1", "wsgi.input": BytesIO(b"x")}

    # when
    try:
        server(environ, start_response)

        # then
        assert looked.wait(30)
        assert statuses == ["401 Unauthorized"]
    finally:
        server.close()
    assert [thread.name for thread in threading.enumerate() if thread.name == "holdfast-loop"] == []
