"""Meetings: a link within the deadline, one meeting per booking, and no orphan left behind."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from holdfast.errors import (
    CallFailed,
    ConfigurationError,
    Exhausted,
    InvalidInput,
    NaiveDatetime,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ReferenceConflict,
    VersionConflict,
)
from holdfast.meetings import machine
from holdfast.meetings.machine import Delete, Fact, GiveUp, LookUp, Show, Start, Wait, step, tidy, todo
from holdfast.meetings.models import Feature, Meeting, MeetingAttempt, MeetingRequest, MeetingStatus
from holdfast.meetings.provider import Capabilities, CreateSemantics, LocalMeetingProvider, MeetingProvider
from holdfast.meetings.record import KIND, decode, encode, token, vendor_index
from holdfast.outcome import Cause
from holdfast.queue.events import Event
from holdfast.queue.inbox import Arrived
from holdfast.resilience import Guard
from holdfast.resilience.context import deadline_scope, remaining
from holdfast.routing import Ask, Route, Routed, Router, Switch, Switched
from holdfast.runtime import Runtime
from holdfast.settings import check_providers, check_seconds
from holdfast.stores.store import Record
from holdfast.telemetry import FellOver, OutcomeBecameUnknown
from holdfast.values import Reference, Secret, Secrets

SHORTEST = timedelta(minutes=1)
LONGEST = timedelta(hours=24)
LONGEST_TOPIC = 200

_RESERVE = 0.2  # seconds kept for a local provider: two commits, no call
_SHORTEST_LOOK = 0.1
_SLACK = 0.1  # the guard's own timeout comes first, so that the circuit learns of a slow vendor
_CLAIM_MARGIN = timedelta(seconds=0.5)
_POLL = 0.05
_TICK = 0.001


class Meetings:
    """Hold meetings, over providers in order of preference; a local one at the end makes a link certain.

    Alone: `async with Meetings([...], store="sqlite:///shop.db", secret=...) as meetings`; in a hub, pass it as
    `meetings=`.
    """

    def __init__(
        self,
        providers: Sequence[MeetingProvider | LocalMeetingProvider],
        *,
        store: str | None = None,
        secret: Secrets | None = None,
        public_url: str | None = None,
        deadline: float = 1.8,
        route: Route | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        """`deadline` is one `create`, in seconds. `route` puts providers into order; without it yours counts.

        Raises:
            ConfigurationError: Two providers share a name, something is no meeting provider, or the deadline is none.
        """
        check_providers("meetings", providers, Capabilities)
        check_seconds("deadline of meetings", deadline)
        self.providers = {provider.name: provider for provider in providers}
        if len(self.providers) != len(providers):
            raise ConfigurationError("two meeting providers share a name; give each account its own name=")
        self._deadline = deadline
        self._route = route
        self._bound = runtime or (Runtime(store, secret=secret, public_url=public_url) if store else None)
        if self._bound:
            self.bind(self._bound)

    def bind(self, runtime: Runtime) -> Self:
        """Use the hub's runtime; called by the hub."""
        self._bound = runtime
        for provider in self.providers.values():
            runtime.admit(provider)
        self._router = Router(
            KIND, "create", self._route, self.providers, self._guard_of, store=runtime.store, clock=runtime.clock
        )
        return self

    async def __aenter__(self) -> Self:
        await self._runtime.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._runtime.__aexit__(kind, error, at)

    # What callers ask for.

    async def create(
        self,
        reference: str,
        *,
        starts_at: datetime,
        duration: timedelta,
        topic: str = "Meeting",
        host: str = "",
        require: AbstractSet[Feature] = frozenset(),
        prefer: AbstractSet[Feature] = frozenset(),
        region: str = "",
    ) -> Meeting:
        """Make one meeting for the booking; asked again with the same reference, the stored one comes back.

        A provider that cannot do what is in `require` is passed over; what is in `prefer` and was not to be had is in
        the meeting's `degraded`. `host` is the provider's own name of a host, by default the provider's own choice.
        The topic is shown to guests and stored by the vendor, so keep it neutral. `region` is for a route that cares
        where data stays.

        Raises:
            InvalidInput, InvalidReference, NaiveDatetime: Before anything is sent.
            ReferenceConflict: The reference names a meeting at another time or in another region, or one that was
                canceled.
            ConfigurationError: No provider can do what is required.
            NotSent: The route leaves nobody who could: its rules allow none, or all are switched off.
            Rejected: The vendor said no, for a reason no other vendor would see otherwise.
            OutcomeUnknown: No link within the deadline, and a meeting may exist at a vendor; it is being found out.
            Exhausted: Two or more providers failed; one failure is raised as itself.
        """
        wanted = Meeting(
            reference=Reference(reference),
            starts_at=_instant(starts_at),
            duration=_span(duration),
            topic=_topic(topic),
            host=host,
            require=_features("require", require),
            prefer=_features("prefer", prefer),
            time_zone=getattr(starts_at.tzinfo, "key", "UTC"),
            region=region,
            created_at=self._runtime.clock.now(),
        )
        encode(wanted)  # what cannot be kept is refused here, since a provider is asked while the record is written
        able = self._able(wanted)
        with deadline_scope(self._deadline, self._runtime.clock):
            stored = await self._load(wanted.reference)
            if stored:
                _same(stored, wanted)
            meeting = stored or wanted
            return await self._drive(meeting, await self._routed(meeting, able))

    async def get(self, reference: str) -> Meeting:
        """The meeting as last known. Raises NotFound."""
        meeting = await self._load(Reference(reference))
        if meeting is None:
            raise NotFound(KIND, reference)
        return meeting

    async def cancel(self, reference: str) -> Meeting:
        """Hold it no more: canceled from now on, deleted at the vendor as soon as that can be reached.

        Canceling twice is harmless.

        Raises:
            NotFound: There is no such meeting.
        """
        meeting = await self.get(reference)
        if meeting.status is not MeetingStatus.CANCELED:
            meeting = await self._commit(meeting, machine.Canceled(at=self._now()))
        return await self._tidy(meeting)

    async def host_url(self, reference: str) -> Secret:
        """A fresh link for the host: ask when the host is about to start, it does not live long.

        Raises:
            NotFound: There is no such meeting, or none to be held.
            CallFailed: The vendor could not be asked.
        """
        meeting = await self.get(reference)
        if not meeting.vendor_id or meeting.status is MeetingStatus.CANCELED:
            raise NotFound("meeting to be held", reference)
        provider = self._provider(meeting.provider)
        if isinstance(provider, MeetingProvider):
            return await provider.host_url(self._runtime.http(provider), meeting.vendor_id)
        return provider.host_url(
            meeting.vendor_id, starts_at=meeting.starts_at, ends_at=meeting.ends_at, now=self._now()
        )

    async def switch(
        self,
        provider: str,
        *,
        on: bool | None = None,
        weight: int | None = None,
        reset: bool = False,
        actor: str,
        reason: str,
        ttl: timedelta | None = None,
    ) -> Switch:
        """Change a provider for every process on the store, until it is switched again or `ttl` is over.

        Who is off is asked for no new meetings; those it holds already are looked up, deleted and opened as before.
        `weight` is its share where the route is `Weighted`, in place of the program's; with 0 it comes after all who
        have one. `reset` takes both back.

        Raises:
            InvalidInput: There is no such provider, nothing is switched, or actor or reason is empty.
        """
        return await self._router.switch(
            provider, on=on, weight=weight, reset=reset, actor=actor, reason=reason, ttl=ttl
        )

    async def switches(self) -> Switched:
        """Who is off, whose weight was set, and the last hundred changes: by whom, why, when."""
        return await self._router.switched()

    # What the worker asks for.

    async def tend(self, reference: str) -> Meeting:
        """Search for and delete what is due of this booking's orphans. Raises NotFound."""
        return await self._tidy(await self.get(reference))

    async def sweep(self, *, limit: int = 100) -> int:
        """Tend every meeting that wants it; how many there were."""
        due = await self._runtime.store.records.due(KIND, limit=limit)
        await self._runtime.each([self._sweep_one(record) for record in due])
        return len(due)

    async def arrived(self, delivery: Arrived) -> bool:
        """Whether a delivery is about a meeting of ours; what it says is for raw handlers, so far."""
        if not delivery.vendor_id:
            return False
        index = vendor_index(delivery.provider, delivery.vendor_id)
        return bool(await self._runtime.store.records.find(KIND, "vendor", index, limit=1))

    async def _sweep_one(self, record: Record) -> None:
        await self._tidy(decode(record))

    # One step after another.

    async def _drive(self, meeting: Meeting, routed: Routed) -> Meeting:
        failures: dict[str, CallFailed] = {}
        order, why = routed.names, routed.why
        asked = [self.providers[name] for name in order]
        if all(isinstance(provider, MeetingProvider) for provider in asked):  # a local one is always open
            self._runtime.never_shut(asked, "create")
        while True:
            action = todo(meeting, order, self._capabilities, failed=frozenset(failures), now=self._now())
            match action:
                case Show():
                    return meeting
                case Start(name):
                    self._tell_fallback(failures, name)
                    try:
                        meeting = await self._start(meeting, name, order, why=why[name])
                    except CallFailed as error:
                        failures[name] = error
                        meeting = await self._load(meeting.reference) or meeting
                case Wait(number):
                    meeting = await self._await_other(meeting, number)
                case LookUp(number):
                    share = self._share(order, meeting.attempts[number - 1].provider)
                    meeting = await self._look_up(meeting, number, within=share)
                case GiveUp(unknown):
                    raise self._failure(meeting, tuple(failures.values()), unknown)

    async def _start(self, meeting: Meeting, name: str, order: Sequence[str], *, why: str) -> Meeting:
        """Commit the attempt, then make it. Raises CallFailed, already recorded."""
        provider = self.providers[name]
        number = len(meeting.attempts) + 1
        share = self._share(order, name)
        if share <= 0 and isinstance(provider, MeetingProvider):
            text = f"{name}: the deadline of {self._deadline:.1f} s was over before it was asked"
            raise NotSent(text, provider=name, operation="create", reason="deadline", local=True)
        started = machine.Started(
            at=self._now(),
            provider=name,
            token=token(self._runtime.secret.current, meeting.reference, name, number),
            timeout=timedelta(seconds=share) + _CLAIM_MARGIN,
            why=why,
        )
        try:
            if not isinstance(provider, MeetingProvider):
                return await self._make_locally(meeting, started, provider)
            meeting = await self._apply(step(meeting, started).meeting, meeting.version)
        except VersionConflict:
            return await self.get(meeting.reference)  # another call was first: its attempt counts
        try:
            async with self._limit(name, "create", share):
                http = self._runtime.http(provider)
                snapshot = await provider.create(http, _request(meeting, meeting.attempts[-1]))
        except CallFailed as error:
            await self._commit(meeting, machine.TryFailed(at=self._now(), number=number, error=error))
            if error.cause is Cause.UNKNOWN:
                self._runtime.telemetry.emit(OutcomeBecameUnknown(name, "create", meeting.reference))
            raise
        made = machine.Made(at=self._now(), number=number, snapshot=snapshot, capabilities=provider.capabilities)
        return await self._commit(meeting, made)

    async def _make_locally(
        self, meeting: Meeting, started: machine.Started, provider: LocalMeetingProvider
    ) -> Meeting:
        """No call, so no intent to record first: the attempt and its meeting are one commit."""
        begun = step(meeting, started).meeting
        snapshot = provider.create(_request(begun, begun.attempts[-1]), now=self._now())
        made = machine.Made(
            at=self._now(), number=len(begun.attempts), snapshot=snapshot, capabilities=provider.capabilities
        )
        stepped = step(begun, made)
        return await self._apply(stepped.meeting, meeting.version, stepped.events)

    async def _await_other(self, meeting: Meeting, number: int) -> Meeting:
        """Another call is asking that provider; see what became of it, and stop waiting when our own time is up."""
        left = remaining(self._runtime.clock) - _RESERVE
        if left < _TICK:
            attempt = meeting.attempts[number - 1]
            error = OutcomeUnknown(
                f"{attempt.provider}: another call is still creating meeting {meeting.reference}",
                provider=attempt.provider,
                operation="create",
            )
            return await self._commit(meeting, machine.TryFailed(at=self._now(), number=number, error=error))
        await self._runtime.clock.sleep(min(_POLL, left))
        return await self.get(meeting.reference)

    async def _tidy(self, meeting: Meeting) -> Meeting:
        while (chore := tidy(meeting, now=self._now())) is not None:
            match chore:
                case LookUp(number):
                    meeting = await self._look_up(meeting, number, within=None)
                case Delete(number):
                    meeting = await self._delete(meeting, number)
        return meeting

    async def _look_up(self, meeting: Meeting, number: int, *, within: float | None) -> Meeting:
        """Search for the attempt, if there is time; `None`: as long as the provider's policy allows."""
        attempt = meeting.attempts[number - 1]
        provider = self.providers.get(attempt.provider)
        unreachable = machine.Unreachable(at=self._now(), number=number)
        if not isinstance(provider, MeetingProvider) or (within is not None and within < _SHORTEST_LOOK):
            return await self._commit(meeting, unreachable)
        try:
            async with self._limit(attempt.provider, "find", within):
                snapshot = await provider.find(self._runtime.http(provider), _request(meeting, attempt))
        except CallFailed:
            return await self._commit(meeting, replace(unreachable, at=self._now()))
        found = machine.LookedUp(at=self._now(), number=number, snapshot=snapshot, capabilities=provider.capabilities)
        return await self._commit(meeting, found)

    async def _delete(self, meeting: Meeting, number: int) -> Meeting:
        attempt = meeting.attempts[number - 1]
        provider = self.providers.get(attempt.provider)
        if isinstance(provider, MeetingProvider):
            try:
                await provider.delete(self._runtime.http(provider), attempt.vendor_id)
            except CallFailed:
                return await self._commit(meeting, machine.Unreachable(at=self._now(), number=number))
        elif provider is None:
            return await self._commit(meeting, machine.Unreachable(at=self._now(), number=number))
        return await self._commit(meeting, machine.Deleted(at=self._now(), number=number))

    @asynccontextmanager
    async def _limit(self, provider: str, operation: str, seconds: float | None) -> AsyncGenerator[None]:
        """A share of the deadline, everything included: also waiting for a token that another call fetches."""
        if seconds is None:
            yield
            return
        try:
            with deadline_scope(seconds, self._runtime.clock):
                async with self._runtime.clock.timeout(seconds + _SLACK):
                    yield
        except TimeoutError as error:
            text = f"{provider}: {operation} got no answer within its share of the deadline, {seconds:.1f} s"
            raise OutcomeUnknown(text, provider=provider, operation=operation, reason="timeout") from error

    # The record.

    async def _load(self, reference: str) -> Meeting | None:
        record = await self._runtime.store.records.get(KIND, reference)
        return decode(record) if record else None

    async def _commit(self, meeting: Meeting, fact: Fact) -> Meeting:
        """Apply the fact to the meeting as stored; on a lost race, read and decide again."""
        while True:
            stepped = step(meeting, fact)
            if stepped.meeting == meeting:
                return meeting
            try:
                return await self._apply(stepped.meeting, meeting.version, stepped.events)
            except VersionConflict:
                meeting = await self.get(meeting.reference)

    async def _apply(self, meeting: Meeting, expected: int, events: Sequence[Event] = ()) -> Meeting:
        jobs = self._runtime.subscriptions.jobs(events)
        record = await self._runtime.store.records.apply(KIND, meeting.reference, expected, encode(meeting), jobs=jobs)
        return replace(meeting, version=record.version)

    # Small things.

    @property
    def _runtime(self) -> Runtime:
        if self._bound is None:
            raise ConfigurationError("these meetings have no store: pass store=, or give them to a hub")
        return self._bound

    @property
    def _capabilities(self) -> Mapping[str, Capabilities]:
        return {name: provider.capabilities for name, provider in self.providers.items()}

    def _now(self) -> datetime:
        return self._runtime.clock.now()

    def _provider(self, name: str) -> MeetingProvider | LocalMeetingProvider:
        try:
            return self.providers[name]
        except KeyError:
            raise ConfigurationError(f"no provider is named {name} any more, and meetings are held there") from None

    def _able(self, wanted: Meeting) -> list[str]:
        names = [name for name, able in self._capabilities.items() if wanted.require <= able.features]
        if not self.providers:
            raise ConfigurationError("no meeting provider has been given: Holdfast(meetings=[Zoom.from_env(), …])")
        if not names:
            raise ConfigurationError(f"no meeting provider has {', '.join(sorted(wanted.require))}")
        return names

    async def _routed(self, meeting: Meeting, able: Sequence[str]) -> Routed:
        """Who is asked, in which order, and why. Raises NotSent: everybody who could be is switched off."""
        routed = await self._router.order(Ask(key=meeting.reference, region=meeting.region), able)
        if not routed.choices and not meeting.attempts:
            raise routed.refusal(f"meeting {meeting.reference}", "create")
        return routed

    def _guard_of(self, name: str) -> Guard | None:
        """None: it makes no call."""
        provider = self.providers[name]
        return self._runtime.guard(provider) if isinstance(provider, MeetingProvider) else None

    def _share(self, order: Sequence[str], name: str) -> float:
        """This provider's share of what remains of the deadline; a local one needs none."""
        kinds = (
            [self.providers[each].capabilities.create for each in order[order.index(name) :]] if name in order else []
        )
        reserve = _RESERVE if CreateSemantics.LOCAL in kinds else 0.0
        callers = sum(kind is not CreateSemantics.LOCAL for kind in kinds)
        left = max(0.0, remaining(self._runtime.clock) - reserve)
        return self._runtime.share(self.providers[name], "create", left, callers)

    def _failure(self, meeting: Meeting, failures: tuple[CallFailed, ...], unknown: int | None) -> Exception:
        if len(failures) > 1 and failures[-1].cause is not Cause.REJECTED:
            return Exhausted(f"create meeting {meeting.reference}", failures)
        if failures:
            return failures[-1]
        if unknown is None:
            return NotSent(f"no provider is left for meeting {meeting.reference}", operation="create", local=True)
        attempt = meeting.attempts[unknown - 1]
        return OutcomeUnknown(
            f"{attempt.provider}: meeting {meeting.reference} may exist there ({attempt.error or 'no answer yet'}); "
            "it is being found out",
            provider=attempt.provider,
            operation="create",
        )

    def _tell_fallback(self, failures: Mapping[str, CallFailed], to: str) -> None:
        if failures:
            name, error = list(failures.items())[-1]
            self._runtime.telemetry.emit(FellOver("meetings.create", name, to, error.cause))


