"""The hub: providers of three families, one store, one door, and the handlers of what happens."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

from holdfast.background import Background
from holdfast.clock import Clock
from holdfast.errors import ConfigurationError, NotFound, Permanent
from holdfast.http.transports import Transport
from holdfast.http.vendor import HttpVendor
from holdfast.meetings.client import Meetings
from holdfast.meetings.privacy import MeetingPrivacy
from holdfast.meetings.provider import LocalMeetingProvider, MeetingProvider
from holdfast.notifications.client import Notifications
from holdfast.notifications.models import Recipient
from holdfast.notifications.privacy import DispatchPrivacy
from holdfast.notifications.provider import NotificationProvider
from holdfast.on_call import OnCall
from holdfast.payments.accounts import Retired
from holdfast.payments.client import Payments
from holdfast.payments.privacy import PaymentPrivacy
from holdfast.payments.provider import PaymentProvider
from holdfast.queue import calls, inbox, recurring
from holdfast.queue.alerts import AlertLimits
from holdfast.queue.backlog import Backlog, BacklogLimits
from holdfast.queue.calls import Callees, Check, OnUnknown
from holdfast.queue.events import Event, HandlerRetry, Requirement, check_event
from holdfast.queue.inbox import Arrived
from holdfast.queue.intake import ReceiverLimits
from holdfast.queue.operations import Queue
from holdfast.queue.outbox import Outbox
from holdfast.queue.privacy import Erasure, Privacy, of_job, of_record
from holdfast.queue.receiver import Receiver
from holdfast.queue.reconciliation import Counts
from holdfast.queue.recurring import Recurring
from holdfast.queue.relay import Relay
from holdfast.queue.signals import NotHandledIn
from holdfast.queue.transactional import Transactional, check
from holdfast.queue.upkeep import SupportsUpkeep, Upkeep
from holdfast.queue.views import private_fields_of, redacted
from holdfast.queue.worker import Result, WorkerOptions
from holdfast.resilience import Policy
from holdfast.runtime import Runtime
from holdfast.settings import check_kind, check_seconds
from holdfast.stores import Store
from holdfast.stores.encrypted import EncryptedStore
from holdfast.stores.key_ring import KeyRing
from holdfast.stores.rotation import Rotating, Rotation
from holdfast.stores.store import Job, Json
from holdfast.telemetry import Telemetry
from holdfast.values import Secrets
from holdfast.webhooks.door import ReceivesWebhooks, receives_webhooks

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
        payments: Sequence[PaymentProvider | Retired] | Payments = (),
        meetings: Sequence[MeetingProvider | LocalMeetingProvider] | Meetings = (),
        notifications: Sequence[NotificationProvider[Any]] | Notifications = (),
        policies: Mapping[str, Policy] | None = None,
        telemetry: Telemetry | None = None,
        worker: WorkerOptions | None = None,
        backlog: BacklogLimits | None = None,
        alerts: AlertLimits | None = None,
        on_call: Recipient | None = None,
        on_call_for: Collection[type[Event]] | None = None,
        receiver: ReceiverLimits | None = None,
        sweep_every: float = 5.0,
        reconcile_every: float = 300.0,
        clock: Clock | None = None,
        chance: random.Random | None = None,
        transport: Callable[[HttpVendor], Transport] | None = None,
        fleet: bool = True,
        encryption: KeyRing | None = None,
        subject_keys: str | Store | None = None,
    ) -> None:
        """`policies` are by provider's name; `transport` replaces the network, for tests; `chance` and `clock` replace
        luck and time. `fleet=False` keeps what this process learns of outages to itself. With `encryption` payloads
        rest sealed; `subject_keys` is another store, for the keys that `forget` destroys. `on_call` is told, by the
        notifications, of what a person has to act on: of all of it, or of the events `on_call_for` names.

        Raises:
            ConfigurationError: Two providers share a name, a live credential stands beside http:// or memory://, or
                `secret` is missing where links have to be signed; `policies` or a route names nobody that is there;
                something could not be told to `on_call`; or an option is not of its kind, or out of its range.
        """
        _check_kinds(
            policies=policies,
            telemetry=telemetry,
            worker=worker,
            backlog=backlog,
            alerts=alerts,
            receiver=receiver,
            on_call=on_call,
            encryption=encryption,
        )
        check_seconds("sweep_every", sweep_every, above=0)
        check_seconds("reconcile_every", reconcile_every)
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
            encryption=encryption,
            subject_keys=subject_keys,
        )
        self.payments = (payments if isinstance(payments, Payments) else Payments(payments)).bind(self._runtime)
        self.meetings = (meetings if isinstance(meetings, Meetings) else Meetings(meetings)).bind(self._runtime)
        self.notifications = (
            notifications if isinstance(notifications, Notifications) else Notifications(notifications)
        ).bind(self._runtime)
        self._families = (self.payments, self.meetings, self.notifications)
        there = [name for family in self._families for name in family.providers]
        if strange := sorted(set(policies or {}) - set(there)):
            raise ConfigurationError(f"policies names {', '.join(strange)}; the providers are: {', '.join(there)}")
        self._doors = self._collect_doors()
        if self.meetings.providers or any(door.scheme is None for door in self._doors.values()):
            _ = self._runtime.secret  # told now if it is missing, not with the first customer
        if on_call is not None:
            alarms = OnCall(on_call, self.notifications, self.payments.spend_limits, about=on_call_for)
            alarms.listen(self._runtime.subscriptions)
        elif on_call_for is not None:
            raise ConfigurationError("on_call_for says what of, and on_call is missing: who is told?")
        self._privacy = Privacy(
            self._runtime.store,
            (PaymentPrivacy(), MeetingPrivacy(), DispatchPrivacy()),
            clock=self._runtime.clock,
            redact=self._runtime.redactor.redact,
        )
        self._raw: dict[tuple[str, str], RawHandler] = {}
        self._queue = Queue(
            self._runtime.store,
            owner=lambda: self._runtime.owner,
            clock=self._runtime.clock,
            telemetry=self._runtime.telemetry,
        )
        self._callees = Callees()
        self.outbox = Outbox(
            self._callees, self._runtime.store, clock=self._runtime.clock, telemetry=self._runtime.telemetry
        )
        self._recurring = Recurring(
            self._runtime.store,
            clock=self._runtime.clock,
            chance=self._runtime.chance,
            telemetry=self._runtime.telemetry,
        )
        self._transactional = Transactional(
            self._runtime.subscriptions,
            lambda: self._runtime.store.jobs,
            self._runtime.clock,
            self._runtime.telemetry,
        )
        self._background = Background(
            self._runtime,
            self._families,
            self._perform,
            self.outbox,
            self._recurring,
            self._transactional,
            worker=worker or WorkerOptions(),
            alerts=alerts or AlertLimits(),
            sweep_every=sweep_every,
            reconcile_every=reconcile_every,
        )
        self.receiver = Receiver(
            self._doors,
            lambda: self._runtime.store.jobs,
            lambda: self._runtime.secret,
            public_url=self._runtime.public_url,
            clock=self._runtime.clock,
            chance=self._runtime.chance,
            telemetry=self._runtime.telemetry,
            redact=self._runtime.redactor.redact,
            opened=self._runtime,
            limits=receiver,
            upkeep={
                name: self._upkeep(provider)
                for name, provider in self._doors.items()
                if isinstance(provider, SupportsUpkeep)
            },
            backlog=Backlog(
                lambda: self._runtime.store.jobs,
                self._runtime.spawn,
                limits=backlog or BacklogLimits(),
                clock=self._runtime.clock,
                telemetry=self._runtime.telemetry,
                store=self._runtime.store,
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

    @property
    def queue(self) -> Queue:
        """The jobs, for the people who look after them: list, replay, redrive, drop, and who did what."""
        return self._queue

    # Handlers.

    def on(
        self,
        event: type[EventT],
        *,
        name: str = "",
        require: Requirement | None = None,
        transactional: bool = False,
        retry: HandlerRetry | None = None,
    ) -> Callable[[Function], Function]:
        """Register a handler of an event; `name` is its identity in the queue and in `holdfast_handled`.

        A handler runs at least once; `event.handled_in(session)` makes its effect exactly once. With
        `require="handled_in"`, returning without that raises an alarm: the signal `holdfast.not_handled_in`.

        With `transactional=True` it is a plain function `(event, connection: sqlite3.Connection)`. What it changes in
        the store's own file is committed with the end of its job: exactly once, many in one commit. It runs in the
        thread that writes, so it is quick, and neither commits nor calls a vendor.

        `retry=HandlerRetry(attempts=5)` says how it is run again after a failure, where that is not as for the others.

        Raises:
            ConfigurationError: The name is taken, or the store or the handler cannot be transactional.
        """

        check_event(event)

        def register(handler: Function) -> Function:
            if transactional:
                check(self._runtime.store.jobs, handler, require)
            self._runtime.subscriptions.on(
                event, handler, name=name, require=require, transactional=transactional, retry=retry
            )
            return handler

        return register

    def on_delivery(self, provider: str, type: str = "*") -> Callable[[RawHandler], RawHandler]:
        """Register a handler of a vendor's own deliveries, for what holdfast has no event for.

        Without a type it gets those of every type that has no handler of its own.

        Raises:
            ConfigurationError: No such provider receives webhooks, or these deliveries have a handler.
        """
        if provider not in self._doors:
            there = ", ".join(sorted(self._doors)) or "none"
            raise ConfigurationError(f"no provider named {provider} receives webhooks; there are: {there}")

        def register(handler: RawHandler) -> RawHandler:
            if (provider, type) in self._raw:
                raise ConfigurationError(f"the deliveries {type} of {provider} have a handler; call the second from it")
            self._raw[provider, type] = handler
            return handler

        return register

    def call(
        self,
        name: str,
        *,
        payload: Any = None,
        version: int = 1,
        urgent: bool = False,
        once: bool = False,
        on_unknown: OnUnknown | None = None,
        check: Check | None = None,
    ) -> Callable[[Function], Function]:
        """Register the one handler of the calls that `hub.outbox.add(name, …)` keeps for later.

        It takes a `Call[Invoice]`, by which each payload is checked, or whatever `payload` says; `version` is written
        with each one, and a program does not read a later one than its own. Urgent calls do not wait behind others.

        A call is made at least once. With `once=True` one that may have been made already is not made again:
        `on_unknown` decides. `hold` leaves it to a person, as a dead letter, `check` asks `check(call)` whether it
        happened (None: not known yet), and `resend` makes it again all the same.

        Raises:
            ConfigurationError: The name is taken, or the options contradict each other.
        """

        def register(handler: Function) -> Function:
            self._background.check_idle(f"hub.call({name!r})")
            self._callees.add(
                name,
                handler,
                payload=payload,
                version=version,
                urgent=urgent,
                once=once,
                on_unknown=on_unknown,
                check=check,
            )
            return handler

        return register

    def every(
        self, every: timedelta, *, name: str, offset: timedelta = timedelta(0), jitter: timedelta = timedelta(0)
    ) -> Callable[[Function], Function]:
        """Register work that recurs: once in the whole fleet for each slot of time, by the store's clock.

        Slots begin at midnight UTC, whatever the season, and `offset` later; those of weeks on a Monday. Up to `jitter`
        is waited at random. Slots in which nobody was there are made up for once, not each. The handler takes nothing,
        or a `Call[datetime]` whose payload is the beginning of the slot.

        Raises:
            ConfigurationError: The name is taken, or the times do not go together.
        """

        def register(handler: Function) -> Function:
            self._background.check_idle("hub.every")
            self._recurring.add(name, handler, every=every, offset=offset, jitter=jitter)
            return handler

        return register

    def relay(self, connect: Callable[[], object], *, every: float = 0.5) -> None:
        """Move what `hub.outbox.add_in` wrote into your own database to the queue, while the hub works.

        `connect` gives a session or a connection, an awaitable of one, or a context manager around one: a
        `sessionmaker`, `engine.connect`, `pool.acquire`, `lambda: sqlite3.connect("shop.db")`. It looks each `every`
        seconds.
        """
        self._background.check_idle("hub.relay")
        self._background.relays.append(
            Relay(
                connect,
                self._runtime.store,
                every=every,
                clock=self._runtime.clock,
                chance=self._runtime.chance,
                telemetry=self._runtime.telemetry,
            )
        )

    # What is stored of people.

    async def forget(self, reference: str, *, by: str, reason: str, dry_run: bool = False) -> Erasure:
        """Make all that is stored about this reference unreadable, in copies of the store too; it is audited.

        Records keep what books need: amounts, states, times, vendors' ids. Jobs about it that did not run yet never do.
        What arrives afterwards is kept anew, so ask again if something did. With `dry_run` it is only counted.

        Raises:
            ConfigurationError: The store is not encrypted.
            InvalidInput: No reference, nobody, or for no reason.
        """
        return await self._privacy.forget(reference, by=by, reason=reason, dry_run=dry_run)

    def view(self, job: Job) -> dict[str, Json]:
        """The job for people: listed headers, the body without what its provider calls private, no secret."""
        private = private_fields_of(self._doors.get(job.kind))
        return redacted(job, private=private, redact=self._runtime.redactor.redact)

    async def export(self, reference: str, *, by: str = "", reason: str = "") -> dict[str, Json]:
        """All that is stored about this reference, as JSON without secrets: for the person it is about.

        Whoever gives it out says who they are and why; that is written down before they see it.

        Raises:
            InvalidInput: No reference, or one of the two without the other.
        """
        return await self._privacy.export(reference, by=by, reason=reason)

    async def rotate(self, *, told: Callable[[Rotation], None] | None = None) -> Rotation:
        """Seal anew what rests under an older key of the ring, or under none; `told` hears of every batch.

        Run it again after an interruption. An older key may leave the ring once the rotation is `complete`.

        Raises:
            ConfigurationError: The store is not encrypted.
        """
        store = self._runtime.store
        if not isinstance(store, EncryptedStore):
            raise ConfigurationError("the store is not encrypted: Holdfast(encryption=KeyRing.from_env(...))")
        rotating = Rotating(
            store, clock=self._runtime.clock, told=told, subject_of_job=of_job, subject_of_record=of_record
        )
        return await rotating.run()

    # Lifetime.

    async def __aenter__(self) -> Self:
        await self._runtime.__aenter__()
        try:
            await self.payments.check_providers()
        except BaseException as error:
            await self._runtime.__aexit__(type(error), error, error.__traceback__)
            raise
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
        """Run deliveries, handlers, calls, recurring work and sweeps until cancelled; the hub is open."""
        await self._background.run()

    async def settle(self, *, rounds: int = 100) -> int:
        """Run what is due now, and what that brings about, until nothing is; how many jobs ran. For tests and scripts.

        Sweeps run once first.
        """
        return await self._background.settle(rounds)

    async def reconcile(self) -> Mapping[str, Counts]:
        """Ask every vendor that can be asked what happened since the last time; what was missed is in the queue then.

        `hub.work()` does so by itself, each `reconcile_every` seconds, in one process of the fleet.

        Raises:
            CallFailed: A vendor could not be asked; the others were.
        """
        return await self._background.reconcile()

    # Work.

    async def _perform(self, job: Job) -> Result:
        if job.queue == inbox.QUEUE:
            return await self._perform_delivery(inbox.from_job(job))
        if job.queue in (calls.QUEUE, calls.URGENT):
            return await self.outbox.perform(job)
        if job.queue == recurring.QUEUE:
            return await self._recurring.perform(job)
        subscription = self._runtime.subscriptions.find(job.kind, job.handler)
        if subscription is None:
            raise Permanent(f"this program has no handler {job.handler!r} of {job.kind}; replay it where there is one")
        if subscription.transactional:
            await self._transactional.perform(job)
            return "recorded"
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

    def _upkeep(self, provider: SupportsUpkeep) -> Upkeep:
        return Upkeep(
            provider,
            lambda: self._runtime.http(cast(HttpVendor, provider)),
            self._runtime.accompany,
            redact=self._runtime.redactor.redact,
            clock=self._runtime.clock,
            chance=self._runtime.chance,
            telemetry=self._runtime.telemetry,
        )

    def _collect_doors(self) -> dict[str, ReceivesWebhooks]:
        doors: dict[str, ReceivesWebhooks] = {}
        names: set[str] = set()
        for family in self._families:
            for name, provider in family.providers.items():
                if name in names:
                    raise ConfigurationError(f"two providers are named {name}; give each account its own name=")
                names.add(name)
                if receives_webhooks(provider):
                    doors[name] = provider
        return doors


_KINDS: Final[Mapping[str, tuple[Any, str]]] = {
    "policies": (Mapping, 'policies={"zoom": Policy(timeout=5)}'),
    "telemetry": (Telemetry, "telemetry=Telemetry([sink])"),
    "worker": (WorkerOptions, "worker=WorkerOptions(concurrency=8)"),
    "backlog": (BacklogLimits, "backlog=BacklogLimits(hard=50_000)"),
    "alerts": (AlertLimits, "alerts=AlertLimits(dead=10)"),
    "receiver": (ReceiverLimits, "receiver=ReceiverLimits(rate=2_000)"),
    "on_call": (Recipient, 'on_call=Recipient(email="ops@shop.example")'),
    "encryption": (KeyRing, "encryption=KeyRing(…)"),
}
"""Options that are of one type, and how they are written."""


def _check_kinds(*, policies: Mapping[str, Policy] | None, **options: object) -> None:
    """Raises ConfigurationError: an option is of another type."""
    for name, value in {"policies": policies, **options}.items():
        check_kind(name, value, *_KINDS[name])
    for name, policy in (policies or {}).items():
        check_kind(f"policies[{name!r}]", policy, Policy, "Policy(timeout=5)")
