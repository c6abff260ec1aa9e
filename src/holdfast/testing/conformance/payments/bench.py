"""A provider, its vendor's simulator, and the wire between the two, on a clock that stands still."""

import asyncio
import pickle
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, Protocol, TypeVar

from holdfast.errors import CallFailed, CredentialRefused, HoldfastError
from holdfast.http.session import Http
from holdfast.http.tokens import TokenVendor
from holdfast.http.transports import HttpRequest, HttpResponse
from holdfast.iso4217 import EXPONENTS
from holdfast.outcome import Effect
from holdfast.payments.models import Attempt, AttemptState, Capture, Offer, Payer, PaymentStatus
from holdfast.payments.provider import (
    Capabilities,
    OfferRequest,
    PaymentProvider,
    PaymentSnapshot,
    RefundRequest,
    SupportsAuthorizing,
    SupportsCapture,
)
from holdfast.resilience.guard import Guard
from holdfast.testing.clock import ManualClock
from holdfast.testing.conformance.payments.promise import Broken, demand
from holdfast.testing.entries import Entry, Kind
from holdfast.testing.faults import Call, Fault
from holdfast.testing.secrets import assert_no_secrets
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.simulator import Simulator
from holdfast.values import BTC, Money, Secret, Secrets
from holdfast.webhooks.door import ReceivesWebhooks
from holdfast.webhooks.signatures import sign_path

T = TypeVar("T")

START: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
DOOR: Final = "https://shop.example/webhooks"
REFERENCE: Final = "consultation-4711"
RETURN_URL: Final = "https://shop.example/thanks"
DOOR_SECRET: Final = Secret("the-secret-of-the-shop's-own-door")
HALF_AN_HOUR: Final = timedelta(minutes=30)
AT_ONCE: Final = 10
"""Exchanges that go by before time passes."""
STEP: Final = 5.0
"""Seconds that time goes on at once, while somebody waits."""
LONGEST: Final = 2000
"""Steps after which nobody waits any more."""


class Subject(Protocol):
    """What is put on a bench; `PaymentConformance` is one."""

    payer: Payer

    def simulator(self, clock: ManualClock) -> Any: ...

    def provider(self, simulator: Any) -> PaymentProvider: ...

    def due(self, provider: PaymentProvider) -> Money: ...

    def pay(self, simulator: Any, snapshot: PaymentSnapshot) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One exchange that a provider made, as it declared it."""

    operation: str
    effect: Effect
    key_valid: Callable[[], bool] | None


class Witness(Guard):
    """Lets every exchange through once, and remembers what it was said to be."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.asked: list[Asked] = []

    async def run(
        self,
        exchange: Callable[[], Awaitable[T]],
        *,
        effect: Effect,
        operation: str,
        refresh: Callable[[], Awaitable[object]] | None = None,
        key_valid: Callable[[], bool] | None = None,
        deadline: float | None = None,
        timeout: float | None = None,
        credential: str = "",
        scope: str = "",
    ) -> T:
        self.asked.append(Asked(operation=operation, effect=effect, key_valid=key_valid))
        try:
            return await exchange()
        except CredentialRefused:
            if refresh:
                await refresh()  # for what comes next: this one is not repeated
            raise


class Wire:
    """A transport into the simulator, on which one exchange can be struck, or its answer forged."""

    def __init__(self, vendor: Simulator, witness: Witness) -> None:
        self._inner = InProcess(vendor)
        self._witness = witness
        self.sent: list[HttpRequest] = []
        self.answers: list[HttpResponse] = []
        self.fault: Fault | None = None
        """Strikes the next exchange that is more than a look, or the next at all."""
        self.strikes_looks = False
        self.forge: Callable[[HttpResponse], HttpResponse] | None = None
        """Makes of each answer what the provider gets to see."""
        self._armed: Fault | None = None
        vendor.faults.on(vendor.vendor).plan(self._strike)

    async def send(self, request: HttpRequest) -> HttpResponse:
        looks = bool(self._witness.asked) and self._witness.asked[-1].effect is Effect.READ
        if self.strikes_looks or not looks:
            self._armed, self.fault = self.fault, None
        self.sent.append(request)
        answer = await self._inner.send(request)
        self.answers.append(answer)
        return self.forge(answer) if self.forge else answer

    async def aclose(self) -> None:
        """There is nothing to close."""

    def _strike(self, call: Call, random: Random) -> Fault | None:
        fault, self._armed = self._armed, None
        return fault


@dataclass(frozen=True, slots=True)
class _Held:
    value: Secret
    generation: int = 1