def _request(meeting: Meeting, attempt: MeetingAttempt) -> MeetingRequest:
    return MeetingRequest(
        reference=meeting.reference,
        token=attempt.token,
        starts_at=meeting.starts_at,
        duration=meeting.duration,
        topic=meeting.topic,
        host=meeting.host,
        features=meeting.require | meeting.prefer,
        time_zone=meeting.time_zone,
    )


def _same(stored: Meeting, wanted: Meeting) -> None:
    """Raises ReferenceConflict: the stored meeting is not what is asked for now."""
    if stored.status is MeetingStatus.CANCELED:
        raise ReferenceConflict(KIND, stored.reference, "a cancellation")
    for name in ("starts_at", "duration", "host", "require", "region"):
        if getattr(stored, name) != getattr(wanted, name):
            raise ReferenceConflict(KIND, stored.reference, f"another {name} ({getattr(stored, name)})")


def _features(name: str, features: AbstractSet[Feature] | str) -> frozenset[Feature]:
    wanted = [features] if isinstance(features, str) else list(features)
    if unknown := [feature for feature in wanted if feature not in list(Feature)]:
        known = ", ".join(Feature)
        raise InvalidInput(f"{name} names {unknown[0]!r}, which is no feature of a meeting; there are {known}")
    if isinstance(features, str):
        raise InvalidInput(f'{name} is a set of features: {name}={{"{features}"}}')
    return frozenset(map(Feature, wanted))


def _instant(starts_at: datetime) -> datetime:
    if not isinstance(starts_at, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"starts_at is a datetime with a time zone, not a {type(starts_at).__name__}")
    if starts_at.tzinfo is None or starts_at.utcoffset() is None:
        raise NaiveDatetime("starts_at")
    return starts_at.astimezone(UTC)


def _span(duration: timedelta) -> timedelta:
    if not isinstance(duration, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"duration is a timedelta, not {duration!r}: timedelta(minutes=30)")
    if not SHORTEST <= duration <= LONGEST:
        raise InvalidInput(f"a meeting lasts from one minute to 24 hours, not {duration}")
    return duration


def _topic(topic: str) -> str:
    if not isinstance(topic, str) or not topic.strip() or len(topic) > LONGEST_TOPIC:  # type: ignore[redundant-expr]  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"a topic has 1 to {LONGEST_TOPIC} characters")
    return topic
