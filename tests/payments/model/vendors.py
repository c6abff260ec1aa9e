"""Vendors as they are at their own end: what they hold, who paid it, what was captured and given back."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from holdfast.errors import (
    CallFailed,
    NotSent,
    OutcomeUnknown,
    Refused,
    Rejected,
    Throttled,
)
from holdfast.http.vendor import HttpDefaults
from holdfast.outcome import Effect
from holdfast.payments.models import Attempt, Capture, Offer, PaymentStatus, Quote, RefundStatus
from holdfast.payments.provider import (
    Capabilities,
    LineKind,
    Lookup,
    OfferRequest,
    PaymentSnapshot,
    Refunding,
    RefundRequest,
    RefundSnapshot,
    StatementLine,
    WebhookTrust,
)
from holdfast.resilience.context import remaining
from holdfast.resilience.guard import Guard
from holdfast.values import Money
from tests.payments.model.processes import HERE, IN_FLIGHT, ModelClock

S = PaymentStatus
RATE = Decimal("0.00001")
GRACE = timedelta(minutes=2)
LASTING = timedelta(days=29)


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a vendor is like."""

    name: str
    currency: str = "CHF"
    create_effect: Effect = Effect.ONCE
    key_window: timedelta | None = None
    lookup: Lookup = Lookup.NONE
    sees_after: float = 0.0
    """Seconds until a search shows what was created."""
    revocable: bool = False
    payer_visible: bool = False
    manual_capture: bool = False
    captures: bool = False
    capture_effect: Effect = Effect.ONCE
    capture_key_window: timedelta | None = None
    refunding: Refunding = Refunding.NONE
    refund_effect: Effect = Effect.ONCE
    refund_key_window: timedelta | None = None
    refund_lookup: bool = False
    refund_slow: bool = False
    webhooks: bool = True
    names_attempt: bool = True
    """Its webhooks come to a door of the attempt's own, or carry our id."""
    echoes: bool = True
    late: bool = False
    """It takes money after the end."""
    forgets: bool = False
    """What ended unpaid it does not know any more."""
    partial: bool = False
    slow_money: bool = False
    authorizes: bool = False
    """What was approved is set aside only when it is asked to."""
    reviews: bool = False
    """What is to be set aside it looks at first."""
    open_ended: bool = False
    """What it holds never ends by itself, and may be paid once more after it failed."""
    bounces: bool = False
    """Money that went back may come back."""
    lasting: bool = False
    """What is set aside stays so for weeks."""
    stubborn: bool = False
    """Some of what it is asked to move it refuses for ever."""
    lists: bool = False
    """It lists what came in."""
    expiry_is_final: bool = False
    careful: bool = True
    """It refuses to capture twice, and to give back more than it took."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            currencies=frozenset({self.currency}),
            create_effect=self.create_effect,
            key_window=self.key_window,
            lookup=self.lookup,
            revocable=self.revocable,
            payer_visible=self.payer_visible,
            manual_capture=self.manual_capture,
            captures=self.captures,
            authorizes=self.authorizes,
            releasable=self.authorizes,
            open_ended=self.open_ended,
            expiry_is_final=self.expiry_is_final,
            capture_effect=self.capture_effect,
            capture_key_window=self.capture_key_window,
            refunding=self.refunding,
            refund_effect=self.refund_effect,
            refund_key_window=self.refund_key_window,
            webhook_trust=WebhookTrust.SIGNED_BODY if self.webhooks else WebhookTrust.NONE,
            grace=GRACE,
        )


def draw(chance: Random, number: int) -> Traits:
    """A vendor of any kind that can be told from what exists."""

    def maybe(share: float) -> bool:
        return chance.random() < share

    effects = (Effect.ONCE, Effect.KEYED)
    windows = (None, timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=24))
    captures = maybe(0.25)
    lookup = chance.choice((Lookup.NONE, Lookup.AUTHORITATIVE, Lookup.AUTHORITATIVE_ABSENCE))
    payer_visible = maybe(0.2) and not captures
    webhooks = maybe(0.8)
    traits = Traits(
        name=f"vendor-{number}",
        currency="BTC" if maybe(0.15) else "CHF",
        create_effect=chance.choice(effects),
        key_window=chance.choice(windows),
        lookup=lookup,
        sees_after=60.0 if lookup is Lookup.AUTHORITATIVE and maybe(0.5) else 0.0,
        revocable=maybe(0.4),
        payer_visible=payer_visible,
        manual_capture=maybe(0.5),
        captures=captures,
        capture_effect=chance.choice(effects),
        capture_key_window=chance.choice(windows),
        refunding=chance.choice((Refunding.NONE, Refunding.API, Refunding.API, Refunding.MANUAL)),
        refund_effect=chance.choice(effects),
        refund_key_window=chance.choice(windows),
        refund_lookup=maybe(0.4),
        refund_slow=maybe(0.4),
        webhooks=webhooks,
        names_attempt=maybe(0.5),
        echoes=lookup is not Lookup.NONE or maybe(0.7),
        late=maybe(0.5),
        forgets=maybe(0.2),
        partial=maybe(0.3),
        slow_money=maybe(0.3),
        careful=maybe(0.6),
    )
    traits = replace(
        traits,
        authorizes=traits.captures and traits.manual_capture and number % 2 == 0,
        bounces=traits.refunding is Refunding.API and number % 3 != 0,
        open_ended=traits.revocable and not captures and not payer_visible and number % 2 == 1,
        expiry_is_final=not traits.late and traits.forgets,
        lasting=traits.manual_capture,
        reviews=traits.manual_capture and number % 2 == 0,
        stubborn=traits.careful and traits.refund_lookup,
        lists=traits.echoes and traits.names_attempt,
    )
    # Money that the payer is asked for by the vendor itself, and of which nobody can ever tell us, is nobody's to find.
    if payer_visible and lookup is Lookup.NONE:
        traits = replace(traits, lookup=Lookup.AUTHORITATIVE, echoes=True)
    if traits.revocable:  # what it calls ended is not paid any more, else revoking would prove nothing
        traits = replace(traits, late=False)
    # Who neither says whose an object is, nor calls a door of the attempt's own, could be talked into anything.
    if not traits.echoes and not traits.names_attempt:
        traits = replace(traits, names_attempt=True)
    return traits


@dataclass(kw_only=True, eq=False)
class Thing:
    """What a vendor holds."""

    id: str
    vendor: "Vendor"
    attempt: str
    reference: str
    price: Money
    manual: bool
    at: datetime
    expires_at: datetime
    status: S = S.PENDING
    received: int = 0
    captures: list[str] = field(default_factory=list)
    """Under which keys we had money moved."""
    agreed_at: datetime | None = None
    """When the payer did it."""
    authorized_until: datetime | None = None
    refunds: list["Return"] = field(default_factory=list)
    short: bool = False
    """Less than its price came in once."""
    paid_at: datetime | None = None
    reviewed: bool = False
    """What is on its way is to be set aside, if it passes."""
    refuses: bool = False
    """Its vendor never moves its money, whoever asks."""

    @property
    def given_back(self) -> int:
        return sum(one.units for one in self.refunds if one.status in (RefundStatus.PENDING, RefundStatus.SUCCEEDED))

    @property
    def paid(self) -> bool:
        return self.status is S.PAID

    def live(self, now: datetime) -> bool:
        """Somebody could be paying it in the ordinary course, or is."""
        if self.vendor.traits.open_ended:
            return self.status in (S.PENDING, S.APPROVED, S.AUTHORIZED, S.PROCESSING, S.FAILED)
        end = self.expires_at + (GRACE if self.vendor.traits.late else timedelta(0))
        if self.status in (S.APPROVED, S.AUTHORIZED, S.PROCESSING):
            return self.agreed_at is not None and self.agreed_at < end
        return self.status is S.PENDING and now < end


@dataclass(kw_only=True, eq=False)
class Return:
    """Money a vendor sends back."""

    id: str
    key: str
    units: int
    status: RefundStatus
    at: datetime


@dataclass(frozen=True, slots=True)
class Note:
    """A webhook that is owed."""

    vendor: "Vendor"
    thing: Thing


class Vendor:
    """One vendor's own books."""

    def __init__(self, traits: Traits, clock: ModelClock, chance: Random) -> None:
        self.traits = traits
        self.name = traits.name
        self.clock = clock
        self.chance = chance
        self.things: dict[str, Thing] = {}
        self.keys: dict[tuple[str, str], tuple[datetime, Any]] = {}
        self.owed: list[Note] = []
        self.made: list[Callable[[Thing], object]] = []

    # What is asked of it by us.

    def create(self, request: OfferRequest) -> PaymentSnapshot:
        known = self._remembered("create", request.attempt_id, self.traits.create_effect, self.traits.key_window)
        if known is not None:
            return self.snapshot(known)
        now = self.clock.now()
        thing = Thing(
            id=f"{self.name}-{len(self.things) + 1}",
            vendor=self,
            attempt=request.attempt_id,
            reference=request.reference,
            price=request.price,
            manual=request.capture is Capture.MANUAL,
            at=now,
            expires_at=max(request.expires_at, now + timedelta(seconds=1)),
            refuses=self.traits.stubborn and self.chance.random() < 0.3,
        )
        self.things[thing.id] = thing
        self.keys["create", request.attempt_id] = now, thing
        for listener in self.made:
            listener(thing)
        return self.snapshot(thing)

    def fetch(self, vendor_id: str) -> PaymentSnapshot:
        thing = self.things.get(vendor_id)
        if thing is None or (self.traits.forgets and self._status(thing) in (S.EXPIRED, S.CANCELED)):
            raise Rejected("no such object", provider=self.name, status=404)
        return self.snapshot(thing)

    def find(self, attempt_id: str) -> PaymentSnapshot | None:
        seen = timedelta(seconds=self.traits.sees_after)
        for thing in self.things.values():
            if thing.attempt == attempt_id and self.clock.now() - thing.at >= seen:
                return self.snapshot(thing)
        return None

    def authorize(self, vendor_id: str) -> PaymentSnapshot:
        thing = self.things[vendor_id]
        if self._status(thing) is S.APPROVED and thing.manual:
            self._set_aside(thing)
            self._owe(thing)
        elif self._status(thing) is not S.AUTHORIZED and not thing.reviewed:
            raise Rejected(f"it is {thing.status}", provider=self.name, status=422)
        return self.snapshot(thing)

    def revoke(self, vendor_id: str) -> PaymentSnapshot:
        thing = self.things[vendor_id]
        open_ = (S.PENDING, S.APPROVED, S.AUTHORIZED) if self.traits.revocable else (S.AUTHORIZED,)
        if self._status(thing) in open_ or (self._status(thing) is S.FAILED and self.traits.open_ended):
            thing.status = S.CANCELED
            self._owe(thing)
        return self.snapshot(thing)

    def capture(self, vendor_id: str, money: Money, key: str) -> PaymentSnapshot:
        thing, traits = self.things[vendor_id], self.traits
        if self._remembered("capture", key, traits.capture_effect, traits.capture_key_window) is not None:
            return self.snapshot(thing)
        status = self._status(thing)
        again = bool(thing.captures) and not traits.careful
        ready = (S.AUTHORIZED,) if traits.authorizes and thing.manual else (S.APPROVED, S.AUTHORIZED)
        if not again and status not in ready:
            raise Rejected(f"it is {status}", provider=self.name, status=422)
        if thing.refuses:
            raise Rejected("declined", provider=self.name, status=402)
        thing.captures.append(key)
        thing.received += money.minor_units
        thing.status = S.PROCESSING if traits.slow_money and not thing.manual else S.PAID
        thing.paid_at = self.clock.now()
        self.keys["capture", key] = self.clock.now(), thing
        self._owe(thing)
        return self.snapshot(thing)

    def refund(self, request: RefundRequest) -> RefundSnapshot:
        thing, traits = self.things[request.vendor_id], self.traits
        known = self._remembered("refund", request.key, traits.refund_effect, traits.refund_key_window)
        if known is not None:
            return self._returned(known)
        units = request.money.minor_units
        if traits.careful and thing.given_back + units > thing.received:
            raise Rejected("more than there is", provider=self.name, status=422)
        if thing.refuses:
            raise Rejected("there is not enough in the account", provider=self.name, status=402)
        status = RefundStatus.PENDING if traits.refund_slow else RefundStatus.SUCCEEDED
        if traits.refunding is Refunding.MANUAL:
            status = RefundStatus.MANUAL_REQUIRED
        one = Return(
            id=f"{thing.id}-r{len(thing.refunds)}", key=request.key, units=units, status=status, at=self.clock.now()
        )
        thing.refunds.append(one)
        self.keys["refund", request.key] = self.clock.now(), one
        self._owe(thing)
        return self._returned(one)

    def fetch_refund(self, vendor_id: str, refund_id: str) -> RefundSnapshot:
        return self._returned(next(one for one in self.things[vendor_id].refunds if one.id == refund_id))

    def find_refund(self, vendor_id: str, key: str) -> RefundSnapshot | None:
        return next((self._returned(one) for one in self.things[vendor_id].refunds if one.key == key), None)

    def statement(self, since: datetime, until: datetime) -> list[StatementLine]:
        return [
            StatementLine(
                kind=LineKind.PAYMENT,
                vendor_id=thing.id,
                payment_id=thing.id,
                money=Money.from_minor(thing.received, thing.price.currency),
                at=thing.paid_at,
                attempt_id=thing.attempt,
                reference=thing.reference,
            )
            for thing in self.things.values()
            if thing.status in (S.PAID, S.PARTIALLY_PAID)
            and thing.paid_at is not None
            and since <= thing.paid_at < until
        ]

    def _remembered(self, verb: str, key: str, effect: Effect, window: timedelta | None) -> Any:
        at, what = self.keys.get((verb, key), (None, None))
        if effect is not Effect.KEYED or at is None:
            return None
        return what if window is None or self.clock.now() - at < window else None

    # What payers and time do.

    def pay(self, thing: Thing, share: Decimal = Decimal(1)) -> bool:
        """The payer pays it, or agrees to; False: it cannot be done any more."""
        now = self.clock.now()
        again = thing.status is S.FAILED and self.traits.open_ended
        if (thing.status is not S.PENDING and not again) or thing.received:
            return False
        ended = now >= thing.expires_at and not self.traits.open_ended
        if ended and (not self.traits.late or now > thing.expires_at + timedelta(hours=20)):
            return False
        thing.agreed_at = now
        if self.traits.captures or (thing.manual and self.traits.manual_capture):
            if ended:
                return False
            thing.status = S.APPROVED
            thing.authorized_until = now + timedelta(hours=self.chance.choice((1, 5)))
            if thing.manual and not self.traits.authorizes:
                self._set_aside(thing)
        else:
            thing.received, thing.paid_at = int(thing.price.minor_units * share), now
            thing.status = S.PROCESSING if self.traits.slow_money else S.PAID
            if thing.received < thing.price.minor_units:
                thing.status, thing.short = S.PARTIALLY_PAID, True
        self._owe(thing)
        return True

    def go_on(self, thing: Thing, *, well: bool) -> None:
        """What takes the vendor's time comes to its end."""
        if thing.reviewed:
            thing.reviewed, thing.status = False, S.AUTHORIZED if well else S.FAILED
            self._owe(thing)
        elif thing.status is S.PROCESSING:
            again = self.traits.open_ended and self.chance.random() < 0.5
            thing.status = S.PAID if well else S.PENDING if again else S.FAILED
            thing.received = thing.received if well else 0
            self._owe(thing)
        for one in thing.refunds:
            if one.status is RefundStatus.SUCCEEDED and self.traits.bounces and not well:
                one.status = RefundStatus.FAILED
                self._owe(thing)
            if one.status in (RefundStatus.PENDING, RefundStatus.MANUAL_REQUIRED):
                one.status = RefundStatus.SUCCEEDED if well else RefundStatus.FAILED
                self._owe(thing)

    def _set_aside(self, thing: Thing) -> None:
        thing.reviewed = self.traits.reviews
        thing.status = S.PROCESSING if thing.reviewed else S.AUTHORIZED
        if self.traits.lasting:
            thing.authorized_until = self.clock.now() + LASTING

    def _owe(self, thing: Thing) -> None:
        if self.traits.webhooks:
            self.owed.append(Note(self, thing))

    def _status(self, thing: Thing) -> S:
        now = self.clock.now()
        if thing.status is S.PENDING and now >= thing.expires_at and not self.traits.open_ended:
            return S.EXPIRED
        if thing.authorized_until and now >= thing.authorized_until and thing.status in (S.APPROVED, S.AUTHORIZED):
            thing.status = S.CANCELED
        return thing.status

    def snapshot(self, thing: Thing) -> PaymentSnapshot:
        """What it says of a thing."""
        currency = thing.price.currency
        return PaymentSnapshot(
            vendor_id=thing.id,
            status=self._status(thing),
            price=thing.price,
            received=Money.from_minor(thing.received, currency) if thing.received else None,
            attempt_id=thing.attempt if self.traits.echoes else "",
            offer=Offer(checkout_url=f"https://vendor.example/{thing.id}", expires_at=thing.expires_at),
            live=True,
            refunded=Money.from_minor(thing.given_back, currency) if thing.refunds else None,
        )

    def _returned(self, one: Return) -> RefundSnapshot:
        thing = next(thing for thing in self.things.values() if one in thing.refunds)
        money = Money.from_minor(one.units, thing.price.currency)
        return RefundSnapshot(vendor_id=one.id, status=one.status, money=money, key=one.key)


