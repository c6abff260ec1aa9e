"""Amounts as Stripe counts them: in its own smallest units, which are not ISO 4217's."""

from typing import Final

from holdfast.errors import InvalidInput, InvalidMoney, Mismatch
from holdfast.values import Money, exponent

# https://docs.stripe.com/currencies#zero-decimal; MGA has two in ISO 4217, while ISK and UGX have none there, and two
# here, which are always zero: https://docs.stripe.com/currencies#special-cases
ZERO_DECIMAL: Final = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF")
)
THREE_DECIMAL: Final = frozenset(("BHD", "JOD", "KWD", "OMR", "TND"))
"""The last of them is always zero. https://docs.stripe.com/currencies#three-decimal"""
_TWO_DECIMAL: Final = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF CNY COP
    CRC CVE CZK DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR ISK
    JMD KES KGS KHR KYD KZT LAK LBP LKR LRD LSL MAD MDL MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD NGN
    NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SEK SGD SHP SLE SOS SRD SZL THB
    TJS TOP TRY TTD TWD TZS UAH UGX USD UYU UZS WST XCD XCG YER ZAR ZMW
"""
CURRENCIES: Final = ZERO_DECIMAL | THREE_DECIMAL | frozenset(_TWO_DECIMAL.split())
"""https://docs.stripe.com/currencies#presentment-currencies, as far as they are in use"""


def to_wire(money: Money) -> int:
    """The amount as Stripe counts it.

    Raises:
        InvalidMoney: A currency Stripe does not take, or an amount it has no exact number for.
    """
    currency = money.currency
    if currency not in CURRENCIES:
        raise InvalidMoney(f"Stripe takes no {currency}")
    amount, rest = _moved(money.minor_units, decimals(currency) - exponent(currency))
    if rest or (currency in THREE_DECIMAL and amount % 10):
        raise InvalidMoney(f"Stripe has no exact number for {money}; round it yourself")
    return amount


def from_wire(amount: int, currency: str) -> Money:
    """What Stripe counts, as money.

    Raises:
        Mismatch: A currency we do not know, or a fraction it does not have.
    """
    currency = currency.upper()
    try:
        more = exponent(currency) - decimals(currency)
    except InvalidInput as error:
        raise Mismatch(f"an amount is in {currency}, which we cannot read", operation="fetch") from error
    units, rest = _moved(amount, more)
    if rest:
        raise Mismatch(f"an amount of {amount} in {currency} has more decimals than that currency", operation="fetch")
    return Money.from_minor(units, currency)


def decimals(currency: str) -> int:
    """How many decimals of a currency Stripe counts."""
    return 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2


def _moved(units: int, places: int) -> tuple[int, int]:
    """With so many decimals more, or fewer, and what is lost by that."""
    factor: int = 10 ** abs(places)
    return (units * factor, 0) if places >= 0 else divmod(units, factor)
