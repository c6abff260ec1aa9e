"""What runs while a hub works: workers, sweeps, and those who look after jobs that are old, stuck or missing."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol, cast

from holdfast.errors import ConfigurationError
from holdfast.http.vendor import HttpVendor
from holdfast.queue import calls, events, inbox, recurring
from holdfast.queue.alerts import AlertLimits, Alerts
from holdfast.queue.dead_letters import DeadLetterWatch
from holdfast.queue.outbox import Outbox
from holdfast.queue.owners import Owner
from holdfast.queue.reconciliation import Counts, Reconciliation, SupportsListing
from holdfast.queue.recurring import Recurring
from holdfast.queue.relay import Relay
from holdfast.queue.retention import Retention
from holdfast.queue.takeover import Takeover
from holdfast.queue.worker import Result, Together, Worker, WorkerOptions
from holdfast.runtime import Runtime
from holdfast.stores.store import Job
from holdfast.telemetry import SweepRan

QUEUES = (inbox.QUEUE, events.QUEUE, calls.QUEUE, calls.URGENT, recurring.QUEUE)
"""All there are; a limit of a group begins with one."""
URGENT_SHARE = 4
"""Urgent calls have a quarter as many places as everything else, beside it."""


class Family(Protocol):
    """Payments, meetings or notifications."""

    @property
    def providers(self) -> Mapping[str, object]: ...

    async def sweep(self) -> int:
        """Look at what is due; how many that were."""
        ...


class Background:
    """All that goes on beside the program's own calls."""

    def __init__(
        self,
        runtime: Runtime,
        families: Sequence[Family],
        perform: Callable[[Job], Awaitable[Result]],
        outbox: Outbox,
        recurring: Recurring,
        together: Together,
        *,
        worker: WorkerOptions,
        alerts: AlertLimits,
        sweep_every: float,
        reconcile_every: float,
    ) -> None:
        self.relays: list[Relay] = []
        self._runtime = runtime
        self._families = families
        self._perform = perform
        self._outbox = outbox
        self._recurring = recurring
        self._together = together
        for group in worker.limits:
            if group.partition("/")[0] not in QUEUES:
                raise ConfigurationError(f"limits names {group}, which is no queue; they are {', '.join(QUEUES)}")
        self._worker_options = worker
        self._alert_limits = alerts
        self._sweep_every = sweep_every
        self._reconcile_every = reconcile_every
        self._works = False

    def check_idle(self, what: str) -> None:
        """Raises ConfigurationError: the workers have begun, and would not look there."""
        if self._works:
            raise ConfigurationError(f"{what} comes too late: register it before the hub works")

    async def run(self) -> None:
        """Work until cancelled."""
        async with self._working(), asyncio.TaskGroup() as group:
            group.create_task(self._worker(self._queues()).run())
            group.create_task(self._takeover(self._runtime.owner).run())
            if self._outbox.urgent_queues:
                # Places of their own: urgent calls wait neither for the others' turn nor for their end.
                owner = str(Owner.of_this_process())
                urgent = self._worker(self._outbox.urgent_queues, owner=owner, share=URGENT_SHARE)
                group.create_task(urgent.run())
                group.create_task(self._takeover(owner).run())
            group.create_task(self._recurring.run())
            for relay in self.relays:
                group.create_task(relay.run())
            group.create_task(self._retention().run())
            group.create_task(self._alerts().run())
            group.create_task(self._dead_letters().run())
            group.create_task(self._sweep_forever())
            group.create_task(self._reconciliation().run())

    async def settle(self, rounds: int) -> int:
        """Run what is due now, and what that brings about, until nothing is; how many jobs ran."""
        for family in self._families:
            await self._sweep(family)
        await self._recurring.look()
        worker = self._worker([*self._outbox.urgent_queues, *self._queues()])
        dead_letters = self._dead_letters()
        done = 0
        for _ in range(rounds):
            moved = sum([await relay.move() for relay in self.relays])
            ran = await worker.run_once()
            if not ran and not moved and not await dead_letters.look():
                break
            done += ran
        return done

    async def reconcile(self) -> Mapping[str, Counts]:
        """Ask every vendor that can be asked what happened since the last time."""
        return await self._reconciliation().look()

    @asynccontextmanager
    async def _working(self) -> AsyncGenerator[None]:
        self._works = True
        try:
            yield
        finally:
            self._works = False

    # Jobs.

    def _queues(self) -> list[str]:
        return [inbox.QUEUE, events.QUEUE, *self._outbox.queues, *self._recurring.queues]

    def _worker(self, queues: Sequence[str], *, owner: str | None = None, share: int = 1) -> Worker:
        options = self._worker_options
        return Worker(
            self._runtime.store.jobs,
            self._perform,
            queues=queues,
            owner=owner or self._runtime.owner,
            clock=self._runtime.clock,
            chance=self._runtime.chance,
            telemetry=self._runtime.telemetry,
            options=replace(options, concurrency=max(1, options.concurrency // share)),
            retry=self._runtime.subscriptions.retry_of,
            redact=self._runtime.redactor.redact,
            apart=self._runtime.store_apart,
            together=self._together,
        )

    def _takeover(self, owner: str) -> Takeover:
        return Takeover(
            self._runtime.store,
            owner,
            every=self._worker_options.takeover,
            lease=self._worker_options.lease,
            clock=self._runtime.clock,
            telemetry=self._runtime.telemetry,
        )

    def _retention(self) -> Retention:
        return Retention(
            self._runtime.store.jobs,
            lambda: self._runtime.lease("purge", ttl=120.0),
            older_than=self._worker_options.retention,
            dead=self._worker_options.retention_dead,
            clock=self._runtime.clock,
            chance=self._runtime.chance,
            telemetry=self._runtime.telemetry,
        )

    def _alerts(self) -> Alerts:
        return Alerts(
            self._runtime.store,
            lambda: self._runtime.lease("alerts", ttl=30.0),
            limits=self._alert_limits,
            clock=self._runtime.clock,
            chance=self._runtime.chance,
            telemetry=self._runtime.telemetry,
        )

    def _dead_letters(self) -> DeadLetterWatch:
        return DeadLetterWatch(
            self._runtime.store,
            self._runtime.subscriptions,
            lambda: self._runtime.lease("dead_letters", ttl=30.0),
            clock=self._runtime.clock,
            chance=self._runtime.chance,
        )

    # What nobody told us.

    def _reconciliation(self) -> Reconciliation:
        every = self._reconcile_every
        return Reconciliation(
            {
                name: provider
                for family in self._families
                for name, provider in family.providers.items()
                if isinstance(provider, SupportsListing)
            },
            self._runtime.store,
            lambda provider: self._runtime.http(cast(HttpVendor, provider)),
            lambda: self._runtime.lease("reconcile", ttl=min(3600.0, max(60.0, 1.5 * every))),
            self._runtime.each,
            every=every,
            clock=self._runtime.clock,
            chance=self._runtime.chance,
            telemetry=self._runtime.telemetry,
        )

    async def _sweep_forever(self) -> None:
        clock = self._runtime.clock
        while True:
            lease = await self._runtime.lease("sweep", ttl=max(10.0, 2 * self._sweep_every))
            if lease is not None:
                # Each for itself: what one family's sweep raises neither stops the others nor the worker.
                await self._runtime.each([self._sweep(family) for family in self._families], at_once=1)
            await clock.sleep(self._sweep_every * self._runtime.chance.uniform(0.8, 1.2))

    async def _sweep(self, family: Family) -> None:
        looked = await family.sweep()
        if looked:
            self._runtime.telemetry.emit(SweepRan(type(family).__name__.lower(), looked, 0))
