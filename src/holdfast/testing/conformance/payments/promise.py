"""What a provider must keep: one rule, and the few lines that prove it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from holdfast.testing.conformance.payments.bench import Bench

Keep = Callable[["Bench"], Awaitable[None]]


class Broken(AssertionError):
    """A promise that a provider, or the simulator it was tried with, does not keep."""


def demand(holds: bool, otherwise: str) -> None:
    """Go on if it holds.

    Raises:
        Broken: It does not; `otherwise` says what happened instead.
    """
    __tracebackhide__ = True
    if not holds:
        raise Broken(otherwise)


@dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """One rule that every payment provider keeps which can do what it is about."""

    name: str
    rule: str
    keep: Keep
    """Plays it on a fresh bench. Raises Broken."""

    @classmethod
    def of(cls, keep: Callable[..., Awaitable[None]], *case: object, named: str = "") -> Self:
        """Named as the function is, in whose docstring the rule stands; `named` is the case it is tried with."""
        name = keep.__name__ + (f"[{named}]" if named else "")
        rule = (keep.__doc__ or "").partition("\n")[0]
        return cls(name=name, rule=rule, keep=partial(keep, *case))


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What became of one promise."""

    promise: str
    rule: str
    kept: bool
    happened: str