# The way to it.


class Weather:
    """How exchanges go wrong; calm in the end."""

    def __init__(self, chance: Random, clock: ModelClock) -> None:
        self.chance = chance
        self.clock = clock
        self.share = chance.choice((0.05, 0.3, 0.3, 0.6))
        self.calm = False
        self.landing = False
        self.later: list[tuple[float, Callable[[], object]]] = []
        """What lands at a vendor after we stopped waiting for it."""
        self.seen: set[str] = set()

    def trouble(self, kinds: Sequence[str]) -> str:
        if self.calm or self.chance.random() >= self.share:
            return ""
        kind = self.chance.choice(kinds)
        self.seen.add(kind)
        return kind

    def land(self) -> None:
        """What has been under way long enough arrives."""
        now = self.clock.monotonic()
        arrived = [act for at, act in self.later if at <= now]
        self.later = [(at, act) for at, act in self.later if at > now]
        self.landing = True
        for act in arrived:
            try:
                act()
            except CallFailed:
                continue
        self.landing = False


READING = ("connect", "throttled", "reset", "reset", "slow")
DOING = ("connect", "refused", "throttled", "rejected", "lost", "lost", "reset", "reset", "hang", "slow", "adrift")


class Line:
    """One process's guarded connection to one vendor."""

    def __init__(self, vendor: Vendor, weather: Weather, guard: Guard) -> None:
        self.vendor = vendor
        self._weather = weather
        self._guard = guard

    async def exchange(
        self,
        operation: str,
        effect: Effect,
        act: Callable[[], Any],
        *,
        key_valid: Callable[[], bool] | None = None,
        adrift: bool = False,
        lies: Callable[[Any], Any] | None = None,
    ) -> Any:
        """One guarded exchange; `adrift`: what was given up on may land later all the same."""
        kinds = READING if effect is Effect.READ else DOING
        if lies is not None:
            kinds = (*kinds, "lie", "lie")

        in_doubt = False

        async def once() -> Any:
            # Who honours a key does not say no under it to what may have happened under it.
            nonlocal in_doubt
            trouble = self._weather.trouble([kind for kind in kinds if kind != "rejected" or not in_doubt])
            in_doubt = in_doubt or trouble in ("lost", "reset", "hang", "adrift")
            return await self._once(operation, trouble, act, adrift=adrift, lies=lies)

        await HERE  # a process may stand still here, before the guard looks at deadlines
        answer = await self._guard.run(once, effect=effect, operation=operation, key_valid=key_valid)
        await HERE  # and here, with the answer in its hand
        return answer

    async def _once(
        self, operation: str, trouble: str, act: Callable[[], Any], *, adrift: bool, lies: Callable[[Any], Any] | None
    ) -> Any:
        who: dict[str, Any] = {"provider": self.vendor.name, "operation": operation}
        clock = self._weather.clock
        await IN_FLIGHT
        match trouble:
            case "connect":
                raise NotSent("no connection", hard=True, **who)
            case "throttled":
                raise Throttled("too many", status=429, retry_after=2.0, **who)
            case "refused":
                raise Refused("not now", status=503, **who)
            case "rejected":
                raise Rejected("declined", status=402, **who)
            case "lost":
                raise OutcomeUnknown("the request was lost", hard=True, **who)
            case "adrift" if adrift:
                patience = min(8.0, remaining(clock))
                self._weather.later.append((clock.monotonic() + patience, act))
                await clock.sleep(patience)
                raise OutcomeUnknown("no answer in time", hard=True, **who)
            case "reset":
                act()
                raise OutcomeUnknown("the answer was lost", hard=True, **who)
            case "hang":
                act()
                await clock.sleep(min(8.0, remaining(clock)))
                raise OutcomeUnknown("no answer in time", hard=True, **who)
            case "slow":
                answer = act()
                await clock.sleep(min(6.0, remaining(clock)))
                return answer
            case "lie":
                assert lies is not None
                return lies(act())
            case _:
                answer = act()
                await IN_FLIGHT
                return answer