class Tokens:
    """The token of a vendor that gives one; fetched over a wire of its own while it is good."""

    def __init__(self, provider: TokenVendor, vendor: Simulator, clock: ManualClock) -> None:
        self._provider = provider
        self._http = Http(provider, InProcess(vendor), Witness(provider.name), clock)
        self._clock = clock
        self._held: _Held | None = None
        self._until = 0.0

    async def current(self) -> _Held:
        if self._held is None or self._clock.monotonic() >= self._until:
            token = await self._provider.fetch_token(self._http)
            self._held, self._until = _Held(token.value), self._clock.monotonic() + token.expires_in
        return self._held

    async def newer(self, refused: object) -> _Held:
        self._held = None
        return await self.current()


class Bench:
    """Where one promise is tried: everything on it is made anew for each."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.clock = ManualClock(START)
        self.vendor: Simulator = subject.simulator(self.clock)
        self.provider = subject.provider(self.vendor)
        if isinstance(self.provider, ReceivesWebhooks) and self.provider.scheme is not None:
            self.vendor.webhook_url = self.vendor.webhook_url or f"{DOOR}/{self.provider.name}"
        self.witness = Witness(self.provider.name)
        self.wire = Wire(self.vendor, self.witness)
        self._tokens = None
        if isinstance(self.provider, TokenVendor):
            self._tokens = Tokens(self.provider, self.vendor, self.clock)
        self.http = Http(self.provider, self.wire, self.witness, self.clock, tokens=self._tokens)
        self._chance = Random(4711)

    @property
    def able(self) -> Capabilities:
        return self.provider.capabilities

    @property
    def name(self) -> str:
        return self.provider.name

    @property
    def fields(self) -> dict[str, object]:
        """What the provider holds."""
        return dict(vars(self.provider))

    @property
    def due(self) -> Money:
        """What the payments on this bench are over."""
        return self.subject.due(self.provider)

    # What is asked for

    def id(self) -> str:
        """The id of an attempt, or the key of a move, as the client makes them."""
        return f"{self._chance.getrandbits(128):032x}"

    def request(self, price: Money | None = None, **changes: Any) -> OfferRequest:
        """What the client would ask this provider for."""
        attempt_id = changes.get("attempt_id") or self.id()
        expires_in = changes.pop("expires_in", max(HALF_AN_HOUR, self.able.minimum_expiry))
        facts: dict[str, Any] = {
            "reference": REFERENCE,
            "attempt_id": attempt_id,
            "price": self.due if price is None else price,
            "description": "Consultation",
            "expires_in": expires_in,
            "expires_at": self.clock.now() + expires_in,
            "webhook_url": self._door(attempt_id),
            "return_url": RETURN_URL,
            "capture": Capture.AUTO,
            "payer": self.subject.payer if self.able.payer else None,
            "key_valid": lambda: True,
        }
        return OfferRequest(**facts | changes)

    def attempt(
        self, request: OfferRequest, snapshot: PaymentSnapshot | None = None, status: PaymentStatus | None = None
    ) -> Attempt:
        """As the client holds it once it has this of the vendor; without a snapshot its answer was lost."""
        return Attempt(
            number=1,
            id=request.attempt_id,
            provider=self.name,
            state=AttemptState.OFFERED if snapshot else AttemptState.UNKNOWN,
            claim=1,
            price=request.price,
            claimed_at=self.clock.now(),
            claimed_until=self.clock.now() + timedelta(seconds=40),
            expires_at=request.expires_at,
            vendor_id=snapshot.vendor_id if snapshot else "",
            offer=snapshot.offer if snapshot else None,
            status=status or (snapshot.status if snapshot else PaymentStatus.UNKNOWN),
        )

    def refund_request(self, attempt: Attempt, money: Money, key: str) -> RefundRequest:
        """What the client would ask to send back."""
        return RefundRequest(
            reference=REFERENCE,
            attempt_id=attempt.id,
            vendor_id=attempt.vendor_id,
            key=key,
            money=money,
            reason="ill",
            key_valid=lambda: True,
        )

    def _door(self, attempt_id: str) -> str | None:
        if not isinstance(self.provider, ReceivesWebhooks):
            return None
        if self.provider.scheme is not None:
            return f"{DOOR}/{self.name}"
        return DOOR + sign_path(DOOR_SECRET, self.name, attempt_id)

    # What is done

    async def sign_in(self) -> None:
        """Have the token that the next exchange needs."""
        if self._tokens is not None:
            await self._tokens.current()

    async def create(self, request: OfferRequest) -> PaymentSnapshot:
        await self._breathe()
        return await self.provider.create(self.http, request)

    async def fetch(self, vendor_id: str) -> PaymentSnapshot:
        await self._breathe()
        return await self.provider.fetch(self.http, vendor_id)

    async def _breathe(self) -> None:
        """Let time pass, for vendors that answer so many calls in a second and no more."""
        if len(self.wire.sent) % AT_ONCE == AT_ONCE - 1 and not self.wire.fault:
            await self.clock.advance(1)

    def pay(self, snapshot: PaymentSnapshot) -> None:
        """The payer pays the offer, or agrees to it, where money moves when we say so."""
        try:
            self.subject.pay(self.vendor, snapshot)
        except LookupError as error:
            raise Broken(f"the simulator finds no offer to pay: {error}") from error

    async def agreed(self, *, capture: Capture = Capture.AUTO) -> Attempt:
        """An offer that its payer said yes to, as it was seen after that."""
        request = self.request(capture=capture)
        return await self.agree_to(request, await self.create(request))

    async def agree_to(self, request: OfferRequest, snapshot: PaymentSnapshot) -> Attempt:
        """The same of this offer."""
        self.pay(snapshot)
        seen = await self.fetch(snapshot.vendor_id)
        attempt = self.attempt(request, replace(seen, offer=snapshot.offer))
        if request.capture is Capture.MANUAL and isinstance(self.provider, SupportsAuthorizing):
            held = await self.provider.authorize(self.http, attempt)
            attempt = replace(attempt, status=held.status)
        return attempt

    async def paid(self) -> Attempt:
        """An offer whose money has moved."""
        request = self.request()
        return await self.collect(request, await self.create(request))

    async def collect(self, request: OfferRequest, snapshot: PaymentSnapshot) -> Attempt:
        """The same of this offer."""
        attempt = await self.agree_to(request, snapshot)
        if not self.able.captures:
            return attempt
        demand(isinstance(self.provider, SupportsCapture), f"{self.name} has to be captured, and cannot be")
        assert isinstance(self.provider, SupportsCapture)
        moved = await self.provider.capture(self.http, attempt, attempt.price, key=self.id())
        return replace(attempt, status=moved.status)

    def entries(self, kind: Kind) -> list[Entry]:
        """What happened of that kind."""
        return self.vendor.ledger.entries(kind)

    async def run(self, work: Coroutine[Any, Any, T], *, step: float = STEP) -> T:
        """Await it while time passes as far as it must."""
        task = asyncio.ensure_future(work)
        try:
            for _ in range(LONGEST):
                if task.done():
                    break
                await self.clock.advance(step)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        return task.result()

    async def outcome(self, work: Coroutine[Any, Any, T]) -> T | CallFailed:
        """What comes back of it: a value, or the one error that a provider may raise once it has sent something.

        Raises:
            Broken: Another error, one that tells a secret, or one that cannot be sent to another process.
        """
        try:
            return await (self.run(work) if self.wire.fault else work)
        except CallFailed as error:
            self.silent(error)
            return error
        except Exception as error:
            raise Broken(f"{type(error).__name__} came through: {error}; only a CallFailed may") from error

    # Secrets

    def silent(self, *told: object) -> None:
        """Raises AssertionError: one of these, or what it becomes elsewhere, tells a secret of the provider's."""
        if any(isinstance(getattr(self.provider, name, None), Secret | Secrets) for name in _fields(self.provider)):
            assert_no_secrets(*map(_written, told), secrets=self.provider)
        for error in told:
            if isinstance(error, HoldfastError):
                again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
                demand(str(again) == str(error), f"{type(error).__name__} does not survive pickle")


