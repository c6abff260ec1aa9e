"""A whole payment through the family: the vendor's answers are lost on the way, and it is paid once."""

from collections.abc import Iterator
from random import Random
from typing import Any, Final

from holdfast.errors import CallFailed, OutcomeUnknown
from holdfast.hub import Holdfast
from holdfast.outcome import Effect
from holdfast.payments.events import PaymentPaid
from holdfast.payments.models import Payment, PaymentStatus
from holdfast.payments.provider import Lookup, PaymentProvider, PaymentSnapshot, WebhookTrust
from holdfast.stores.memory import MemoryStore
from holdfast.testing.conformance.payments.bench import DOOR, DOOR_SECRET, RETURN_URL, Bench
from holdfast.testing.conformance.payments.promise import Promise, demand
from holdfast.testing.entries import Kind
from holdfast.testing.faults import Reset
from holdfast.testing.intents import charge
from holdfast.testing.simulators.forgeries import Manner, dress
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.simulator import Webhook
from holdfast.values import Secrets

ROUNDS: Final = 6
"""Sweeps after which what can be found has been."""
TICK: Final = 1.0


def promises(provider: PaymentProvider) -> Iterator[Promise]:
    """Of every provider, with a hub of its own."""
    yield Promise.of(is_paid_once_though_answers_are_lost)
    if provider.capabilities.webhook_trust is not WebhookTrust.NONE:
        yield Promise.of(a_webhook_changes_nothing_by_itself)


async def is_paid_once_though_answers_are_lost(bench: Bench) -> None:
    """With the answer to the creation lost it is paid once; or, where nobody can find out, never offered again."""
    async with _Shop(bench) as shop:
        shop.lose()
        unknown = None
        try:
            await shop.create("consultation-1")
        except OutcomeUnknown as error:
            unknown = error
        await shop.settle()

        payment = await shop.get("consultation-1")
        keyed = bench.able.create_effect is Effect.KEYED
        findable = bench.able.lookup is not Lookup.NONE
        if not keyed and not findable:
            demand(unknown is not None, "nobody can find out what became of it, and it is not told as unknown")
            demand(payment.offer is None, "an offer is shown whose creation was never answered")
            demand(len(bench.entries(Kind.OFFER)) == 1, "what may exist was made a second time")
            await shop.create("consultation-2")
            payment = await shop.get("consultation-2")
        elif payment.offer is None:
            payment = await shop.again("consultation-1")
        await shop.pay(payment)

        payment = await shop.get(payment.reference)
        demand(payment.status is PaymentStatus.PAID, f"it was paid, and is {payment.status} over {payment.route}")
        demand([told.reference for told in shop.told] == [payment.reference], f"told as paid: {shop.told}")
        bench.vendor.ledger.exactly_once(charge())
        shown = [attempt for attempt in payment.attempts if attempt.shown_at]
        demand(len(shown) == 1, f"{len(shown)} offers of one payment were shown")


async def a_webhook_changes_nothing_by_itself(bench: Bench) -> None:
    """A webhook that is the vendor's, rightly signed and untrue, pays nothing; a true one is told once."""
    async with _Shop(bench) as shop:
        first, second = await shop.create("consultation-1"), await shop.create("consultation-2")
        shop.agree(first)
        owed = list(bench.vendor.outbox)
        lies = [lie for webhook in owed if (lie := bench.vendor.untrue(webhook)) is not None]

        statuses = [await shop.post(lie) for lie in lies]
        await shop.settle()
        unpaid = await shop.get(second.reference)

        demand(unpaid.status is not PaymentStatus.PAID, "a webhook claimed that it was paid, and was believed")
        demand(all(status < 300 for status in statuses), f"the vendor's own webhooks are answered with {statuses}")
        for _ in range(2):
            statuses = [await shop.post(webhook) for webhook in owed]
            demand(all(status < 300 for status in statuses), f"genuine webhooks are answered with {statuses}")
        await shop.settle()
        demand([told.reference for told in shop.told] == [first.reference], f"told as paid: {shop.told}")


class _Shop:
    """A hub that takes payments with the provider on the bench, and nothing else."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.told: list[PaymentPaid] = []
        self.hub = Holdfast(
            store=MemoryStore(clock=bench.clock),
            secret=Secrets(DOOR_SECRET),
            public_url=DOOR,
            payments=[bench.provider],
            clock=bench.clock,
            chance=Random(7),
            transport=lambda _: InProcess(bench.vendor),
        )

        @self.hub.on(PaymentPaid, name="tell")
        async def tell(paid: PaymentPaid) -> None:
            self.told.append(paid)

    async def __aenter__(self) -> "_Shop":
        await self.hub.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.hub.__aexit__(None, None, None)

    def lose(self) -> None:
        """The answer to the next creation never comes."""
        self._bench.vendor.faults.on(self._bench.vendor.vendor, "payments.create").script(Reset())

    async def create(self, reference: str) -> Payment:
        payer = self._bench.subject.payer if self._bench.able.payer else None
        work = self.hub.payments.create(reference, self._bench.due, return_url=RETURN_URL, payer=payer)
        return await self._bench.run(work, step=TICK)

    async def again(self, reference: str) -> Payment:
        """The caller asks once more, once that is safe."""
        for _ in range(ROUNDS):
            try:
                await self.create(reference)
            except CallFailed:
                await self.settle()
            else:
                break
        return await self.get(reference)

    async def get(self, reference: str) -> Payment:
        return await self.hub.payments.get(reference)

    def agree(self, payment: Payment) -> None:
        """The payer pays, or says yes."""
        attempt = payment.attempts[-1]
        demand(payment.offer is not None, f"there is no offer to pay; it went {payment.route}")
        snapshot = PaymentSnapshot(vendor_id=attempt.vendor_id, status=PaymentStatus.PENDING, offer=payment.offer)
        self._bench.pay(snapshot)

    async def pay(self, payment: Payment) -> None:
        self.agree(payment)
        await self.settle()

    async def settle(self) -> None:
        """Whatever is due in the next minutes is done."""
        for _ in range(ROUNDS):
            await self._bench.run(self.hub.settle(), step=TICK)
            await self._bench.clock.advance(31)
        await self._bench.run(self.hub.settle(), step=TICK)

    async def post(self, webhook: Webhook) -> int:
        """The webhook at the door, as its server would hand it over; the status of the answer."""
        url, headers, body = dress(self._bench.vendor, webhook, Manner.GENUINE, self._bench.clock.now())
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        pairs = [(name.lower().encode(), value.encode()) for name, value in headers]
        scope = {"type": "http", "method": "POST", "path": url.removeprefix(DOOR), "headers": pairs}
        await self.hub.receiver(scope, receive, send)
        return statuses[0]