# Our object for it.


@dataclass(eq=False)
class Provider(HttpDefaults):
    """An account at a modelled vendor; what it can do beside is mixed in."""

    vendor: Vendor
    chance: Random

    def __post_init__(self) -> None:
        self.name = self.vendor.name
        self.base_url = "http://127.0.0.1:9"
        self.capabilities = self.vendor.traits.capabilities

    async def create(self, http: Line, request: OfferRequest) -> PaymentSnapshot:
        traits = self.vendor.traits
        snapshot: PaymentSnapshot = await http.exchange(
            "create",
            traits.create_effect,
            lambda: self.vendor.create(request),
            key_valid=request.key_valid,
            adrift=traits.lookup is not Lookup.AUTHORITATIVE_ABSENCE,
            lies=self._lie_of_another,
        )
        return snapshot

    async def fetch(self, http: Line, vendor_id: str) -> PaymentSnapshot:
        snapshot: PaymentSnapshot = await http.exchange(
            "fetch", Effect.READ, lambda: self.vendor.fetch(vendor_id), lies=self._lie
        )
        return snapshot

    def _lie_of_another(self, said: PaymentSnapshot) -> PaymentSnapshot:
        """The answer to a creation, about something else; which id a vendor gives only the vendor knows."""
        return replace(self._lie(said), vendor_id=said.vendor_id, attempt_id="f" * 32)

    def _lie(self, said: PaymentSnapshot) -> PaymentSnapshot:
        """An answer that is about something else, most often that it is paid."""
        assert said.price is not None
        other = Money.from_minor(said.price.minor_units * 1000, said.price.currency)
        said = replace(said, status=self.chance.choice((S.PAID, S.PAID, S.PENDING)), received=said.price)
        match self.chance.randrange(4):
            case 0:
                return replace(said, price=other, received=other)
            case 1:
                return replace(said, vendor_id="another")
            case 2:
                return replace(said, received=Money.from_minor(1, "EUR"))
            case _:
                return replace(said, attempt_id="f" * 32)


