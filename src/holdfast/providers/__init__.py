"""The vendors: one file each, read next to the vendor's own documentation."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from holdfast.providers.btcpay import BTCPay
    from holdfast.providers.coinbase import Coinbase
    from holdfast.providers.discovery import find_provider, installed_providers
    from holdfast.providers.jaas import JaaS
    from holdfast.providers.lnbits import LNbits
    from holdfast.providers.lnd import Lnd
    from holdfast.providers.mtn_momo import MtnMomo
    from holdfast.providers.opennode import OpenNode
    from holdfast.providers.orange_money import OrangeMoney
    from holdfast.providers.paypal import PayPal
    from holdfast.providers.paystack import Paystack
    from holdfast.providers.smtp import Smtp
    from holdfast.providers.stripe import Stripe, StripeIntents
    from holdfast.providers.swiss_bitcoin_pay import SwissBitcoinPay
    from holdfast.providers.swiss_bitcoin_pay_checkout import SwissBitcoinPayCheckout
    from holdfast.providers.telegram import Telegram
    from holdfast.providers.zoom import Zoom

__all__ = [
    "BTCPay",
    "Coinbase",
    "JaaS",
    "LNbits",
    "Lnd",
    "MtnMomo",
    "OpenNode",
    "OrangeMoney",
    "PayPal",
    "Paystack",
    "Smtp",
    "Stripe",
    "StripeIntents",
    "SwissBitcoinPay",
    "SwissBitcoinPayCheckout",
    "Telegram",
    "Zoom",
    "find_provider",
    "installed_providers",
]

# Looked up on first use: importing one vendor loads neither the others nor what they need.
_HOMES: Final = {
    "BTCPay": "btcpay",
    "Coinbase": "coinbase",
    "JaaS": "jaas",
    "LNbits": "lnbits",
    "Lnd": "lnd",
    "MtnMomo": "mtn_momo",
    "OpenNode": "opennode",
    "OrangeMoney": "orange_money",
    "PayPal": "paypal",
    "Paystack": "paystack",
    "Smtp": "smtp",
    "Stripe": "stripe",
    "StripeIntents": "stripe",
    "SwissBitcoinPay": "swiss_bitcoin_pay",
    "SwissBitcoinPayCheckout": "swiss_bitcoin_pay_checkout",
    "Telegram": "telegram",
    "Zoom": "zoom",
    "find_provider": "discovery",
    "installed_providers": "discovery",
}


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
