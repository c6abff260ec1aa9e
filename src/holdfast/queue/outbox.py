"""The outbox: calls that are kept first and made later, each at its time, in its order, and not after its end."""

import inspect
from dataclasses import replace
from math import inf
from typing import Any

from pydantic import TypeAdapter

from holdfast.clock import Clock
from holdfast.errors import (
    AlreadyHandled,
    CallFailed,
    ConfigurationError,
    Exhausted,
    LeaseLost,
    NotFound,
    Permanent,
    ReferenceConflict,
    RetryLater,
    VersionConflict,
)
from holdfast.outcome import Cause
from holdfast.queue import outbox_table, sending
from holdfast.queue.calls import Call, Callee, Callees, When, checked
from holdfast.queue.sending import Fact, Finish, Hold, LookUp, Send, Sending, Skip, Stop, step, todo
from holdfast.queue.sessions import is_asynchronous
from holdfast.queue.signals import DeferredCallExpired, DeferredCallUnknown
from holdfast.queue.worker import Result
from holdfast.resilience.context import deadline_scope
from holdfast.stores.store import Added, Draft, Job, JobFilter, JobState, Store
from holdfast.telemetry import Telemetry

KIND = "call"
PAGE = 1000

MAYBE = frozenset({Cause.UNKNOWN, Cause.MISMATCH})
"""Causes after which something may have happened."""

_ADAPTER = TypeAdapter(Sending)


