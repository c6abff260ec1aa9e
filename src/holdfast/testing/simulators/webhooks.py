"""Webhooks as they really arrive: twice, late, out of order, forged, or not at all."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Final, NoReturn

from holdfast.clock import Clock, SystemClock
from holdfast.testing.faults import chance
from holdfast.testing.simulators.simulator import Headers, Simulator, Webhook

Send = Callable[[str, Headers, bytes], Awaitable[int]]
"""POST these headers and this body to that address; the status of the answer, 0 for none."""

_PAUSE: Final = 0.02
_AT_ONCE: Final = 64


class Manner(StrEnum):
    """As what a webhook is sent."""

    GENUINE = "genuine"
    DUPLICATE = "duplicate"
    RETRY = "retry"
    LIE = "lie"
    """Through the right door, signed with the right key, and untrue: what re-fetching is for."""
    WRONG_KEY = "wrong_key"
    ALTERED_BYTE = "altered_byte"
    STALE = "stale"
    WRONG_URL = "wrong_url"

    @property
    def forged(self) -> bool:
        """Whether the receiver must refuse it."""
        return self in (Manner.WRONG_KEY, Manner.ALTERED_BYTE, Manner.STALE, Manner.WRONG_URL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mischief:
    """How often, as a probability per webhook, what happens to it."""

    duplicate: float = 0
    """It is sent once more."""
    delay: float = 0
    """It is held back, so that others overtake it."""
    up_to: float = 2
    """Seconds it is held back at most."""
    forge: float = 0
    """A forged one comes along, before it."""
    lie: float = 0
    """One comes along, before it, that says more than has happened."""
    drop: float = 0
    """It is never sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """One request made to the receiver, and its answer."""

    webhook: Webhook
    manner: Manner
    status: int
    at: datetime

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


@dataclass(order=True, frozen=True, slots=True)
class _Due:
    after: float
    number: int
    webhook: Webhook = field(compare=False)
    manner: Manner = field(compare=False)
    tries: int = field(default=0, compare=False)
    answered: int = field(default=0, compare=False)
    """What the try before was answered."""


