"""Notifications: tell a person something by the first channel that takes it, and keep trying until one does."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from holdfast.errors import (
    CallFailed,
    ConfigurationError,
    Exhausted,
    InvalidInput,
    NotFound,
    NotSent,
    ReferenceConflict,
    VersionConflict,
)
from holdfast.notifications import machine
from holdfast.notifications.machine import Defer, Fact, GiveUp, Show, Start, Wait, step, todo
from holdfast.notifications.models import Dispatch, DispatchState, Message, Moved, Recipient
from holdfast.notifications.provider import Capabilities, NotificationProvider
from holdfast.notifications.provider import Wire as WireKind
from holdfast.notifications.record import KIND, decode, encode
from holdfast.outcome import Cause
from holdfast.queue.inbox import Arrived
from holdfast.resilience.context import deadline_scope, remaining
from holdfast.routing import Ask, Route, Routed, Router, Switch, Switched
from holdfast.runtime import Runtime
from holdfast.settings import check_providers, check_seconds
from holdfast.stores.store import Record
from holdfast.telemetry import FellOver, OutcomeBecameUnknown

if TYPE_CHECKING:
    from holdfast.smtp.session import SmtpWire

log = logging.getLogger("holdfast.notifications")

EXPIRES_IN: Final = timedelta(hours=24)
_KEY: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_POLL: Final = 0.05


class Notifications:
    """Tell people things, over providers in order of preference.

    Alone: `async with Notifications([...], store="sqlite:///shop.db") as notifications`; in a hub, pass it as
    `notifications=`.
    """

    def __init__(
        self,
        providers: Sequence[NotificationProvider[Any]],
        *,
        store: str | None = None,
        deadline: float = 10.0,
        expires_in: timedelta = EXPIRES_IN,
        route: Route | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        """`deadline` is one `send`, in seconds; a message not told after `expires_in` is told no more. `route` puts
        providers into order; without it yours counts.

        Raises:
            ConfigurationError: Two providers share a name, something is no notification provider, or a time is none.
        """
        check_providers("notifications", providers, Capabilities)
        check_seconds("deadline of notifications", deadline, above=0)
        if not isinstance(expires_in, timedelta) or expires_in <= timedelta(0):  # type: ignore[redundant-expr]  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"expires_in of notifications is a timedelta above 0, not {expires_in!r}: timedelta(hours=24)"
            )
        self.providers = {provider.name: provider for provider in providers}
        if len(self.providers) != len(providers):
            raise ConfigurationError("two notification providers share a name; give each account its own name=")
        self._deadline = deadline
        self._expires_in = expires_in
        self._route = route
        self._bound = runtime or (Runtime(store) if store else None)
        if self._bound:
            self.bind(self._bound)

    def bind(self, runtime: Runtime) -> Self:
        """Use the hub's runtime; called by the hub."""
        self._bound = runtime
        for provider in self.providers.values():
            runtime.admit(provider)
            if provider.wire is WireKind.SMTP:
                _smtp_wire()  # a missing package is told now, not with the first message
        self._router = Router(
            "notification",
            "send",
            self._route,
            self.providers,
            lambda name: runtime.guard(self.providers[name]),
            store=runtime.store,
            clock=runtime.clock,
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

    async def send(self, message: Message | str, *, to: Recipient, key: str, region: str = "") -> Dispatch:
        """Tell `to` the message by the first channel that takes it, once per `key`.

        Asked again with the same key, the stored dispatch comes back, and goes on if nobody took it yet. When no
        channel takes it now but one may later, the dispatch comes back `queued`, and the sweep goes on. One that
        must not be told twice (`Message(once=True)`) comes back `unknown` when an answer is lost. `region` is for a
        route that cares where data stays; it holds for every later try, too.

        Raises:
            InvalidInput: No channel to the recipient, a text too long for all of them, or a bad key; nothing was sent.
            ReferenceConflict: The key names another message, or one to somebody else or for another region.
            NotSent: The rules of the route allow nobody who reaches the recipient.
            Rejected: Every channel said no; `reason` says why, as `recipient_gone`.
            Exhausted: Two or more channels failed for good; one failure is raised as itself.
        """
        if not isinstance(message, str | Message) or not isinstance(to, Recipient):  # type: ignore[redundant-expr]  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(
                'a Message, or its text, is sent to a Recipient: send("…", to=Recipient(email="…"), key="…")'
            )
        now = self._now()
        wanted = Dispatch(
            key=_checked(key),
            message=Message(message) if isinstance(message, str) else message,
            recipient=to,
            region=region,
            created_at=now,
            expires_at=now + self._expires_in,
        )
        self._chain(wanted)
        with deadline_scope(self._deadline, self._runtime.clock):
            stored = await self._load(wanted.key)
            if stored:
                _same(stored, wanted)
            failures: dict[str, CallFailed] = {}
            dispatch = await self._drive(stored or wanted, failures, patient=True)
        if dispatch.state is DispatchState.FAILED:
            raise _failure(dispatch, failures)
        return dispatch

    async def get(self, key: str) -> Dispatch:
        """The dispatch as last known. Raises NotFound."""
        dispatch = await self._load(_checked(key))
        if dispatch is None:
            raise NotFound(KIND, key)
        return dispatch

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

        Who is off is handed no message; what only they could take waits, and is told once they are on again. `weight`
        is their share where the route is `Weighted`, in place of the program's; with 0 they come after all who have
        one. `reset` takes both back.

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

    async def arrived(self, delivery: Arrived) -> bool:
        """Look at what a delivery is about; False: nothing of ours. No channel we speak sends receipts yet."""
        return False

    async def sweep(self, *, limit: int = 100) -> int:
        """Go on with every dispatch whose time has come; how many there were."""
        due = await self._runtime.store.records.due(KIND, limit=limit)
        await self._runtime.each([self._sweep_one(record) for record in due])
        return len(due)

    async def _sweep_one(self, record: Record) -> None:
        before = decode(record)
        with deadline_scope(self._deadline, self._runtime.clock):
            after = await self._drive(before, {}, patient=False)
        if after.state is DispatchState.FAILED and before.state is not DispatchState.FAILED:
            last = ", ".join(after.route[-len(self.providers) :])
            log.error("dispatch %s was not told to anybody: %s (%s)", after.key, after.reason, last)

    # One step after another.

    async def _drive(self, dispatch: Dispatch, failures: dict[str, CallFailed], *, patient: bool) -> Dispatch:
        routed = await self._routed(dispatch)
        chain, why = routed.names, routed.why
        self._runtime.never_shut([self.providers[name] for name in chain], "send")
        while True:
            dispatch = await self._commit(dispatch, machine.Passed(at=self._now()))
            match todo(dispatch, chain, failed=failures.keys(), now=self._now(), later=routed.later):
                case Show():
                    return dispatch
                case Start(name, left) if self._left() > 0:
                    try:
                        dispatch = await self._submit(dispatch, name, self._share(name, left), why=why[name])
                    except _SubmissionFailed as failed:
                        dispatch, failures[name] = failed.dispatch, failed.error
                    else:
                        self._tell_fallback(dispatch, failures)
                case Wait() if patient and self._left() > 0:
                    await self._runtime.clock.sleep(_POLL)
                    dispatch = await self.get(dispatch.key)
                case Wait():
                    return dispatch
                case Start() | Defer():
                    return await self._commit(dispatch, machine.Deferred(at=self._now()))
                case GiveUp():
                    return await self._commit(dispatch, machine.GivenUp(at=self._now()))

    async def _submit(self, dispatch: Dispatch, name: str, share: float, *, why: str) -> Dispatch:
        """Commit the submission, then make it. Raises _SubmissionFailed, already recorded."""
        provider = self.providers[name]
        channel = provider.capabilities.channel
        address = machine.address_of(dispatch, channel)
        wire = self._wire(provider)
        began = machine.Began(
            at=self._now(), provider=name, channel=channel, address=address, timeout=timedelta(seconds=share), why=why
        )
        try:
            dispatch = await self._apply(step(dispatch, began), dispatch.version)
        except VersionConflict:
            return await self._reread(dispatch)  # another process was first: its submission counts
        number = len(dispatch.submissions)
        effect = machine.effect_of(dispatch, provider.capabilities)
        try:
            with deadline_scope(share, self._runtime.clock):
                answer = await provider.send(wire, dispatch.message, address, key=dispatch.key, effect=effect)
        except InvalidInput as error:
            refusal = CallFailed.of(Cause.REJECTED, f"{name}: {error}", provider=name, reason="invalid_input")
            raise await self._failed(dispatch, number, refusal) from error
        except CallFailed as error:
            raise await self._failed(dispatch, number, error) from error
        if isinstance(answer, Moved):
            return await self._commit(
                dispatch, machine.Redirected(at=self._now(), number=number, address=answer.address)
            )
        return await self._commit(dispatch, machine.Took(at=self._now(), number=number, vendor_id=answer.vendor_id))

    async def _failed(self, dispatch: Dispatch, number: int, error: CallFailed) -> "_SubmissionFailed":
        dispatch = await self._commit(dispatch, machine.Failed(at=self._now(), number=number, error=error))
        if error.cause is Cause.UNKNOWN:
            provider = dispatch.submissions[number - 1].provider
            self._runtime.telemetry.emit(
                OutcomeBecameUnknown(provider=provider, operation="notifications.send", reference=dispatch.key)
            )
        return _SubmissionFailed(dispatch, error)

    # The record.

    async def _load(self, key: str) -> Dispatch | None:
        record = await self._runtime.store.records.get(KIND, key)
        return decode(record) if record else None

    async def _reread(self, dispatch: Dispatch) -> Dispatch:
        """As it is now. Raises ReferenceConflict: who was first meant something else by the key."""
        current = await self.get(dispatch.key)
        _same(current, dispatch)
        return current

    async def _commit(self, dispatch: Dispatch, fact: Fact) -> Dispatch:
        """Apply the fact to the dispatch as stored; on a lost race, read and decide again."""
        while True:
            stepped = step(dispatch, fact)
            if stepped == dispatch:
                return dispatch
            try:
                return await self._apply(stepped, dispatch.version)
            except VersionConflict:
                dispatch = await self._reread(dispatch)

    async def _apply(self, dispatch: Dispatch, expected: int) -> Dispatch:
        record = await self._runtime.store.records.apply(KIND, dispatch.key, expected, encode(dispatch))
        return replace(dispatch, version=record.version)

    # Small things.

    @property
    def _runtime(self) -> Runtime:
        if self._bound is None:
            raise ConfigurationError("these notifications have no store: pass store=, or give them to a hub")
        return self._bound

    def _wire(self, provider: NotificationProvider[Any]) -> Any:
        match provider.wire:
            case WireKind.HTTP:
                return self._runtime.http(provider)  # type: ignore[arg-type]  # it says that it is an HttpVendor
            case WireKind.SMTP:
                return self._runtime.wire(provider, self._dial_smtp)
            case WireKind.NONE:
                return None

    def _dial_smtp(self, provider: Any) -> "SmtpWire":
        return _smtp_wire()(provider, self._runtime.guard(provider), self._runtime.clock)

    def _chain(self, dispatch: Dispatch) -> list[str]:
        """The providers that reach the recipient and take a text this long, in order of preference."""
        reach = [
            provider
            for provider in self.providers.values()
            if dispatch.recipient.on(provider.capabilities.channel) is not None
        ]
        if not reach and not dispatch.version:
            channels = ", ".join(address.channel for address in dispatch.recipient.addresses)
            raise InvalidInput(f"no provider speaks {channels}: add one, or another address of the recipient")
        fits = [one.name for one in reach if len(dispatch.message.text) <= one.capabilities.max_length]
        if not fits and not dispatch.version:
            longest = max(one.capabilities.max_length for one in reach)
            raise InvalidInput(f"the text has {len(dispatch.message.text)} characters, the channels take {longest}")
        return fits

    async def _routed(self, dispatch: Dispatch) -> Routed:
        """Who is asked, in which order, and why. Raises NotSent: the rules never allow anybody, and nothing was tried.

        Where those they allow are switched off it has to wait, as it does for whoever is down.
        """
        ask = Ask(key=dispatch.key, region=dispatch.region)
        routed = await self._router.order(ask, self._chain(dispatch))
        if not (routed.choices or routed.later or dispatch.version):
            raise routed.refusal(f"dispatch {dispatch.key}", "send")
        return routed

    def _share(self, name: str, among: int) -> float:
        return self._runtime.share(self.providers[name], "send", self._left(), among)

    def _left(self) -> float:
        return remaining(self._runtime.clock)

    def _now(self) -> datetime:
        return self._runtime.clock.now()

    def _tell_fallback(self, dispatch: Dispatch, failures: dict[str, CallFailed]) -> None:
        if failures and dispatch.state is DispatchState.ACCEPTED:
            name, error = list(failures.items())[-1]
            self._runtime.telemetry.emit(
                FellOver(
                    operation="notifications.send",
                    from_provider=name,
                    to_provider=dispatch.provider,
                    cause=error.cause,
                )
            )