def _written(told: object) -> str:
    """Whatever of it may come before people; of an error, also what it was made of."""
    if not isinstance(told, BaseException):
        return str(told)
    words = [repr(told), str(told), repr(vars(told)), *traceback.format_exception(told)]
    return " ".join(words)


def _fields(provider: object) -> list[str]:
    return [field.name for field in fields(provider)] if is_dataclass(provider) else []


def usual_due(provider: PaymentProvider) -> Money:
    """An amount that the provider takes: 120 francs where it may, else as much of its first currency."""
    able = provider.capabilities
    currencies = able.currencies
    if currencies is None or "CHF" in currencies:
        return Money("120.00", "CHF")
    if currencies == frozenset({BTC}):
        return Money.from_sat(21_000)
    currency = next(code for code in sorted(currencies) if code in EXPONENTS)
    return Money(12_000 if EXPONENTS[currency] == 0 else 120, currency)


def usual_pay(simulator: Simulator, snapshot: PaymentSnapshot) -> None:
    """Pay what a payer sees of the offer: its page, its invoice, its address; else what the vendor calls it."""
    offer = snapshot.offer or Offer()
    simulator.pay(offer.checkout_url or offer.bolt11 or offer.address or snapshot.vendor_id)


USUAL_PAYER: Final = Payer(email="ada@example.org", msisdn="224660000000")
