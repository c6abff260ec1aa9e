"""The hub: providers of three families, one store, one door, and the handlers of what happens."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from holdfast.clock import Clock
from holdfast.errors import ConfigurationError, NotFound, Permanent
from holdfast.http.transports import Transport
from holdfast.http.vendor import HttpVendor
from holdfast.meetings.client import Meetings
from holdfast.meetings.provider import LocalMeetingProvider, MeetingProvider
from holdfast.notifications.client import Notifications
from holdfast.notifications.provider import NotificationProvider
from holdfast.payments.client import Payments
from holdfast.payments.provider import PaymentProvider
from holdfast.queue import events, inbox
from holdfast.queue.backlog import Backlog, BacklogLimits
from holdfast.queue.events import Event, Requirement
from holdfast.queue.inbox import Arrived
from holdfast.queue.receiver import Receiver
from holdfast.queue.retention import Retention
from holdfast.queue.signals import NotHandledIn
from holdfast.queue.takeover import Takeover
from holdfast.queue.worker import Result, Worker, WorkerOptions
from holdfast.resilience import Policy
from holdfast.runtime import Runtime
from holdfast.stores import Store
from holdfast.stores.store import Job
from holdfast.telemetry import SweepRan, Telemetry
from holdfast.values import Secrets
from holdfast.webhooks.door import ReceivesWebhooks

EventT = TypeVar("EventT", bound=Event)
Function = TypeVar("Function", bound=Callable[..., Any])
RawHandler = Callable[[Arrived], Awaitable[None]]

MISSES = 6
"""After so many looks in vain a delivery is nobody's: another system shares the vendor's account."""


class Holdfast:
    """Everything a backend needs of its payment, meeting and notification providers.

    `async with hub:` opens connections: it can call and receive. `hub.lifespan` and `hub.work()` also run handlers
    and sweeps.
    """

    def __init__(
        self,
        *,
        store: str | Store,
        secret: Secrets | None = None,
        public_url: str | None = None,
        payments: Sequence[PaymentProvider] | Payments = (),
        meetings: Sequence[MeetingProvider | LocalMeetingProvider] | Meetings = (),
        notifications: Sequence[NotificationProvider[Any]] | Notifications = (),
        policies: Mapping[str, Policy] | None = None,
        telemetry: Telemetry | None = None,
        worker: WorkerOptions | None = None,
        backlog: BacklogLimits | None = None,
        sweep_every: float = 5.0,
        clock: Clock | None = None,
        chance: random.Random | None = None,
        transport: Callable[[HttpVendor], Transport] | None = None,
        fleet: bool = True,
    ) -> None:
        """`policies` are by provider's name; `transport` replaces the network, for tests; `chance` and `clock` replace
        luck and time. `fleet=False` keeps what this process learns of outages to itself.

        Raises:
            ConfigurationError: Two providers share a name, a live credential stands beside http:// or memory://, or
                `secret` is missing where links have to be signed.
        """
        self._runtime = Runtime(
            store,
            secret=secret,
            public_url=public_url,
            clock=clock,
            chance=chance,
            telemetry=telemetry,
            policies=policies,
            transport=transport,
            fleet=fleet,
        )
        self.payments = (payments if isinstance(payments, Payments) else Payments(payments)).bind(self._runtime)
        self.meetings = (meetings if isinstance(meetings, Meetings) else Meetings(meetings)).bind(self._runtime)
        self.notifications = (
            notifications if isinstance(notifications, Notifications) else Notifications(notifications)
        ).bind(self._runtime)
        self._families = (self.payments, self.meetings, self.notifications)
        self._doors = self._collect_doors()
        if self.meetings.providers or any(door.scheme is None for door in self._doors.values()):
            _ = self._runtime.secret  # told now if it is missing, not with the first customer
        self._raw: dict[tuple[str, str], RawHandler] = {}
        self._worker_options = worker or WorkerOptions()
        self._sweep_every = sweep_every
        self.receiver = Receiver(
            self._doors,
            lambda: self._runtime.store.jobs,
            lambda: self._runtime.secret,
            public_url=self._runtime.public_url,
            clock=self._runtime.clock,
            telemetry=self._runtime.telemetry,
            opened=self._runtime,
            backlog=Backlog(
                lambda: self._runtime.store.jobs,
                self._runtime.spawn,
                limits=backlog or BacklogLimits(),
                clock=self._runtime.clock,
                telemetry=self._runtime.telemetry,
            ),
        )

    @property
    def telemetry(self) -> Telemetry:
        """Where signals go: `hub.telemetry.add(sink)`."""
        return self._runtime.telemetry

    @property
    def store(self) -> Store:
        """The store, for those who look into queues and records."""
        return self._runtime.store

    # Handlers.

    def on(
        self, event: type[EventT], *, name: str = "", require: Requirement | None = None
    ) -> Callable[[Function], Function]:
        """Register a handler of an event; `name` is its identity in the queue and in `holdfast_handled`.

        A handler runs at least once; `event.handled_in(session)` makes its effect exactly once. With
        `require="handled_in"`, returning without that raises an alarm: the signal `holdfast.not_handled_in`.
        """

        def register(handler: Function) -> Function:
            self._runtime.subscriptions.on(event, handler, name=name, require=require)
            return handler

        return register

    def on_delivery(self, provider: str, type: str = "*") -> Callable[[RawHandler], RawHandler]:
        """Register a handler of a vendor's own deliveries, for what holdfast has no event for."""
        if provider not in self._doors:
            raise ConfigurationError(f"no provider named {provider} receives webhooks; there are {sorted(self._doors)}")

        def register(handler: RawHandler) -> RawHandler:
            self._raw[provider, type] = handler
            return handler

        return register

    # Lifetime.

    async def __aenter__(self) -> Self:
        await self._runtime.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._runtime.__aexit__(kind, error, at)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """For `FastAPI(lifespan=hub.lifespan)`: open, work in the background, stop cleanly."""
        failure: Exception | None = None
        async with self, asyncio.TaskGroup() as group:
            work = group.create_task(self.work())
            try:
                yield
            except Exception as error:  # the app's own, to be raised as it is and not as a group of one
                failure = error
            finally:
                work.cancel()
        if failure is not None:
            raise failure

    async def work(self) -> None:
        """Run deliveries, handlers and sweeps until cancelled; the hub is open."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._worker().run())
            group.create_task(self._takeover().run())
            group.create_task(self._retention().run())
            group.create_task(self._sweep_forever())

    async def settle(self, *, rounds: int = 100) -> int:
        """Run what is due now, and what that brings about, until nothing is; how many jobs ran. For tests and scripts.

        Sweeps run once first.
        """
        await self._sweep_once()
        worker = self._worker()
        done = 0
        for _ in range(rounds):
            ran = await worker.run_once()
            if not ran:
                break
            done += ran
        return done

    def _worker(self) -> Worker:
        return Worker(
            self._runtime.store.jobs,
            self._perform,
            queues=(inbox.QUEUE, events.QUEUE),
            owner=self._runtime.owner,
            clock=self._runtime.clock,
            chance=self._runtime.chance,
            telemetry=self._runtime.telemetry,
            options=self._worker_options,
            redact=self._runtime.redactor.redact,
            apart=self._runtime.store_apart,
        )

    def _takeover(self) -> Takeover:
        return Takeover(
            self._runtime.store,
            self._runtime.owner,
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
            clock=self._runtime.clock,
            chance=self._runtime.chance,
            telemetry=self._runtime.telemetry,
        )

    # Work.

    async def _perform(self, job: Job) -> Result:
        if job.queue == inbox.QUEUE:
            return await self._perform_delivery(inbox.from_job(job))
        subscription = self._runtime.subscriptions.find(job.kind, job.handler)
        if subscription is None:
            raise Permanent(f"this program has no handler {job.handler!r} of {job.kind}; replay it where there is one")
        if not await subscription.deliver(job):
            self._runtime.telemetry.emit(NotHandledIn(job.kind, job.handler))
        return "done"

    async def _perform_delivery(self, delivery: Arrived) -> Result:
        raw = self._raw.get((delivery.provider, delivery.type)) or self._raw.get((delivery.provider, "*"))
        if raw is not None:
            await raw(delivery)
        known = False
        for family in self._families:
            if delivery.recognised and delivery.provider in family.providers:
                try:
                    known = await family.arrived(delivery)
                except NotFound:
                    if delivery.attempts < MISSES:
                        raise
        return "done" if known or raw is not None else "ignored"

    async def _sweep_forever(self) -> None:
        clock = self._runtime.clock
        while True:
            lease = await self._runtime.lease("sweep", ttl=max(10.0, 2 * self._sweep_every))
            if lease is not None:
                # Each for itself: what one family's sweep raises neither stops the others nor the worker.
                await self._runtime.each([self._sweep(family) for family in self._families], at_once=1)
            await clock.sleep(self._sweep_every * self._runtime.chance.uniform(0.8, 1.2))

    async def _sweep_once(self) -> None:
        for family in self._families:
            await self._sweep(family)

    async def _sweep(self, family: Payments | Meetings | Notifications) -> None:
        looked = await family.sweep()
        if looked:
            self._runtime.telemetry.emit(SweepRan(type(family).__name__.lower(), looked, 0))

    def _collect_doors(self) -> dict[str, ReceivesWebhooks]:
        doors: dict[str, ReceivesWebhooks] = {}
        names: set[str] = set()
        for family in self._families:
            for name, provider in family.providers.items():
                if name in names:
                    raise ConfigurationError(f"two providers are named {name}; give each account its own name=")
                names.add(name)
                if isinstance(provider, ReceivesWebhooks):
                    doors[name] = provider
        return doors
