"""Money that is never a float, secrets that never show themselves, and the caller's references."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_UP, Context, Decimal, Inexact, InvalidOperation, localcontext
from hmac import compare_digest
from typing import Self

from holdfast.errors import InvalidMoney, InvalidReference, MissingCredential, UnknownCurrency
from holdfast.iso4217 import EXPONENTS

MSAT_PER_SAT = 1000
BTC = "BTC"
USDC = "USDC"
_DIGITS = EXPONENTS | {BTC: 11, USDC: 6}  # bitcoin is counted in millisatoshi, USDC in its contract's own units
_STEPS = {BTC: MSAT_PER_SAT, USDC: 10_000}  # what a conversion rounds up to, where that is not the smallest unit
# The caller's context rounds silently, by default at 28 digits; ours raises.
_EXACT = Context(prec=120, Emax=119, Emin=-119, traps=[Inexact, InvalidOperation])


def exponent(currency: str) -> int:
    """How many decimals the currency's smallest unit has: 2 for CHF, 0 for XOF, 11 for BTC (msat), 6 for USDC.

    Raises:
        UnknownCurrency: Neither ISO 4217 nor BTC nor USDC.
    """
    try:
        return _DIGITS[currency]
    except (KeyError, TypeError):
        raise UnknownCurrency(currency) from None


@dataclass(frozen=True, slots=True, init=False, order=False)
class Money:
    """An exact amount of one currency, kept as an integer count of its smallest unit.

    `Money("120.00", "CHF")`, `Money(120, "CHF")` and `Money(Decimal(120), "CHF")` are the same; a float is refused.

    Raises:
        InvalidMoney: A float, not a number, or more decimals than the currency has.
        UnknownCurrency: Neither ISO 4217 nor BTC nor USDC.
    """

    minor_units: int
    currency: str

    def __init__(self, amount: str | int | Decimal, currency: str) -> None:
        number, digits = _decimal(amount), exponent(currency)
        try:
            scaled = number.scaleb(digits, _EXACT).to_integral_exact(context=_EXACT)
        except Inexact:
            raise InvalidMoney(
                f"{number} has more decimals than {currency} ({digits}), or is too large; round it yourself"
            ) from None
        object.__setattr__(self, "minor_units", int(scaled))
        object.__setattr__(self, "currency", currency)

    @classmethod
    def from_minor(cls, minor_units: int, currency: str) -> Self:
        """`Money.from_minor(12000, "CHF")` is 120 francs; for BTC the unit is the millisatoshi."""
        if isinstance(minor_units, bool) or not isinstance(minor_units, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidMoney(f"minor units are an int, not {type(minor_units).__name__}")
        exponent(currency)
        money = object.__new__(cls)
        object.__setattr__(money, "minor_units", minor_units)
        object.__setattr__(money, "currency", currency)
        return money

    @classmethod
    def from_sat(cls, sat: int) -> Self:
        """So many satoshi."""
        return cls.from_minor(sat * MSAT_PER_SAT, BTC)

    @property
    def amount(self) -> Decimal:
        """The amount in the currency's main unit, with all its decimals."""
        return Decimal(f"{self.minor_units}E-{exponent(self.currency)}")  # from text, because arithmetic may round

    @property
    def sat(self) -> int:
        """Whole satoshi.

        Raises:
            InvalidMoney: Not bitcoin, or a fraction of a satoshi.
        """
        whole, rest = divmod(self.minor_units, MSAT_PER_SAT)
        if self.currency != BTC or rest:
            raise InvalidMoney(f"{self} is not a whole number of satoshi")
        return whole

    def convert(self, rate: Decimal, currency: str) -> "Money":
        """So much of `currency` at `rate` units of it per unit of ours, rounded up to what can be paid.

        That is a whole satoshi of bitcoin, a whole cent of USDC, the smallest unit of anything else.
        """
        step = _STEPS.get(currency, 1)
        with localcontext(_EXACT):
            units = self.amount * _decimal(rate) * (Decimal(10) ** exponent(currency))
            return Money.from_minor(int((units / step).to_integral_value(ROUND_UP)) * step, currency)

    def __add__(self, other: "Money") -> "Money":
        return Money.from_minor(self.minor_units + self._same(other), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money.from_minor(self.minor_units - self._same(other), self.currency)

    def __lt__(self, other: "Money") -> bool:
        return self.minor_units < self._same(other)

    def __le__(self, other: "Money") -> bool:
        return self.minor_units <= self._same(other)

    def __gt__(self, other: "Money") -> bool:
        return self.minor_units > self._same(other)

    def __ge__(self, other: "Money") -> bool:
        return self.minor_units >= self._same(other)

    def __bool__(self) -> bool:
        return self.minor_units != 0

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"

    def __repr__(self) -> str:
        return f'Money("{self.amount:f}", "{self.currency}")'

    def _same(self, other: "Money") -> int:
        if self.currency != other.currency:
            raise InvalidMoney(f"{self} and {other} are different currencies; convert one with a rate first")
        return other.minor_units


def _decimal(amount: object) -> Decimal:
    if isinstance(amount, bool) or not isinstance(amount, str | int | Decimal):
        raise InvalidMoney(f'an amount is a str, int or Decimal, not {type(amount).__name__}; write "1.20", not 1.20')
    try:
        number = Decimal(amount)
    except InvalidOperation:
        raise InvalidMoney(f"{amount!r} is not a number") from None
    if not number.is_finite():
        raise InvalidMoney(f"{amount!r} is not an amount")
    return number


class Secret:
    """A text that shows itself only to who calls `reveal()`."""

    __slots__ = ("_text",)

    def __init__(self, text: "str | Secret") -> None:
        if not isinstance(text, str | Secret):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a secret is a str, not {type(text).__name__}")
        self._text: str = text.reveal() if isinstance(text, Secret) else text

    def reveal(self) -> str:
        """The text itself; never log it."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"


class Secrets:
    """One secret and those it replaces: the first signs, each of them verifies.

    `Secrets("new", "old")` or `Secrets(["new", "old"])`; iterate for all of them.
    """

    __slots__ = ("_all",)

    def __init__(self, *texts: "str | Secret | Secrets | Iterable[str | Secret]") -> None:
        self._all: tuple[Secret, ...] = tuple(_flatten(texts))
        if not all(self._all) or not self._all:
            raise MissingCredential("a secret is empty; give the text the vendor shows you")

    @classmethod
    def from_env(cls, variable: str) -> Self:
        """Read from an environment variable; several, newest first, are separated by commas.

        Raises:
            MissingCredential: The variable is unset or empty.
        """
        texts = [text.strip() for text in os.environ.get(variable, "").split(",") if text.strip()]
        if not texts:
            raise MissingCredential(variables={variable: "a secret; several, newest first, by commas"})
        return cls(texts)

    @property
    def current(self) -> Secret:
        """The one to sign with."""
        return self._all[0]

    def __iter__(self) -> Iterator[Secret]:
        return iter(self._all)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secrets) and self._all == other._all

    def __hash__(self) -> int:
        return hash(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(['***'] * len(self._all))})"


def _flatten(texts: "Iterable[str | Secret | Secrets | Iterable[str | Secret]]") -> Iterator[Secret]:
    for text in texts:
        if isinstance(text, str | Secret):
            yield Secret(text)
        elif isinstance(text, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            yield from map(Secret, text)
        else:
            raise _no_secret(text)


def _no_secret(value: object) -> Exception:
    if value is None:
        return MissingCredential('a secret is None; is its variable set? Secrets.from_env("…") tells which is not')
    return TypeError(f"a secret is a str, not {type(value).__name__}")


def secret_from_env(variable: str) -> Secret:
    """One secret from the environment, commas and all, for credentials that do not rotate in place.

    Raises:
        MissingCredential: The variable is unset or empty.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        raise MissingCredential(variables={variable: "a secret"})
    return Secret(text)


def require_env(purposes: Mapping[str, str]) -> None:
    """See that each of these variables is set; the values say what they are for.

    Raises:
        MissingCredential: Some are unset or empty; it names them all.
    """
    missing = {name: purpose for name, purpose in purposes.items() if not os.environ.get(name, "").strip()}
    if missing:
        raise MissingCredential(variables=missing)


_REFERENCE = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)


class Reference(str):
    """The caller's name of a business object: 1 to 64 of `A-Z a-z 0-9 . _ : -`.

    Raises:
        InvalidReference: Anything else.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not isinstance(text, str) or not _REFERENCE.fullmatch(text):  # type: ignore[redundant-expr]  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidReference(text)
        return super().__new__(cls, text)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, handler: Callable[[type], object]) -> dict[str, object]:
        # The schema language is plain dictionaries, so this file needs no pydantic to take part in models.
        return {"type": "function-after", "function": {"type": "no-info", "function": cls}, "schema": handler(str)}