class Finds:
    async def find(self: Any, http: Line, attempt: Attempt) -> PaymentSnapshot | None:
        found: PaymentSnapshot | None = await http.exchange("find", Effect.READ, lambda: self.vendor.find(attempt.id))
        return found


class Revokes:
    async def revoke(self: Any, http: Line, attempt: Attempt) -> PaymentSnapshot:
        snapshot: PaymentSnapshot = await http.exchange(
            "revoke", Effect.IDEMPOTENT, lambda: self.vendor.revoke(attempt.vendor_id)
        )
        return snapshot


class Authorizes:
    async def authorize(self: Any, http: Line, attempt: Attempt) -> PaymentSnapshot:
        snapshot: PaymentSnapshot = await http.exchange(
            "authorize", Effect.IDEMPOTENT, lambda: self.vendor.authorize(attempt.vendor_id)
        )
        return snapshot


class Captures:
    async def capture(
        self: Any, http: Line, attempt: Attempt, money: Money, *, key: str, key_valid: Callable[[], bool] | None = None
    ) -> PaymentSnapshot:
        snapshot: PaymentSnapshot = await http.exchange(
            "capture",
            self.vendor.traits.capture_effect,
            lambda: self.vendor.capture(attempt.vendor_id, money, key),
            key_valid=key_valid,
            adrift=True,
        )
        return snapshot