class _SubmissionFailed(Exception):
    """A submission failed, and that is on record."""

    def __init__(self, dispatch: Dispatch, error: CallFailed) -> None:
        super().__init__(str(error))
        self.dispatch = dispatch
        self.error = error


def _smtp_wire() -> "type[SmtpWire]":
    from holdfast.smtp.session import SmtpWire  # the extra `smtp`

    return SmtpWire


def _checked(key: str) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):  # type: ignore[redundant-expr]  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"{key!r} is no key: use 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    return key


def _same(stored: Dispatch, wanted: Dispatch) -> None:
    """Raises ReferenceConflict: the key stands for something else."""
    if stored.message != wanted.message:
        raise ReferenceConflict(KIND, wanted.key, "another message")
    if stored.recipient != wanted.recipient:
        raise ReferenceConflict(KIND, wanted.key, "another recipient")
    if stored.region != wanted.region:
        raise ReferenceConflict(KIND, wanted.key, f"another region ({stored.region or 'none'})")


def _failure(dispatch: Dispatch, failures: dict[str, CallFailed]) -> Exception:
    """What the caller is told: this call's failures, or those an earlier one left on record."""
    told = list(failures.values()) or _recorded(dispatch)
    if not told:
        return NotSent(f"dispatch {dispatch.key} expired before it was told", operation="send", local=True)
    if len(told) > 1 and told[-1].cause is not Cause.REJECTED:
        return Exhausted(f"notify {dispatch.key}", tuple(told))
    return told[-1]


def _recorded(dispatch: Dispatch) -> list[CallFailed]:
    latest = {one.provider: one for one in dispatch.submissions if one.outcome in set(Cause)}
    return [
        CallFailed.of(Cause(one.outcome), one.error, provider=one.provider, operation="send", reason=one.reason)
        for one in latest.values()
    ]
