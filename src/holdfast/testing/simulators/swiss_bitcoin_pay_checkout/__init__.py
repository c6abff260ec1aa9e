"""Swiss Bitcoin Pay's serverless checkout, simulated: relays, the merchant's Lightning address and app, explorers."""

from holdfast.testing.simulators.swiss_bitcoin_pay_checkout.simulator import SwissBitcoinPayCheckoutSimulator

__all__ = ["SwissBitcoinPayCheckoutSimulator"]
