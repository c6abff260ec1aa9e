"""The classes of SDKs by name, so that none is imported."""

from collections.abc import Iterator


def kinds_of(value: object) -> Iterator[str]:
    """Top package and name of the value's class, `stripe.CardError`, and of those it is made of."""
    for each in type(value).__mro__:
        yield f"{each.__module__.partition('.')[0]}.{each.__name__}"


def is_any(value: object, kinds: frozenset[str]) -> bool:
    """Whether the value is of one of these."""
    return not kinds.isdisjoint(kinds_of(value))