class Lists:
    async def statement(self: Any, http: Line, since: datetime, until: datetime) -> AsyncIterator[StatementLine]:
        lines: list[StatementLine] = await http.exchange(
            "statement", Effect.READ, lambda: self.vendor.statement(since, until)
        )
        for line in lines:
            yield line


class RefundsByApi:
    async def refund(self: Any, http: Line, request: RefundRequest) -> RefundSnapshot:
        snapshot: RefundSnapshot = await http.exchange(
            "refund",
            self.vendor.traits.refund_effect,
            lambda: self.vendor.refund(request),
            key_valid=request.key_valid,
            adrift=True,
        )
        return snapshot

    async def fetch_refund(self: Any, http: Line, request: RefundRequest, vendor_id: str) -> RefundSnapshot:
        snapshot: RefundSnapshot = await http.exchange(
            "fetch_refund", Effect.READ, lambda: self.vendor.fetch_refund(request.vendor_id, vendor_id)
        )
        return snapshot


class FindsRefunds:
    async def find_refund(self: Any, http: Line, request: RefundRequest) -> RefundSnapshot | None:
        found: RefundSnapshot | None = await http.exchange(
            "find_refund", Effect.READ, lambda: self.vendor.find_refund(request.vendor_id, request.key)
        )
        return found


class Quotes:
    async def quote(self: Any, http: Line, due: Money, *, at: datetime) -> Quote:
        return Quote.of(due, RATE, "BTC", source=self.name, at=at)


_CLASSES: dict[tuple[type, ...], type[Any]] = {}


def provider(vendor: Vendor, chance: Random) -> Any:
    """Our object for it, with the verbs it has."""
    traits = vendor.traits
    parts: list[type] = []
    for part, has in (
        (Finds, traits.lookup is not Lookup.NONE),
        (Revokes, traits.revocable or traits.authorizes),
        (Authorizes, traits.authorizes),
        (Captures, traits.captures or traits.manual_capture),
        (Lists, traits.lists),
        (RefundsByApi, traits.refunding is not Refunding.NONE),
        (FindsRefunds, traits.refunding is not Refunding.NONE and traits.refund_lookup),
        (Quotes, traits.currency == "BTC"),
    ):
        if has:
            parts.append(part)
    bases = (*parts, Provider)
    if bases not in _CLASSES:
        _CLASSES[bases] = type("Modelled", bases, {})
    return _CLASSES[bases](vendor, chance)
