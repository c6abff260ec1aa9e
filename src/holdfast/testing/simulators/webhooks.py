"""Webhooks as they really arrive: twice, late, out of order, forged, or not at all."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from holdfast.clock import Clock, SystemClock
from holdfast.testing.faults import chance
from holdfast.testing.simulators.courier import Courier, Due, Hears, Send, Sent, Treatment
from holdfast.testing.simulators.forgeries import Manner, forgeries
from holdfast.testing.simulators.simulator import Simulator, Webhook

__all__ = ["Manner", "Mischief", "Sent", "WebhookSimulator"]

_PAUSE: Final = 0.02
_AT_ONCE: Final = 64
_BEARABLE: Final = 240.0
"""Seconds."""


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
    together: float = 0
    """Two copies of it are sent at the same moment."""
    skew: float = 0
    """The clock that signs it is wrong, by less than a receiver must bear."""

    def treat(self, simulator: Simulator, webhook: Webhook, number: int, seed: int) -> Treatment:
        """What happens to the `number`-th webhook of this vendor."""
        random = chance(seed, simulator.vendor, "webhook", number)
        # Drawn in a fixed order, each whether needed or not, so that one option does not reshuffle the others.
        draws = {name: random.random() for name in ("drop", "delay", "duplicate", "forge", "lie")}
        late, once_more = random.uniform(0, self.up_to), random.uniform(0, self.up_to)
        which = random.random()
        draws |= {name: random.random() for name in ("together", "skew")}
        skew = random.uniform(-_BEARABLE, _BEARABLE)
        happens = {name: draw < getattr(self, name) for name, draw in draws.items()}
        possible = forgeries(simulator, webhook) if happens["forge"] else []
        return Treatment(
            dropped=happens["drop"],
            after=late if happens["delay"] else 0.0,
            duplicates=(once_more,) if happens["duplicate"] else (),
            together=happens["together"],
            forged=(possible[int(which * len(possible))],) if possible else (),
            lie=happens["lie"],
            skew=skew if happens["skew"] else 0.0,
        )


class WebhookSimulator:
    """Takes what simulators owe from their outboxes and delivers it, with the mischief asked for.

    `await deliver()` sends all there is, in the order the mischief makes, without waiting: for tests. `await run()`
    goes on for ever, and takes its time. For a test that says what happens to its webhooks there is
    `holdfast.testing.deliveries.Webhooks`.
    """

    def __init__(
        self,
        simulators: Sequence[Simulator],
        send: Send,
        *,
        mischief: Mischief | Mapping[str, Mischief] = Mischief(),
        seed: int = 0,
        clock: Clock | None = None,
        journal: Hears | None = None,
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        self._courier = Courier(lambda: simulators, clock=self._clock, journal=journal)
        self._simulators = simulators
        self._send = send
        self._mischief = mischief
        self._seed = seed
        self._numbers: dict[str, int] = {}

    @property
    def sent(self) -> list[Sent]:
        """Every request made, in order."""
        return self._courier.sent

    @property
    def dropped(self) -> list[Webhook]:
        """What was never sent."""
        return self._courier.dropped

    @property
    def accepted_forgeries(self) -> list[Sent]:
        """Forged webhooks the receiver answered 2xx; there must be none."""
        return self._courier.accepted_forgeries

    def clear(self) -> None:
        """Forget what was sent and dropped."""
        self._courier.clear()

    def calm(self) -> None:
        """No more mischief from now on."""
        self._mischief = Mischief()

    async def deliver(self) -> list[Sent]:
        """Send everything owed, retries included, one after the other."""
        return await self._courier.deliver(self._collect(), self._send, waits=False)

    async def run(self) -> NoReturn:
        """Send everything owed when it is due, for ever."""
        gate = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            while True:
                for simulator in self._simulators:
                    simulator.tick()
                for due in self._collect():
                    tasks.create_task(self._wait_and_ship(due, gate))
                await self._clock.sleep(_PAUSE)

    async def _wait_and_ship(self, due: Due, gate: asyncio.Semaphore) -> None:
        waiting = [due]
        while waiting:
            due = min(waiting)
            waiting.remove(due)
            await self._clock.sleep(due.after)
            async with gate:
                shipped = await self._courier.ship(due, self._send)
            waiting += [again for _, again in shipped if again is not None]

    def _collect(self) -> list[Due]:
        self._courier.waiting()  # numbers them, before they are taken vendor by vendor
        due: list[Due] = []
        for simulator in self._simulators:
            while simulator.outbox:
                due += self._plan(simulator, simulator.outbox.popleft())
        return due

    def _plan(self, simulator: Simulator, webhook: Webhook) -> list[Due]:
        number = self._numbers[simulator.vendor] = self._numbers.get(simulator.vendor, 0) + 1
        mischief = self._mischief
        if isinstance(mischief, Mapping):
            mischief = mischief.get(simulator.vendor, Mischief())
        return self._courier.plan(webhook, mischief.treat(simulator, webhook, number, self._seed))