class WebhookSimulator:
    """Takes what simulators owe from their outboxes and delivers it, with the mischief asked for.

    `await deliver()` sends all there is, in the order the mischief makes, without waiting: for tests. `await run()`
    goes on for ever, and takes its time.
    """

    def __init__(
        self,
        simulators: Sequence[Simulator],
        send: Send,
        *,
        mischief: Mischief | Mapping[str, Mischief] = Mischief(),
        seed: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._simulators = {simulator.vendor: simulator for simulator in simulators}
        self._send = send
        self._mischief = mischief
        self._seed = seed
        self._clock: Clock = clock or SystemClock()
        self._numbers: dict[str, int] = {}
        self._order = 0
        self.sent: list[Sent] = []
        """Every request made, in order."""
        self.dropped: list[Webhook] = []
        """What was never sent."""

    @property
    def accepted_forgeries(self) -> list[Sent]:
        """Forged webhooks the receiver answered 2xx; there must be none."""
        return [sent for sent in self.sent if sent.manner.forged and sent.accepted]

    def calm(self) -> None:
        """No more mischief from now on."""
        self._mischief = Mischief()

    async def deliver(self) -> list[Sent]:
        """Send everything owed, retries included, one after the other."""
        before = len(self.sent)
        due = self._collect()
        heapq.heapify(due)
        while due:
            shipment = heapq.heappop(due)
            again = await self._ship(shipment)
            if again is not None:
                heapq.heappush(due, again)
        return self.sent[before:]

    async def run(self) -> NoReturn:
        """Send everything owed when it is due, for ever."""
        gate = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            while True:
                for simulator in self._simulators.values():
                    simulator.tick()
                for shipment in self._collect():
                    tasks.create_task(self._wait_and_ship(shipment, gate))
                await self._clock.sleep(_PAUSE)

    async def _wait_and_ship(self, shipment: _Due, gate: asyncio.Semaphore) -> None:
        due: _Due | None = shipment
        while due is not None:
            await self._clock.sleep(due.after)
            async with gate:
                due = await self._ship(due)

    def _collect(self) -> list[_Due]:
        due: list[_Due] = []
        for simulator in self._simulators.values():
            while simulator.outbox:
                due += self._plan(simulator, simulator.outbox.popleft())
        return due

    def _plan(self, simulator: Simulator, webhook: Webhook) -> list[_Due]:
        number = self._numbers[simulator.vendor] = self._numbers.get(simulator.vendor, 0) + 1
        random = chance(self._seed, simulator.vendor, "webhook", number)
        mischief = self._mischief
        if isinstance(mischief, Mapping):
            mischief = mischief.get(simulator.vendor, Mischief())
        # Drawn in a fixed order, each whether needed or not, so that one option does not reshuffle the others.
        draws = {name: random.random() for name in ("drop", "delay", "duplicate", "forge", "lie")}
        happens = {name: draw < getattr(mischief, name) for name, draw in draws.items()}
        late, once_more = random.uniform(0, mischief.up_to), random.uniform(0, mischief.up_to)
        due: list[_Due] = []
        if happens["lie"] and (untrue := simulator.untrue(webhook)) is not None:
            due.append(self._due(0, untrue, Manner.LIE))
        if happens["forge"]:
            due.append(self._due(0, webhook, random.choice(forgeries(simulator, webhook))))
        if happens["drop"]:
            self.dropped.append(webhook)
            simulator.faults.count(simulator.vendor, "webhook_drop")
            return due
        if happens["delay"]:
            simulator.faults.count(simulator.vendor, "webhook_delay")
        after = late if happens["delay"] else 0
        due += [self._due(after, webhook, Manner.GENUINE) for _ in range(simulator.copies)]
        if happens["duplicate"]:
            due.append(self._due(after + once_more, webhook, Manner.DUPLICATE))
        return due

    def _due(self, after: float, webhook: Webhook, manner: Manner, *, tries: int = 0, answered: int = 0) -> _Due:
        self._order += 1
        return _Due(after, self._order, webhook, manner, tries, answered)

    async def _ship(self, due: _Due) -> _Due | None:
        """Send it; the next try, where the vendor makes one."""
        simulator = self._simulators[due.webhook.vendor]
        url, headers, body = dress(simulator, due.webhook, due.manner, self._clock.now())
        if due.tries:
            headers = (*headers, *simulator.retry_headers(due.tries, due.answered))
        status = await self._send(url, headers, body)
        sent = Sent(webhook=due.webhook, manner=due.manner, status=status, at=self._clock.now())
        self.sent.append(sent)
        if due.manner is not Manner.GENUINE:
            name = "forge" if due.manner.forged else due.manner
            simulator.faults.count(simulator.vendor, f"webhook_{name}")
        genuine = due.manner in (Manner.GENUINE, Manner.RETRY)
        if not genuine or sent.accepted or due.tries >= len(simulator.retries):
            return None
        after = simulator.retries[due.tries]
        return self._due(after, due.webhook, Manner.RETRY, tries=due.tries + 1, answered=status)


def forgeries(simulator: Simulator, webhook: Webhook) -> list[Manner]:
    """What a forger can try that this vendor's way of signing gives away."""
    at = simulator.clock.now()
    signed = simulator.sign(webhook.body, secret="k", at=at, url=webhook.url)
    if not signed:
        return [Manner.WRONG_URL]
    found = [Manner.WRONG_KEY]
    if simulator.sign(webhook.body + b" ", secret="k", at=at, url=webhook.url) != signed:
        found.append(Manner.ALTERED_BYTE)
    if simulator.sign(webhook.body, secret="k", at=at - timedelta(hours=1), url=webhook.url) != signed:
        found.append(Manner.STALE)
    return found


def dress(simulator: Simulator, webhook: Webhook, manner: Manner, at: datetime) -> tuple[str, Headers, bytes]:
    """Address, headers and body of the webhook when it is sent in this manner."""
    url, body, secret = webhook.url, webhook.body, webhook.secret or simulator.webhook_secret
    if manner is Manner.STALE:
        at -= timedelta(hours=1)
    if manner is Manner.WRONG_KEY:
        secret += "-of-somebody-else"
    if manner is Manner.WRONG_URL:
        url = url[:-1] + ("0" if url[-1] != "0" else "1")
    signature = simulator.sign(body, secret=secret, at=at, url=url)
    if manner is Manner.ALTERED_BYTE:
        body = altered(body, chance(simulator.seed, webhook.about, manner))
    return url, (*webhook.headers, *signature), body


def altered(body: bytes, random: Random) -> bytes:
    """The same with one digit or letter changed: it still reads well."""
    places = [index for index, byte in enumerate(body) if chr(byte).isdigit()] or [0]
    place = random.choice(places)
    return body[:place] + (b"7" if body[place : place + 1] != b"7" else b"8") + body[place + 1 :]