class Outbox:
    """Keeps calls until their time comes; the hub's worker makes them."""

    def __init__(self, callees: Callees, store: Store, *, clock: Clock, telemetry: Telemetry) -> None:
        self._callees = callees
        self._store = store
        self._clock = clock
        self._telemetry = telemetry

    # What callers ask for.

    async def add(
        self,
        name: str,
        payload: object = None,
        *,
        key: str,
        not_before: When | None = None,
        expires_at: When | None = None,
        ordering_key: str = "",
    ) -> bool:
        """Keep a call of that name, once per `key`; durable when it returns. False: it was kept before.

        It is made at once, or from `not_before` on; where it could not begin by `expires_at` it is not made at all.
        Calls with one `ordering_key` are made one at a time, in the order they were added.

        Raises:
            InvalidInput: The handler does not take this payload, or a bad key or moment.
            ReferenceConflict: The key names a call with another payload.
            ConfigurationError: No handler makes calls of that name.
        """
        callee = self._callees.get(name)
        timed = not_before is not None or expires_at is not None
        now = await self._store.now() if timed else self._clock.now()
        new = callee.job(payload, key=key, not_before=not_before, expires_at=expires_at, order=ordering_key, now=now)
        [added] = await self._store.jobs.add([new])
        if added is Added.CONFLICT:
            raise ReferenceConflict("call", new.key, "another payload")
        return added is Added.NEW

    async def add_in(
        self,
        session: object,
        name: str,
        payload: object = None,
        *,
        key: str,
        not_before: When | None = None,
        expires_at: When | None = None,
        ordering_key: str = "",
    ) -> None:
        """Keep a call through your own database session, in your own transaction: both commit, or neither.

        `hub.relay` takes it from there. With a key that was used before it is not made again; with another payload
        the first one stays, and a signal tells. `hub.outbox.sync.add_in` is the same for code without an event loop.

        Raises:
            InvalidInput: As `add`.
            ConfigurationError: No open transaction, no session we know, or no handler makes calls of that name.
        """
        now = self._clock.now()
        new = self._callees.get(name).job(
            payload, key=key, not_before=not_before, expires_at=expires_at, order=ordering_key, now=now
        )
        inserted = outbox_table.insert(session, new, now=now)
        if inspect.isawaitable(inserted):
            await inserted

    @property
    def sync(self) -> "SyncOutbox":
        """What works without an event loop."""
        return SyncOutbox(self._callees, self._clock)

    async def cancel(self, name: str, *, key: str) -> bool:
        """Do not make this call any more; False: it is being made, is over, or there is none.

        What failed and waits for its next attempt is not tried again. It looks through what waits under this name.
        """
        callee = self._callees.get(name)
        job = await self._waiting(callee, f"{name}/{checked(key, 'key')}")
        if job is None:
            return False
        cancelled = await self._commit(job, sending.Cancelled())
        if cancelled.state is not sending.SendingState.CANCELLED:
            return False
        if callee.once:
            return True  # no run begins one without seeing this
        try:
            return (await self._store.jobs.get(job.id)).state in (JobState.READY, JobState.IGNORED)
        except NotFound:
            return True

    # What the worker asks for.

    @property
    def queues(self) -> list[str]:
        """The queues in which calls wait."""
        return self._callees.queues(urgent=False)

    @property
    def urgent_queues(self) -> list[str]:
        """The queues of calls that are not to wait behind others."""
        return self._callees.queues(urgent=True)

    async def perform(self, job: Job) -> Result:
        """Make the call, unless it is cancelled or its time is over."""
        callee = self._callees.get(job.kind)
        call = callee.call(job)
        known = step(await self._load(job.key), sending.Claimed(job.generation, job.token))
        if callee.once:
            return await self._perform_once(callee, call, job, known)
        if known.state is sending.SendingState.CANCELLED:
            return "ignored"
        return await self._make(callee, call) or "done"

    async def _make(self, callee: Callee, call: Call[Any]) -> Result | None:
        """Run the handler; "ignored": it is too late for that."""
        left = await self._left(call)
        if left <= 0:
            return self._expire(call)
        with deadline_scope(None if left == inf else left, self._clock):
            await callee.run(call)
        return None

    async def _perform_once(self, callee: Callee, call: Call[Any], job: Job, known: Sending) -> Result:
        while True:
            match todo(known, job.token, callee.on_unknown):
                case Stop():
                    raise LeaseLost(f"call {job.key}")
                case Skip():
                    return "ignored"
                case Finish():
                    return "done"
                case Hold():
                    raise await self._hold(callee, job)
                case LookUp():
                    known = await self._look_up(callee, call, job, known)
                case Send() if await self._left(call) <= 0:
                    return self._expire(call)
                case Send():
                    try:
                        known = await self._apply(job.key, known.version, step(known, sending.Began(job.token)))
                    except VersionConflict:
                        known = step(await self._load(job.key), sending.Claimed(job.generation, job.token))
                        continue
                    return await self._send(callee, call, job)

    async def _send(self, callee: Callee, call: Call[Any], job: Job) -> Result:
        # Cancelled, or killed, in the middle of it, `sending` stays on record: the next run finds it unknown.
        try:
            late = await self._make(callee, call)
        except AlreadyHandled:
            await self._commit(job, sending.Sent(job.token))
            raise
        except Exception as error:  # the border to the user's handlers: what none of these says may have happened
            if _proves_nothing_happened(error):
                await self._commit(job, sending.NotSent(job.token))
                raise
            decided = await self._lose(callee, job)
            if decided is None:
                raise
            raise decided from error
        await self._commit(job, sending.NotSent(job.token) if late else sending.Sent(job.token))
        return late or "done"

    async def _lose(self, callee: Callee, job: Job) -> Permanent | RetryLater | None:
        """What the worker is to hear instead of a failure after which it may have happened; None: the failure."""
        known = await self._commit(job, sending.Lost(job.token))
        match todo(known, job.token, callee.on_unknown):
            case Hold():
                return await self._hold(callee, job)
            case LookUp():
                return RetryLater(f"call {job.key} may have been made", after=sending.wait_to_check(known))
            case _:
                return None

    async def _look_up(self, callee: Callee, call: Call[Any], job: Job, known: Sending) -> Sending:
        """What is known after a look-up. Raises RetryLater: as much as before."""
        assert callee.check is not None
        try:
            happened = await callee.check(call)
        except Exception as error:  # a border to the user's code: a look-up that fails has not told anything
            happened, why = None, type(error).__name__
        else:
            why = "not known yet"
        after = sending.wait_to_check(known)
        known = await self._commit(job, sending.Checked(happened))
        if happened is None and known.state is sending.SendingState.UNKNOWN:
            raise RetryLater(f"call {job.key} may have been made ({why})", after=after)
        return known

    async def _hold(self, callee: Callee, job: Job) -> Permanent:
        """A dead letter with the reason `unknown`, for a person to decide."""
        await self._commit(job, sending.Held())
        self._telemetry.emit(DeferredCallUnknown(callee.name, job.key, callee.on_unknown))
        return Permanent(f"call {job.key} may have been made; find out, then replay or drop it", reason="unknown")

    def _expire(self, call: Call[Any]) -> Result:
        self._telemetry.emit(DeferredCallExpired(call.name, f"{call.name}/{call.key}"))
        return "ignored"

    async def _left(self, call: Call[Any]) -> float:
        """Seconds until it expires, by the store's time; asked only of what can."""
        if call.expires_at is None:
            return inf
        return (call.expires_at - await self._store.now()).total_seconds()

    # The record.

    async def _load(self, key: str) -> Sending:
        record = await self._store.records.get(KIND, key)
        if record is None:
            return Sending()
        return replace(_ADAPTER.validate_python(dict(record.value)), version=record.version)

    async def _commit(self, job: Job, *facts: Fact) -> Sending:
        """Apply the facts to the call as stored; on a lost race, read and decide again."""
        while True:
            stored = known = await self._load(job.key)
            for fact in (sending.Claimed(job.generation, job.token), *facts):
                known = step(known, fact)
            if known == stored:
                return known
            try:
                return await self._apply(job.key, stored.version, known)
            except VersionConflict:
                continue

    async def _apply(self, key: str, expected: int, known: Sending) -> Sending:
        value = _ADAPTER.dump_python(known, mode="json", exclude={"version"})
        record = await self._store.records.apply(KIND, key, expected, Draft(value=value))
        return replace(known, version=record.version)

    async def _waiting(self, callee: Callee, key: str) -> Job | None:
        where = JobFilter(queue=callee.queue, kind=callee.name, state=JobState.READY)
        page = await self._store.jobs.list(where, limit=PAGE)
        while page:
            found = next((job for job in page if job.key == key), None)
            if found is not None or len(page) < PAGE:
                return found
            page = await self._store.jobs.list(where, after=page[-1].id, limit=PAGE)
        return None


