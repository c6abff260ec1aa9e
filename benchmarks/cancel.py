"""Cancellations at any point of guarded calls, with every layer on: nothing stays taken, and none is swallowed."""

import asyncio
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from random import Random
from typing import Final

from benchmarks._measure import Report, arguments, publish, versions
from holdfast.errors import CallFailed, CredentialRefused, OutcomeUnknown, Rejected, Throttled
from holdfast.outcome import Effect
from holdfast.resilience.breaker import CircuitState
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Breaker, Budget, Cache, Concurrency, Hedge, Policy, Rate, Retry
from holdfast.testing.clock import ManualClock

AT_ONCE: Final = 48
"""Calls under way: more than there are places, so that some wait for each layer."""
BETWEEN_LOOKS: Final = 100
"""Cancellations after which all calls are ended, and what is still taken is counted."""
WINDOW: Final = 1.0
POLICY: Final = Policy(
    deadline=2,
    cache=Cache(0.1, stale=0.2),
    hedge=Hedge(0.2),
    retry=Retry(attempts=3, base=0.05, throttled_base=0.05),
    budget=Budget(1.0, reserve=1000),
    rate=Rate(150, per=WINDOW),
    concurrency=Concurrency(16, adaptive=True, least=8),
    breaker=Breaker(open_for=0.1, open_cap=0.1),
    timeout=0.4,
)
FAILURES: Final[tuple[Callable[[], Exception] | None, ...]] = (
    None,
    partial(OutcomeUnknown, "down", status=500, hard=True),
    ConnectionRefusedError,
    partial(CredentialRefused, "stale"),
    partial(Throttled, "slow down", status=429, retry_after=0.05),
    partial(Rejected, "no"),
    partial(ValueError, "the caller's own"),
)
WELL: Final = (60, 10, 10, 10, 1, 4, 5)
AILING: Final = (10, 80, 0, 0, 0, 0, 0)
"""Keeps the circuits between open and half-open, so that probes are cancelled."""
LAYERS: Final = ("permits", "slots", "tickets", "timers")
REMARKS: Final = {
    "cancelled": "calls that ended as the cancellation they were asked for",
    "leaked": "all of the following",
    "leaked_permits": "half-open circuits that wait for a probe nobody makes",
    "leaked_slots": "places and slots of the rate that nobody uses",
    "leaked_tickets": "places in a line where nobody waits",
    "leaked_timers": "time limits of nobody",
    "swallowed": "calls that went on, or ended otherwise, though cancelled",
}


def main() -> None:
    parser = arguments("cancel", __doc__)
    parser.add_argument("--cancellations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    storm = Storm(options.seed)
    asyncio.run(storm.play(options.cancellations))

    leaked = {f"leaked_{layer}": storm.leaked[layer] for layer in LAYERS}
    publish(
        Report(
            name="cancel",
            figures={
                "leaked": sum(leaked.values()),
                **leaked,
                "swallowed": storm.swallowed,
                "cancelled": storm.cancelled,
            },
            versions=versions("holdfast"),
            remarks=REMARKS,
            lines=["", "  how the calls ended: " + said(storm.ended), ""],
        ),
        options,
    )


class Storm:
    """Many calls of one guard, and somebody who cancels them; time and chance are given."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(f"storm {seed}")
        self._clock = ManualClock()
        self._guard, self._weights = self._fresh(), WELL
        self._asked: dict[asyncio.Task[None], bool] = {}
        """The calls under way, and whether they were asked to end."""
        self.leaked: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.cancelled = self.swallowed = 0

    async def play(self, cancellations: int) -> None:
        async with asyncio.TaskGroup() as calls:
            while self.cancelled < cancellations:
                goal = min(self.cancelled + BETWEEN_LOOKS, cancellations)
                self._guard, self._weights = self._fresh(), self._chance.choice((WELL, WELL, AILING))
                while self.cancelled < goal:
                    await self._step(calls)
                await self._end_all()
                await self._look()
        await self._clock.advance(60)  # a line's timer may ring for nobody, once
        self.leaked["timers"] += self._clock.pending

    def _fresh(self) -> Guard:
        """A guard that has seen nothing: one that was throttled long enough lets nobody through."""
        return Guard("storm", POLICY, clock=self._clock, random=Random(self._chance.random()))

    async def _step(self, calls: asyncio.TaskGroup) -> None:
        while len(self._asked) < AT_ONCE:
            self._asked[calls.create_task(self._call())] = False
        for _ in range(self._chance.randrange(4)):
            await asyncio.sleep(0)
        if self._chance.random() < 0.2:
            await self._clock.advance(self._chance.uniform(0, 0.1))
        self._cancel(self._chance.choice(list(self._asked)))
        self._sweep()

    def _cancel(self, call: "asyncio.Task[None]") -> None:
        if not self._asked[call]:
            self._asked[call] = call.cancel()

    def _sweep(self) -> None:
        for call in [call for call in self._asked if call.done()]:
            asked = self._asked.pop(call)
            self.cancelled += call.cancelled()
            self.swallowed += asked and not call.cancelled()

    async def _end_all(self) -> None:
        for call in self._asked:
            self._cancel(call)
        await self._clock.advance(0)
        self._sweep()
        self.swallowed += len(self._asked)

    async def _look(self) -> None:
        """Count what is taken though nobody is there."""
        seen, now = self._guard.snapshot(), self._clock.monotonic()
        places, rates = self._guard._shared.places, self._guard._shared.rates  # the snapshot does not show them
        assert places is not None
        self.leaked["timers"] += seen.running
        for circuit in seen.circuits.values():
            self.leaked["permits"] += circuit.state is CircuitState.HALF_OPEN and circuit.retry_after != 0
        self.leaked["slots"] += places.snapshot(now).in_use
        self.leaked["tickets"] += places.snapshot(now).waiting + sum(rate.snapshot(now).waiting for rate in rates)
        await self._clock.advance(WINDOW * 1.1)
        self.leaked["slots"] += sum(rate.snapshot(self._clock.monotonic()).in_use for rate in rates)

    async def _call(self) -> None:
        outcome = "ok"
        try:
            with suppress(ValueError):
                await self._guard.run(
                    self._provider,
                    effect=self._chance.choice(list(Effect)),
                    operation=self._chance.choice(("pay", "look")),
                    credential=self._chance.choice(("first", "second")),
                    refresh=self._refresh,
                )
        except CallFailed as error:
            outcome = type(error).__name__
        self.ended[outcome] += 1

    async def _provider(self) -> None:
        if self._chance.random() < 0.9:
            with self._at("exchange"):
                await self._clock.sleep(self._chance.uniform(0, 0.42))
        [failure] = self._chance.choices(FAILURES, self._weights)
        if failure is not None:
            raise failure()

    async def _refresh(self) -> None:
        with self._at("refresh"):
            await self._clock.sleep(self._chance.uniform(0, 0.1))

    @contextmanager
    def _at(self, stage: str) -> Generator[None]:
        try:
            yield
        except asyncio.CancelledError:
            self.ended[f"cancelled or timed out in {stage}"] += 1
            raise


def said(ended: Counter[str]) -> str:
    return ", ".join(f"{name} {times}" for name, times in ended.most_common())


if __name__ == "__main__":
    main()
