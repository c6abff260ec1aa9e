"""Notifications over a real store, and channels that fail in every way."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from holdfast.errors import (
    CallFailed,
    ConfigurationError,
    CredentialRefused,
    Exhausted,
    InvalidInput,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ReferenceConflict,
    Rejected,
    Throttled,
)
from holdfast.notifications.client import Notifications
from holdfast.notifications.models import Accepted, Channel, Dispatch, DispatchState, Message, Moved, Recipient
from holdfast.notifications.provider import Capabilities, Wire
from holdfast.outcome import Effect
from holdfast.runtime import Runtime
from holdfast.stores import Store, open_store
from holdfast.stores.store import Record
from holdfast.telemetry import FellOver, OutcomeBecameUnknown, Signal, Telemetry
from holdfast.testing.clock import ManualClock

ADA = Recipient(telegram="1", email="ada@example.org")

Script = CallFailed | Moved | Callable[[], Awaitable[None]] | None


@dataclass
class Vendor:
    """Does what its script says, then takes everything."""

    name: str = "telegram"
    channel: Channel = "telegram"
    max_length: int = 100
    script: list[Script] = field(default_factory=list[Script])
    calls: list[tuple[str, str, Effect]] = field(default_factory=list[tuple[str, str, Effect]])

    wire = Wire.NONE

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(channel=self.channel, max_length=self.max_length)

    async def send(self, wire: object, message: Message, address: str, *, key: str, effect: Effect) -> Accepted | Moved:
        self.calls.append((address, message.text, effect))
        match self.script.pop(0) if self.script else None:
            case CallFailed() as error:
                raise error
            case Moved() as moved:
                return moved
            case None:
                pass
            case wait:
                await wait()
        return Accepted(vendor_id=f"{self.name}-{len(self.calls)}")


def mail(*script: Script, max_length: int = 1000) -> Vendor:
    return Vendor(name="smtp", channel="email", max_length=max_length, script=list(script))


def telegram(*script: Script) -> Vendor:
    return Vendor(script=list(script))


class Office:
    """Notifications over some vendors, on one store and one clock."""

    def __init__(self, *vendors: Vendor, store: Store | None = None, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.store = store or open_store("memory://", clock=self.clock)
        self.signals: list[Signal] = []
        self.runtime = Runtime(self.store, clock=self.clock, telemetry=Telemetry([self.signals.append]))
        self.notifications = Notifications(vendors, runtime=self.runtime)

    async def __aenter__(self) -> Notifications:
        return await self.notifications.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.runtime.__aexit__(None, None, None)

    def heard(self, kind: type[Signal]) -> list[Signal]:
        return [signal for signal in self.signals if isinstance(signal, kind)]


REFUSED = NotSent("connection refused", hard=True)
LOST = OutcomeUnknown("connection reset", hard=True)
GONE = Rejected("blocked", reason="recipient_gone")


async def test_the_first_channel_that_takes_it_is_enough() -> None:
    first, second = telegram(), mail()
    async with Office(first, second) as notifications:
        dispatch = await notifications.send("hello", to=ADA, key="k")

    assert (dispatch.state, dispatch.provider) == (DispatchState.ACCEPTED, "telegram")
    assert first.calls == [("1", "hello", Effect.IDEMPOTENT)]
    assert second.calls == []


async def test_a_message_is_told_once_however_often_it_is_sent() -> None:
    vendor = telegram()
    async with Office(vendor) as notifications:
        first = await notifications.send("hello", to=ADA, key="k")
        second = await notifications.send("hello", to=ADA, key="k")

    assert first == second
    assert len(vendor.calls) == 1


async def test_two_sends_at_once_tell_it_once() -> None:
    clock = ManualClock()

    async def slowly() -> None:
        await clock.sleep(1)

    vendor = telegram(slowly)
    async with Office(vendor, clock=clock) as notifications:
        both = [asyncio.ensure_future(notifications.send("hello", to=ADA, key="k")) for _ in range(2)]
        await clock.advance(2)
        first, second = [await one for one in both]

    assert first.state is second.state is DispatchState.ACCEPTED
    assert len(vendor.calls) == 1


@pytest.mark.parametrize("other", ["hello", "something else"])
async def test_two_that_start_together_tell_it_once(other: str) -> None:
    clock, vendor = ManualClock(), telegram()
    office = Office(vendor, clock=clock)
    store = office.store
    both_have_looked = asyncio.Barrier(2)
    look = store.records.get
    looks = 0

    async def look_together(kind: str, key: str) -> Record | None:
        nonlocal looks
        looks += 1
        found = await look(kind, key)
        if looks <= 2:
            await both_have_looked.wait()
        return found

    store.records.get = look_together  # type: ignore[method-assign]
    async with office as notifications:
        sending = asyncio.gather(
            notifications.send("hello", to=ADA, key="k"),
            notifications.send(other, to=ADA, key="k"),
            return_exceptions=True,
        )
        await clock.advance(1)
        results = await sending

    told = [result for result in results if isinstance(result, Dispatch)]
    refused = [result for result in results if isinstance(result, ReferenceConflict)]
    assert (len(told), len(refused)) == ((2, 0) if other == "hello" else (1, 1))
    assert {dispatch.state for dispatch in told} == {DispatchState.ACCEPTED}
    assert len(vendor.calls) == 1


async def test_a_sweep_leaves_alone_what_is_being_sent_and_a_sender_waits_for_it() -> None:
    clock = ManualClock()

    async def slowly() -> None:
        await clock.sleep(4)

    vendor = telegram(slowly)
    async with Office(vendor, clock=clock) as notifications:
        sending = asyncio.ensure_future(notifications.send("hello", to=ADA, key="k"))
        await clock.advance(1)
        assert await notifications.sweep() == 0
        await clock.advance(4)
        assert (await sending).state is DispatchState.ACCEPTED


async def test_who_cannot_wait_any_longer_is_shown_that_it_is_being_sent() -> None:
    clock = ManualClock()

    async def slowly() -> None:
        await clock.sleep(9)

    office = Office(telegram(slowly), clock=clock)
    second = Notifications([telegram()], runtime=office.runtime, deadline=1)
    async with office as first, second:
        sending = asyncio.ensure_future(first.send("hello", to=ADA, key="k"))
        await clock.advance(0.5)
        waiting = asyncio.ensure_future(second.send("hello", to=ADA, key="k"))
        await clock.advance(2)
        shown = await waiting
        await clock.advance(8)
        told = await sending

    assert (shown.state, told.state) == (DispatchState.SENDING, DispatchState.ACCEPTED)


async def test_the_submission_is_on_record_before_the_first_byte() -> None:
    seen: list[Dispatch] = []

    async def look() -> None:
        seen.append(await office.notifications.get("k"))

    office = Office(telegram(look))
    async with office as notifications:
        await notifications.send("hello", to=ADA, key="k")

    assert seen[0].state is DispatchState.SENDING
    assert seen[0].submissions[0].outcome == ""


@pytest.mark.parametrize(
    ("message", "to"), [(Message("other"), ADA), (Message("hello"), Recipient(email="eve@example.org"))]
)
async def test_the_same_key_for_something_else_is_refused(message: Message, to: Recipient) -> None:
    vendors = telegram(), mail()
    async with Office(*vendors) as notifications:
        await notifications.send("hello", to=ADA, key="k")
        with pytest.raises(ReferenceConflict):
            await notifications.send(message, to=to, key="k")

    assert sum(len(vendor.calls) for vendor in vendors) == 1


@pytest.mark.parametrize("failure", [REFUSED, Throttled("slow down", retry_after=60), LOST, GONE])
async def test_a_failing_channel_is_followed_by_the_next_and_that_is_told(failure: CallFailed) -> None:
    office = Office(telegram(failure), mail())
    async with office as notifications:
        dispatch = await notifications.send("hello", to=ADA, key="k")

    assert (dispatch.state, dispatch.provider) == (DispatchState.ACCEPTED, "smtp")
    assert dispatch.route == (f"telegram:{failure.cause}", "smtp:accepted")
    (fell_over,) = office.heard(FellOver)
    assert isinstance(fell_over, FellOver)
    assert (fell_over.from_provider, fell_over.to_provider) == ("telegram", "smtp")


async def test_what_must_not_be_told_twice_comes_back_unknown_and_stays_so() -> None:
    clock, second = ManualClock(), mail()
    first = telegram(LOST)
    office = Office(first, second, clock=clock)
    async with office as notifications:
        dispatch = await notifications.send(Message("your code", once=True), to=ADA, key="k")
        again = await notifications.send(Message("your code", once=True), to=ADA, key="k")
        await clock.advance(3600)
        swept = await notifications.sweep()

    assert dispatch.state is again.state is DispatchState.UNKNOWN
    assert first.calls == [("1", "your code", Effect.ONCE)]
    assert second.calls == []
    assert swept == 0
    assert len(office.heard(OutcomeBecameUnknown)) == 1


async def test_when_nobody_takes_it_now_it_is_queued_and_the_sweep_goes_on() -> None:
    clock = ManualClock()
    first, second = telegram(REFUSED, REFUSED), mail(REFUSED)
    async with Office(first, second, clock=clock) as notifications:
        queued = await notifications.send("hello", to=ADA, key="k")
        early = await notifications.sweep()
        await clock.advance(6)
        await notifications.sweep()
        told = await notifications.get("k")

    assert queued.state is DispatchState.QUEUED
    assert early == 0
    assert told.state is DispatchState.ACCEPTED
    assert told.route == ("telegram:not_sent", "smtp:not_sent", "telegram:not_sent", "smtp:accepted")


async def test_a_lost_answer_is_answered_by_telling_again() -> None:
    clock, vendor = ManualClock(), telegram(LOST)
    async with Office(vendor, clock=clock) as notifications:
        queued = await notifications.send("hello", to=ADA, key="k")
        await clock.advance(6)
        await notifications.sweep()
        told = await notifications.get("k")

    assert queued.state is DispatchState.QUEUED
    assert told.state is DispatchState.ACCEPTED
    assert len(vendor.calls) == 2


async def test_a_queued_message_goes_on_when_it_is_sent_again() -> None:
    vendor = telegram(REFUSED)
    async with Office(vendor) as notifications:
        await notifications.send("hello", to=ADA, key="k")
        dispatch = await notifications.send("hello", to=ADA, key="k")

    assert dispatch.state is DispatchState.ACCEPTED


async def test_a_message_nobody_takes_in_time_is_told_no_more() -> None:
    clock, vendor = ManualClock(), telegram(*[REFUSED] * 500)
    async with Office(vendor, clock=clock) as notifications:
        await notifications.send("hello", to=ADA, key="k")
        for _ in range(120):
            await clock.advance(900)
            await notifications.sweep()
        calls = len(vendor.calls)
        await clock.advance(86_400)
        swept = await notifications.sweep()
        with pytest.raises(NotSent):
            await notifications.send("hello", to=ADA, key="k")
        expired = await notifications.get("k")

    assert expired.reason == "expired"
    assert 90 < calls < 110
    assert swept == 0
    assert len(vendor.calls) == calls


async def test_everybody_saying_no_is_told_with_the_reason() -> None:
    async with Office(telegram(GONE)) as notifications:
        with pytest.raises(Rejected) as raised:
            await notifications.send("hello", to=ADA, key="k")
        failed = await notifications.get("k")
        with pytest.raises(Rejected) as again:
            await notifications.send("hello", to=ADA, key="k")

    assert raised.value.reason == again.value.reason == failed.reason == "recipient_gone"
    assert failed.state is DispatchState.FAILED


async def test_several_failures_for_good_are_told_together() -> None:
    denied = CredentialRefused("token revoked")
    async with Office(telegram(GONE), mail(denied)) as notifications:
        with pytest.raises(Exhausted) as raised:
            await notifications.send("hello", to=ADA, key="k")

    assert raised.value.failures == (GONE, denied)


async def test_a_mended_credential_lets_the_same_send_go_on() -> None:
    async with Office(telegram(CredentialRefused("token revoked"))) as notifications:
        with pytest.raises(CredentialRefused):
            await notifications.send("hello", to=ADA, key="k")
        dispatch = await notifications.send("hello", to=ADA, key="k")

    assert dispatch.state is DispatchState.ACCEPTED


async def test_a_crash_while_submitting_is_found_by_the_sweep() -> None:
    clock = ManualClock()
    store = open_store("memory://", clock=clock)

    async def die() -> None:
        raise asyncio.CancelledError

    before = Office(telegram(die), store=store, clock=clock)
    async with before as notifications:
        with pytest.raises(asyncio.CancelledError):
            await notifications.send("hello", to=ADA, key="k")
        assert (await notifications.get("k")).state is DispatchState.SENDING
        await clock.advance(14)
        assert await notifications.sweep() == 0
        await clock.advance(2)
        assert await notifications.sweep() == 1
        told = await notifications.get("k")

    assert told.route == ("telegram:unknown", "telegram:accepted")


async def test_a_crash_while_submitting_what_must_not_be_told_twice_is_not_repeated() -> None:
    clock = ManualClock()

    async def die() -> None:
        raise asyncio.CancelledError

    vendor = telegram(die)
    async with Office(vendor, clock=clock) as notifications:
        with pytest.raises(asyncio.CancelledError):
            await notifications.send(Message("your code", once=True), to=ADA, key="k")
        await clock.advance(60)
        await notifications.sweep()
        found = await notifications.get("k")

    assert found.state is DispatchState.UNKNOWN
    assert len(vendor.calls) == 1


async def test_a_moved_recipient_gets_it_once_at_the_new_address() -> None:
    vendor = telegram(Moved(address="-1002"))
    async with Office(vendor) as notifications:
        dispatch = await notifications.send("hello", to=Recipient(telegram="-5"), key="k")

    assert [call[0] for call in vendor.calls] == ["-5", "-1002"]
    assert dispatch.state is DispatchState.ACCEPTED
    assert dispatch.moved == {"telegram": "-1002"}


async def test_a_text_too_long_for_one_channel_goes_by_the_next() -> None:
    first, second = telegram(), mail()
    async with Office(first, second) as notifications:
        dispatch = await notifications.send("x" * 101, to=ADA, key="k")

    assert dispatch.provider == "smtp"
    assert first.calls == []


async def test_a_text_too_long_for_every_channel_is_refused_and_not_kept() -> None:
    async with Office(telegram(), mail()) as notifications:
        with pytest.raises(InvalidInput, match="1001 characters"):
            await notifications.send("x" * 1001, to=ADA, key="k")
        with pytest.raises(NotFound):
            await notifications.get("k")


async def test_a_recipient_nobody_reaches_is_refused() -> None:
    async with Office(telegram()) as notifications:
        with pytest.raises(InvalidInput, match="sms"):
            await notifications.send("hello", to=Recipient(sms="+41790000000"), key="k")


@pytest.mark.parametrize("key", ["", "x" * 129, "a b", "ä", "a\n"])
async def test_a_bad_key_is_refused(key: str) -> None:
    async with Office(telegram()) as notifications:
        with pytest.raises(InvalidInput):
            await notifications.send("hello", to=ADA, key=key)


async def test_a_key_may_be_longer_than_a_reference() -> None:
    async with Office(telegram()) as notifications:
        dispatch = await notifications.send("hello", to=ADA, key="link:" + "x" * 123)

    assert dispatch.state is DispatchState.ACCEPTED


async def test_a_message_the_vendor_cannot_write_goes_by_the_next_channel() -> None:
    async def unwritable() -> None:
        raise InvalidInput("no such address")

    async with Office(telegram(unwritable), mail()) as notifications:
        dispatch = await notifications.send("hello", to=ADA, key="k")

    assert dispatch.provider == "smtp"
    assert dispatch.submissions[0].reason == "invalid_input"


async def test_the_chain_shares_the_deadline() -> None:
    clock = ManualClock()

    async def hang() -> None:
        async with clock.timeout(60):
            await clock.sleep(60)

    vendors = telegram(hang), mail()
    office = Office(*vendors, clock=clock)
    async with office as notifications:
        sending = asyncio.ensure_future(notifications.send("hello", to=ADA, key="k"))
        await clock.advance(1)
        running = await notifications.get("k")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    assert running.submissions[0].until - running.submissions[0].started_at == timedelta(seconds=5)


async def test_no_time_left_queues_it_instead_of_starting_what_cannot_end() -> None:
    clock = ManualClock()

    async def takes_all_the_time() -> None:
        await clock.advance(10)
        raise REFUSED

    second = mail()
    async with Office(telegram(takes_all_the_time), second, clock=clock) as notifications:
        dispatch = await notifications.send("hello", to=ADA, key="k")

    assert dispatch.state is DispatchState.QUEUED
    assert second.calls == []


def test_two_providers_need_two_names() -> None:
    with pytest.raises(ConfigurationError):
        Notifications([telegram(), telegram()])


async def test_without_a_store_it_says_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="store="):
        await Notifications([telegram()]).send("hello", to=ADA, key="k")


async def test_alone_it_needs_only_a_store() -> None:
    async with Notifications([telegram()], store="memory://") as notifications:
        dispatch = await notifications.send("hello", to=ADA, key="k")

    assert dispatch.state is DispatchState.ACCEPTED
