"""Settings are looked at when they are given: what is wrong is told then, with its name and what is right."""

import math
from collections.abc import Collection
from datetime import timedelta
from typing import cast

from holdfast.errors import ConfigurationError

_FAMILIES = ("payments", "meetings", "notifications")


def check_seconds(name: str, value: object, *, above: float | None = None, least: float = 0.0) -> None:
    """A number of seconds, greater than `above`, or where that is None at least `least`.

    Raises:
        ConfigurationError: It is none.
    """
    said = f"above {above:g}" if above is not None else f"{least:g} or more"
    fits = _is_number(value) and (value > above if above is not None else value >= least)  # type: ignore[operator]  # a number
    if not fits:
        meant = f"; write {value.total_seconds():g}" if isinstance(value, timedelta) else ""
        raise ConfigurationError(f"{name} is a number of seconds, {said}, not {value!r}{meant}")


def check_whole(name: str, value: object, *, least: int = 1) -> None:
    """A whole number, at least `least`.

    Raises:
        ConfigurationError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name} is a whole number, {least} or more, not {value!r}")


def check_most(name: str, value: object) -> None:
    """A number of things above zero, of which there may be so many; `math.inf` where nothing limits them.

    Raises:
        ConfigurationError: It is none.
    """
    if not _is_number(value) or value <= 0:  # type: ignore[operator]  # a number
        raise ConfigurationError(f"{name} is a number above 0, not {value!r}; math.inf means no limit")


def check_kind(name: str, value: object, kind: type | tuple[type, ...], example: str) -> None:
    """A value of one of these types, or None.

    Raises:
        ConfigurationError: It is of another; what it is is told, not what is in it.
    """
    if value is not None and not isinstance(value, kind):
        what = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise ConfigurationError(f"{name} is of the wrong type, {what}; write {example}")


def check_providers(family: str, providers: object, capabilities: type) -> None:
    """A list of providers whose `capabilities` are of this family's type.

    Raises:
        ConfigurationError: It is no list, or something in it is no provider, or one of another family.
    """
    if isinstance(providers, str) or not isinstance(providers, Collection):
        raise ConfigurationError(f"{family} is a list of providers, not a {type(providers).__name__}: {family}=[…]")
    for provider in cast(Collection[object], providers):
        if isinstance(provider, type):
            name = provider.__name__
            raise ConfigurationError(f"{name} is a class; give a provider made of it: {name}(…)")
        known = getattr(provider, "capabilities", None)
        if isinstance(known, capabilities):
            continue
        name = type(provider).__name__
        other = type(known).__module__.removeprefix("holdfast.").partition(".")[0]
        if other in _FAMILIES:
            raise ConfigurationError(f"{family} cannot take {name}, a provider of {other}: give it to {other}=")
        raise ConfigurationError(
            f"{family} cannot take a {name}, which is no provider; make one of a class of holdfast.providers"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