class SyncOutbox:
    """The outbox for code without an event loop: Django, Flask, a handler in a thread."""

    def __init__(self, callees: Callees, clock: Clock) -> None:
        self._callees = callees
        self._clock = clock

    def add_in(
        self,
        session: object,
        name: str,
        payload: object = None,
        *,
        key: str,
        not_before: When | None = None,
        expires_at: When | None = None,
        ordering_key: str = "",
    ) -> None:
        """Keep a call through your own database session, in your own transaction, as `hub.outbox.add_in` does.

        Raises:
            InvalidInput: As `hub.outbox.add`.
            ConfigurationError: An asynchronous session, no open transaction, no session we know, or no handler makes
                calls of that name.
        """
        if is_asynchronous(session):
            raise ConfigurationError("this session is asynchronous: await hub.outbox.add_in(session, …)")
        now = self._clock.now()
        new = self._callees.get(name).job(
            payload, key=key, not_before=not_before, expires_at=expires_at, order=ordering_key, now=now
        )
        outbox_table.insert(session, new, now=now)


def _proves_nothing_happened(error: Exception) -> bool:
    match error:
        case CallFailed():
            return error.cause not in MAYBE
        case Exhausted():
            return all(failure.cause not in MAYBE for failure in error.failures)
        case RetryLater() | Permanent():
            return True
        case _:
            return False
