"""Every payment vendor of ours keeps every promise that the family relies on."""

from holdfast.providers import (
    BTCPay,
    LNbits,
    Lnd,
    MtnMomo,
    OpenNode,
    OrangeMoney,
    PayPal,
    Paystack,
    Stripe,
    SwissBitcoinPay,
)
from holdfast.providers.paypal.signatures import LocalVerification
from holdfast.testing.clock import ManualClock
from holdfast.testing.conformance.payments import PaymentConformance
from holdfast.testing.conformance.payments.bench import DOOR, START
from holdfast.testing.simulators.btcpay import BTCPaySimulator
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.simulators.lnd import LndSimulator
from holdfast.testing.simulators.mtn_momo import MtnMomoSimulator
from holdfast.testing.simulators.opennode import OpenNodeSimulator
from holdfast.testing.simulators.orange_money import OrangeMoneySimulator
from holdfast.testing.simulators.paypal import PayPalSimulator
from holdfast.testing.simulators.paystack import PaystackSimulator
from holdfast.testing.simulators.simulator import Request
from holdfast.testing.simulators.stripe import StripeSimulator
from holdfast.testing.simulators.swiss_bitcoin_pay import SwissBitcoinPaySimulator
from holdfast.values import Secret, Secrets

HERE = "http://127.0.0.1:1"


class TestLNbits(PaymentConformance[LNbitsSimulator]):
    def simulator(self, clock: ManualClock) -> LNbitsSimulator:
        return LNbitsSimulator(clock=clock)

    def provider(self, simulator: LNbitsSimulator) -> LNbits:
        return LNbits(base_url=HERE, invoice_key=Secret(simulator.invoice_key))


class TestSwissBitcoinPay(PaymentConformance[SwissBitcoinPaySimulator]):
    def simulator(self, clock: ManualClock) -> SwissBitcoinPaySimulator:
        return SwissBitcoinPaySimulator(clock=clock)

    def provider(self, simulator: SwissBitcoinPaySimulator) -> SwissBitcoinPay:
        return SwissBitcoinPay(
            base_url=HERE, api_key=Secret(simulator.api_key), webhook_secret=Secrets(simulator.webhook_secret)
        )


class TestSwissBitcoinPayOfOld(TestSwissBitcoinPay):
    def simulator(self, clock: ManualClock) -> SwissBitcoinPaySimulator:
        return SwissBitcoinPaySimulator(clock=clock, shape="boolean")


class TestStripe(PaymentConformance[StripeSimulator]):
    def simulator(self, clock: ManualClock) -> StripeSimulator:
        return StripeSimulator(clock=clock)

    def provider(self, simulator: StripeSimulator) -> Stripe:
        return Stripe(api_key=Secret(simulator.api_key), webhook_secret=Secrets(simulator.webhook_secret))


class TestPayPal(PaymentConformance[PayPalSimulator]):
    def simulator(self, clock: ManualClock) -> PayPalSimulator:
        return PayPalSimulator(clock=clock, webhook_url=f"{DOOR}/paypal")

    def provider(self, simulator: PayPalSimulator) -> PayPal:
        verification = LocalVerification(roots=simulator.root)
        path = simulator.certificate_url.partition("://")[2].partition("/")[2]
        certificate = simulator.answer(Request(method="GET", target=f"/{path}")).body
        verification.add(simulator.certificate_url, certificate, at=START)
        return PayPal(
            client_id=simulator.client_id,
            client_secret=Secret(simulator.client_secret),
            webhook_id=Secrets(simulator.webhook_secret),
            merchant_id=simulator.merchant_id,
            verification=verification,
            base_url=HERE,
        )


class TestBTCPay(PaymentConformance[BTCPaySimulator]):
    def simulator(self, clock: ManualClock) -> BTCPaySimulator:
        return BTCPaySimulator(clock=clock)

    def provider(self, simulator: BTCPaySimulator) -> BTCPay:
        return BTCPay(
            base_url=HERE,
            store_id=simulator.store_id,
            api_key=Secret(simulator.api_key),
            webhook_secret=Secrets(simulator.webhook_secret),
        )


class TestOpenNode(PaymentConformance[OpenNodeSimulator]):
    def simulator(self, clock: ManualClock) -> OpenNodeSimulator:
        return OpenNodeSimulator(clock=clock)

    def provider(self, simulator: OpenNodeSimulator) -> OpenNode:
        return OpenNode(base_url=f"{HERE}/v1", api_key=Secrets(simulator.api_key))


class TestLnd(PaymentConformance[LndSimulator]):
    def simulator(self, clock: ManualClock) -> LndSimulator:
        return LndSimulator(clock=clock)

    def provider(self, simulator: LndSimulator) -> Lnd:
        return Lnd(
            base_url=HERE,
            macaroon=Secret(simulator.macaroon),
            preimage_key=Secrets(simulator.preimage_key),
            network=simulator.network,
        )


class TestMtnMomo(PaymentConformance[MtnMomoSimulator]):
    def simulator(self, clock: ManualClock) -> MtnMomoSimulator:
        return MtnMomoSimulator(clock=clock, environment="mtnguineaconakry", currency="GNF")

    def provider(self, simulator: MtnMomoSimulator) -> MtnMomo:
        return MtnMomo(
            base_url=HERE,
            subscription_key=Secret(simulator.subscription_key),
            api_user=simulator.api_user,
            api_key=Secret(simulator.api_key),
            environment=simulator.environment,
        )


class TestPaystack(PaymentConformance[PaystackSimulator]):
    def simulator(self, clock: ManualClock) -> PaystackSimulator:
        return PaystackSimulator(clock=clock, webhook_url=f"{DOOR}/paystack")

    def provider(self, simulator: PaystackSimulator) -> Paystack:
        return Paystack(base_url=HERE, api_key=Secrets(simulator.api_key))


class TestOrangeMoney(PaymentConformance[OrangeMoneySimulator]):
    def simulator(self, clock: ManualClock) -> OrangeMoneySimulator:
        return OrangeMoneySimulator(clock=clock, country="gn", currency="GNF")

    def provider(self, simulator: OrangeMoneySimulator) -> OrangeMoney:
        return OrangeMoney(
            base_url=HERE,
            client_id=simulator.client_id,
            client_secret=Secret(simulator.client_secret),
            merchant_key=Secret(simulator.merchant_key),
            country=simulator.country,
        )
