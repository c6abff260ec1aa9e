"""Carries webhooks: each when it is due, tried again as its vendor does, every answer written down."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from math import inf, isfinite
from random import Random
from typing import Final, Literal, Protocol

from holdfast.clock import Clock
from holdfast.testing.simulators.forgeries import Manner, dress, forgeries
from holdfast.testing.simulators.simulator import Headers, Reply, Simulator, Webhook

Send = Callable[[str, Headers, bytes], Awaitable[Reply | int]]
"""POST these headers and this body to that address; the answer, or its bare status, 0 for none."""

How = Literal["twice", "never", "last", "together", "late"]
"""What can be ordered for one webhook."""

TOLERANCE: Final = 300.0
"""Seconds a signed time may be off; every vendor that signs one says five minutes."""
LATE: Final = 3600.0
"""Seconds a webhook ordered to be late is held back."""
_MOST_TRIES_AT_ONCE: Final = 10


class Hears(Protocol):
    """Where deliveries are written down: a journal."""

    def webhook(self, sent: "Sent") -> object:
        """One more was sent."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """One request made to the receiver, and its answer."""

    webhook: Webhook
    manner: Manner
    status: int
    """0: there was no answer."""
    at: datetime
    number: int = 0
    """Of the webhook: in which place it was owed in this run, over all vendors, from 0; -1: it was not owed."""
    tries: int = 0
    """How often it was tried before."""
    skew: float = 0.0
    """Seconds by which the vendor's clock was ahead when it signed."""
    failure: str = ""
    """Why there was no answer, or what the app raised."""

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300

    def __str__(self) -> str:
        tried = f", try {self.tries + 1}" if self.tries else ""
        skewed = f", clock {self.skew:+g} s" if self.skew else ""
        answer = f"{self.status or 'no answer'}{f' ({self.failure})' if self.failure else ''}"
        webhook = self.webhook
        about = " ".join(part for part in (webhook.vendor, webhook.event, webhook.key or webhook.about) if part)
        number = f"#{self.number} " if self.number >= 0 else ""
        return f"{number}{about}, {self.manner}{tried}{skewed}: {answer}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Treatment:
    """What happens to one webhook on its way."""

    dropped: bool = False
    """It is never sent: only reconciliation can find it."""
    after: float = 0.0
    """Seconds it is held back."""
    duplicates: tuple[float, ...] = ()
    """It is sent once more for each, so many seconds after the first."""
    together: bool = False
    """All its copies are sent at the same moment; at least two."""
    last: bool = False
    """It is sent when all others have been."""
    forged: tuple[Manner, ...] = ()
    """As what a forger sends it, before it."""
    lie: bool = False
    """One comes along, before it, that says more than has happened."""
    skew: float = 0.0
    """Seconds by which the clock of the vendor that signs it is ahead."""
    straggler: bool = False
    """It is signed with the secret that is being replaced."""

    def ordered(self, how: How) -> "Treatment":
        """The same, and this too."""
        match how:
            case "twice":
                return replace(self, duplicates=(*self.duplicates, 0.0))
            case "never":
                return replace(self, dropped=True)
            case "last":
                return replace(self, last=True)
            case "together":
                return replace(self, together=True)
            case "late":
                return replace(self, after=self.after + LATE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """One request that is to be made."""

    webhook: Webhook
    manner: Manner
    skew: float = 0.0
    tries: int = 0
    before: Reply | None = None
    """What the try before was answered."""


@dataclass(order=True, frozen=True, slots=True)
class Due:
    """What is to be sent at one moment: one copy, or several together."""

    after: float
    """Seconds from when the round begins."""
    order: int
    copies: tuple[Copy, ...] = field(compare=False)


class Courier:
    """One for a run: it numbers what is owed, carries it, and remembers what became of it."""

    def __init__(self, simulators: Callable[[], Iterable[Simulator]], *, clock: Clock, journal: Hears | None) -> None:
        self._simulators = simulators
        self._clock = clock
        self._journal = journal
        self._numbers: dict[int, int] = {}
        self.owed = 0
        """How many were owed so far."""
        self._orders: dict[int, list[How]] = {}
        self._order = count()
        self.sent: list[Sent] = []
        self.dropped: list[Webhook] = []

    @property
    def simulators(self) -> Mapping[str, Simulator]:
        """By vendor, as they are now."""
        return {simulator.vendor: simulator for simulator in self._simulators()}

    # What is owed

    def waiting(self) -> list[Webhook]:
        """What waits in the outboxes, in the order in which it was owed; from now on each has its number."""
        waiting = [webhook for simulator in self._simulators() for webhook in simulator.outbox]
        waiting.sort(key=lambda webhook: webhook.stamp)
        for webhook in waiting:
            self.number(webhook)
        return waiting

    def number(self, webhook: Webhook) -> int:
        """In which place it was owed, from 0."""
        if webhook.stamp not in self._numbers:
            self._numbers[webhook.stamp] = self.owed
            self.owed += 1
        return self._numbers[webhook.stamp]

    def order(self, number: int, how: How) -> None:
        """This is what happens to the webhook of this number, whatever else is asked for."""
        self._orders.setdefault(number, []).append(how)

    async def challenge(self, simulator: Simulator, challenge: Webhook, send: Send, url: "Where") -> tuple[Sent, str]:
        """Ask an endpoint to prove itself: what was sent, and what is wrong with the answer."""
        self._numbers[challenge.stamp] = -1
        address, headers, body = dress(simulator, challenge, Manner.CHALLENGE, self._clock.now(), url=url(challenge))
        reply = await self._reply(simulator, send(address, headers, body))
        wrong = simulator.refute(challenge, reply)
        return self._write(Copy(webhook=challenge, manner=Manner.CHALLENGE), reply), wrong

    # On the way

    def plan(self, webhook: Webhook, treatment: Treatment) -> list[Due]:
        """What is sent of it, and when; a dropped one is written down at once."""
        simulator = self.simulators[webhook.vendor]
        number = self.number(webhook)
        for how in self._orders.get(number, ()):
            treatment = treatment.ordered(how)
        signs_time = treatment.skew and Manner.STALE in forgeries(simulator, webhook)
        skew, due = treatment.skew if signs_time else 0.0, list[Due]()
        if treatment.lie and (untrue := simulator.untrue(webhook)) is not None:
            self._numbers[untrue.stamp] = number
            due.append(self._due(0.0, Copy(webhook=untrue, manner=Manner.LIE, skew=skew)))
        for manner in treatment.forged:
            due.append(self._due(0.0, Copy(webhook=webhook, manner=manner, skew=skew)))
        if treatment.dropped:
            self.dropped.append(webhook)
            simulator.faults.count(simulator.vendor, "webhook_drop")
            return due
        if treatment.after:
            simulator.faults.count(simulator.vendor, "webhook_delay")
        after = inf if treatment.last else treatment.after
        manner = Manner.STRAGGLER if treatment.straggler else Manner.GENUINE
        first = Copy(webhook=webhook, manner=manner, skew=skew)
        once_more = replace(first, manner=Manner.DUPLICATE)
        if treatment.together:
            firsts = (first,) * simulator.copies
            more = max(len(treatment.duplicates), 2 - len(firsts))
            return [*due, self._due(after, *firsts, *(once_more,) * more)]
        due += [self._due(after, first) for _ in range(simulator.copies)]
        return due + [self._due(after + later, once_more) for later in treatment.duplicates]

    def shuffled(self, due: Sequence[Due], random: Random) -> list[Due]:
        """In another order, as far as they are due at the same moment."""
        mixed = random.sample(due, len(due))
        return [replace(one, order=next(self._order)) for one in mixed]

    async def deliver(self, due: Iterable[Due], send: Send, *, waits: bool, url: "Where | None" = None) -> list[Sent]:
        """Send it all, one after the other, retries included.

        With `waits` each is sent when it is due, on the clock. Without, nobody waits: what is due later comes later,
        and of a long schedule of retries only the beginning is played.
        """
        heap, begun, passed, sent = list(due), self._clock.monotonic(), 0.0, list[Sent]()
        heapq.heapify(heap)
        while heap:
            next_one = heapq.heappop(heap)
            if isfinite(next_one.after):
                if waits:
                    await self._clock.sleep(next_one.after - (self._clock.monotonic() - begun))
                passed = max(passed, next_one.after)
            passed = self._clock.monotonic() - begun if waits else passed
            for one, again in await self.ship(next_one, send, url=url):
                sent.append(one)
                if again is not None and (waits or one.tries + 1 < _MOST_TRIES_AT_ONCE):
                    heapq.heappush(heap, replace(again, after=passed + again.after))
        return sent

    async def ship(self, due: Due, send: Send, *, url: "Where | None" = None) -> list[tuple[Sent, Due | None]]:
        """Send what is due; each with its next try, where the vendor makes one."""
        if len(due.copies) == 1:
            return [await self._send(due.copies[0], send, url)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._send(copy, send, url)) for copy in due.copies]
        return [task.result() for task in tasks]

    async def _send(self, copy: Copy, send: Send, where: "Where | None") -> tuple[Sent, Due | None]:
        webhook, simulator = copy.webhook, self.simulators[copy.webhook.vendor]
        skew = simulator.faults.skew(webhook.vendor, self.number(webhook))
        at = self._clock.now() + timedelta(seconds=copy.skew + skew)
        manner = copy.manner
        address = where(webhook) if where else ""
        url, headers, body = dress(simulator, webhook, manner, at, url=address)
        if copy.tries:
            headers = (*headers, *simulator.retry_headers(copy.tries, copy.before or Reply(status=0)))
        reply = await self._reply(simulator, send(url, headers, body))
        sent = self._write(copy, reply)
        if not manner.genuine or reply.accepted:
            return sent, None
        after = simulator.retry_after(copy.tries + 1, reply)
        if after is None:
            return sent, None
        manner = Manner.RETRY if manner is Manner.GENUINE else manner
        return sent, self._due(after, replace(copy, manner=manner, tries=copy.tries + 1, before=reply))

    async def _reply(self, simulator: Simulator, sending: Awaitable[Reply | int]) -> Reply:
        try:
            async with self._clock.timeout(simulator.patience):
                reply = await sending
        except TimeoutError:
            return Reply(status=0, failure="timeout")
        return Reply(status=reply) if isinstance(reply, int) else reply

    def _write(self, copy: Copy, reply: Reply) -> Sent:
        webhook = copy.webhook
        sent = Sent(
            webhook=webhook,
            manner=copy.manner,
            status=reply.status,
            at=self._clock.now(),
            number=self.number(webhook),
            tries=copy.tries,
            skew=copy.skew,
            failure=reply.failure,
        )
        self.sent.append(sent)
        if self._journal is not None:
            self._journal.webhook(sent)
        if copy.manner is not Manner.GENUINE:
            name = "forge" if copy.manner.forged else copy.manner
            self.simulators[webhook.vendor].faults.count(webhook.vendor, f"webhook_{name}")
        return sent

    def _due(self, after: float, *copies: Copy) -> Due:
        return Due(after, next(self._order), copies)

    # What became of it

    @property
    def accepted_forgeries(self) -> list[Sent]:
        """Forged webhooks the receiver answered 2xx; there must be none."""
        return [sent for sent in self.sent if sent.manner.forged and sent.accepted]

    @property
    def refused(self) -> list[Sent]:
        """The last try of each genuine webhook that no try has brought in; there must be none.

        What a vendor whose clock is further off than it may be has signed is not among them.
        """
        mine = [sent for sent in self.sent if sent.manner.genuine or sent.manner is Manner.DUPLICATE]
        in_time = [sent for sent in mine if abs(sent.skew) <= TOLERANCE]
        accepted = {sent.number for sent in mine if sent.accepted}
        last = {sent.number: sent for sent in in_time if sent.number not in accepted}
        return list(last.values())

    def clear(self) -> None:
        """Forget what was sent and dropped; numbers begin anew."""
        self.sent.clear()
        self.dropped.clear()
        self._numbers.clear()
        self.owed = 0


Where = Callable[[Webhook], str]
"""The address a webhook is sent to, in place of its own."""
