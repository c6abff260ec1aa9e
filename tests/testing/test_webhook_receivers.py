"""The hub's own receiver takes in all that is genuine and nothing that is forged, from every vendor it has."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest

from holdfast import Holdfast, Money, Secret, Secrets
from holdfast.payments.provider import PaymentProvider
from holdfast.providers import LNbits, SwissBitcoinPay, Telegram, Zoom
from holdfast.queue import inbox
from holdfast.stores.store import JobFilter
from holdfast.testing.clock import ManualClock
from holdfast.testing.deliveries import Webhooks
from holdfast.testing.ledger import Ledger
from holdfast.testing.simulators.courier import Sent
from holdfast.testing.simulators.forgeries import Manner
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.simulators.simulator import Reply, Simulator
from holdfast.testing.simulators.swiss_bitcoin_pay import SwissBitcoinPaySimulator
from holdfast.testing.simulators.telegram import TelegramSimulator
from holdfast.testing.simulators.zoom import ZoomSimulator

PUBLIC = "https://shop.example/webhooks"
VENDORS = ("lnbits", "swiss-bitcoin-pay", "telegram", "zoom")


@dataclass
class Shop:
    """A hub with every vendor there is, and what they owe it."""

    hub: Holdfast
    clock: ManualClock
    simulators: dict[str, Simulator]
    webhooks: Webhooks

    async def owe(self, vendor: str, number: int = 1) -> None:
        """Something happens there."""
        simulator = self.simulators[vendor]
        if isinstance(simulator, TelegramSimulator):
            simulator.write("4711", f"hello {number}")
        elif isinstance(simulator, ZoomSimulator):
            starts_at = self.clock.now() + timedelta(hours=1)
            await self.hub.meetings.create(f"m-{number}", starts_at=starts_at, duration=timedelta(minutes=30))
        else:
            payment = await self.hub.payments.create(f"{vendor}-{number}", Money("12.00", "CHF"))
            assert payment.offer
            simulator.pay(payment.offer.bolt11 or payment.offer.checkout_url or "")

    async def deliveries(self) -> int:
        return len(await self.hub.store.jobs.list(JobFilter(queue=inbox.QUEUE), limit=1000))


@asynccontextmanager
async def opened(vendor: str, *, secrets: Callable[[Simulator], Secrets] | None = None) -> AsyncIterator[Shop]:
    clock = ManualClock()
    ledger = Ledger(clock)
    sbp, lnbits = SwissBitcoinPaySimulator(clock=clock, ledger=ledger), LNbitsSimulator(clock=clock, ledger=ledger)
    telegram = TelegramSimulator(clock=clock, ledger=ledger, webhook_url=f"{PUBLIC}/telegram")
    zoom = ZoomSimulator(clock=clock, ledger=ledger, webhook_url=f"{PUBLIC}/zoom")
    simulators: dict[str, Simulator] = {one.vendor: one for one in (sbp, lnbits, telegram, zoom)}
    of = {name: (secrets or (lambda one: Secrets(one.webhook_secret)))(one) for name, one in simulators.items()}
    here = "http://127.0.0.1:1"
    payments: dict[str, PaymentProvider] = {
        "swiss-bitcoin-pay": SwissBitcoinPay(
            api_key=Secret(sbp.api_key), webhook_secret=of["swiss-bitcoin-pay"], base_url=here
        ),
        "lnbits": LNbits(invoice_key=Secret(lnbits.invoice_key), base_url=here),
    }
    hub = Holdfast(
        store="memory://",
        secret=Secrets("hub-secret"),
        public_url=PUBLIC,
        payments=[payments.get(vendor) or payments["lnbits"]],
        meetings=[
            Zoom(
                account_id=zoom.account_id,
                client_id=zoom.client_id,
                client_secret=Secret(zoom.client_secret),
                host="ada@example.org",
                webhook_secret=of["zoom"],
                base_url=f"{here}/v2",
                token_url=f"{here}/oauth/token",
            )
        ],
        notifications=[Telegram(token=Secret(telegram.bot_token), webhook_secret=of["telegram"], base_url=here)],
        clock=clock,
        transport=lambda one: InProcess(simulators[one.name]),
    )
    async with hub:
        yield Shop(hub, clock, simulators, Webhooks(simulators, clock=clock, seed=7))


def manners(sent: list[Sent]) -> set[Manner]:
    return {one.manner for one in sent}


@pytest.mark.parametrize("vendor", VENDORS)
async def test_all_that_is_genuine_is_taken_and_all_that_is_forged_is_refused(vendor: str) -> None:
    async with opened(vendor) as shop:
        # given
        for number in range(5):
            await shop.owe(vendor, number)
        owed = shop.webhooks.owed
        door = shop.webhooks.to(shop.hub.receiver)

        # when
        sent = await door.deliver(duplicate=1, shuffle=True, forge="all", together=True, skew="4m")

        # then
        shop.webhooks.assert_all_genuine_accepted()
        shop.webhooks.assert_no_forgery_accepted()
        assert {one.number for one in sent if one.accepted} == set(range(owed))
        assert all(one.status in (401, 404) for one in sent if one.manner.forged)
        assert any(one.manner.forged for one in sent)
        assert await shop.deliveries() == owed


@pytest.mark.parametrize("vendor", ["swiss-bitcoin-pay", "zoom"])
async def test_a_body_that_was_written_anew_on_its_way_is_refused(vendor: str) -> None:
    async with opened(vendor) as shop:
        await shop.owe(vendor)
        sent = await shop.webhooks.to(shop.hub.receiver).deliver(reserialise=True, drop=True)
        assert {(str(one.manner), one.status) for one in sent} == {("reserialised", 401)}
        assert await shop.deliveries() == 0


async def test_what_is_signed_too_early_or_too_late_is_refused() -> None:
    async with opened("zoom") as shop:
        for number, skew in enumerate(("-6m", "6m")):
            await shop.owe("zoom", number)
            sent = await shop.webhooks.to(shop.hub.receiver).deliver(skew=skew)
            assert {one.status for one in sent} == {401}


@pytest.mark.parametrize("vendor", ["swiss-bitcoin-pay", "telegram", "zoom"])
async def test_while_a_secret_is_rolled_either_is_taken_and_afterwards_only_the_new_one(vendor: str) -> None:
    def both(simulator: Simulator) -> Secrets:
        old = simulator.webhook_secret
        return Secrets(simulator.roll_secret(), old)

    async with opened(vendor, secrets=both) as shop:
        for number in range(2):
            await shop.owe(vendor, number)
        during = await shop.webhooks.to(shop.hub.receiver).deliver(rotate="during")
        assert manners(during) == {Manner.STRAGGLER, Manner.GENUINE}
        assert all(one.accepted for one in during)

    async with opened(vendor, secrets=lambda simulator: Secrets(simulator.roll_secret())) as shop:
        await shop.owe(vendor)
        after = await shop.webhooks.to(shop.hub.receiver).deliver(rotate="after", forge="retired_secret")
        assert [(one.manner, one.status) for one in after] == [(Manner.RETIRED_SECRET, 401), (Manner.GENUINE, 200)]


@pytest.mark.parametrize("vendor", ["swiss-bitcoin-pay", "telegram", "zoom"])
async def test_a_receiver_that_never_learned_the_new_secret_is_found_out(vendor: str) -> None:
    async with opened(vendor) as shop:
        await shop.owe(vendor)
        await shop.webhooks.to(shop.hub.receiver).deliver(rotate="after")
        with pytest.raises(AssertionError, match="never accepted what is genuine"):
            shop.webhooks.assert_all_genuine_accepted()


async def test_the_receiver_proves_itself_to_zoom() -> None:
    async with opened("zoom") as shop:
        [sent] = await shop.webhooks.to(shop.hub.receiver, "/webhooks/zoom").handshake()
        assert sent.accepted
        assert await shop.deliveries() == 0


async def test_what_is_never_delivered_only_reconciliation_finds() -> None:
    async with opened("lnbits") as shop:
        await shop.owe("lnbits")
        await shop.webhooks.to(shop.hub.receiver).deliver(drop=True)
        assert (await shop.deliveries(), len(shop.webhooks.dropped)) == (0, 1)
        [found] = (await shop.hub.reconcile()).values()
        assert (found.seen, found.missed) == (1, 1)


async def test_a_hub_that_dies_gets_it_with_the_next_try() -> None:
    async with opened("zoom") as shop:
        # given
        deaths = [True, True, False]

        async def runner(call: Callable[[], Awaitable[Reply]]) -> Reply | int:
            reply = await call()
            return 0 if deaths.pop(0) else reply

        await shop.owe("zoom")
        shop.webhooks.runner = runner

        # when
        sent = await shop.webhooks.to(shop.hub.receiver).deliver()

        # then
        assert [one.status for one in sent] == [0, 0, 200]
        assert await shop.deliveries() == 1
