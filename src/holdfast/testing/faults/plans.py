"""Which calls a fault strikes, as values: plans, rules, and whole fault plans."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from os import PathLike
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    StrictFloat,
    StrictStr,
    TypeAdapter,
)

from holdfast.testing.faults.files import load, validated
from holdfast.testing.faults.values import Fault, OneOf, Planned, Value

Chance = Callable[[], Random]
"""The source of chance of one rule at one call; made only when it is needed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call at a vendor, as a plan sees it."""

    vendor: str
    operation: str
    """In the words of the family: `payments.create`, `meetings.create`, `messages.send`, or `connect`."""
    index: int
    """How many calls of this vendor and operation came before."""
    path: str = ""
    """With its query."""
    body: bytes = b""
    method: str = ""
    headers: Sequence[tuple[str, str]] = ()
    key: str | None = None
    """The idempotency key it carries."""
    attempt: int = 1
    """How often this call was made, this time included: by its key, else by method, path and body."""


class Match(Value, frozen=True):
    """Which calls: all that is said must hold. Paths, keys and headers' values may have `*`, `?` and `[…]`."""

    path: str | None = None
    """Without the query."""
    method: str | None = None
    header: str | None = None
    """`name`, or `name: value`."""
    body_contains: str | None = None
    key: str | None = None
    """The idempotency key; `*` is any."""
    attempt: PositiveInt | None = None
    """1 is the first time the call is made, 2 its first repetition."""

    def holds(self, call: Call) -> bool:
        """Whether it is one of them."""
        return (
            (self.path is None or fnmatchcase(call.path.partition("?")[0], self.path))
            and (self.method is None or self.method.upper() == call.method.upper())
            and (self.header is None or _has(call.headers, self.header))
            and (self.body_contains is None or self.body_contains.encode() in call.body)
            and (self.key is None or (call.key is not None and fnmatchcase(call.key, self.key)))
            and (self.attempt is None or self.attempt == call.attempt)
        )

    def __and__(self, other: "Match") -> "Match":
        """Both.

        Raises:
            ValueError: Both say something of the same part.
        """
        ours, theirs = self.model_dump(), other.model_dump()
        if twice := ours.keys() & theirs.keys():
            raise ValueError(f"{', '.join(sorted(twice))} was matched before: one Match says all of it")
        return Match(**ours, **theirs)


def _has(headers: Sequence[tuple[str, str]], wanted: str) -> bool:
    name, _, value = (part.strip() for part in wanted.partition(":"))
    return any(key.lower() == name.lower() and (not value or fnmatchcase(told, value)) for key, told in headers)


def _moment(value: object) -> object:
    match value:
        case datetime():
            if value.tzinfo is None:
                raise ValueError("a date and time needs its offset: 2026-01-01T10:00:00+00:00")
            return value.astimezone(UTC).isoformat()
        case time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case _:
            return value


def _readable(value: float | str) -> float | str:
    if isinstance(value, str):
        _parsed(value)
    elif value < 0:
        raise ValueError("seconds since the start are not negative")
    return value


@lru_cache
def _parsed(text: str) -> time | datetime:
    """`10:00` is a time of day, `2026-01-01T10:00:00Z` an instant; both in UTC unless the instant says otherwise."""
    try:
        if "-" not in text.removesuffix("Z") and "+" not in text:
            return time.fromisoformat(text.removesuffix("Z"))
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            "a moment is seconds since the start, a time of day as 10:00, or an instant as 2026-01-01T10:00:00Z"
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


Moment = Annotated[StrictFloat | StrictStr, BeforeValidator(_moment), AfterValidator(_readable)]
"""Seconds since the start, a time of day as `10:00`, or an instant as `2026-01-01T10:00:00Z`; UTC."""
Window = tuple[Moment, Moment]
"""From the first moment on, until the second."""
_WINDOW: TypeAdapter[tuple[float | str, float | str]] = TypeAdapter(Window)


def read_window(first: object, last: object) -> tuple[float | str, float | str]:
    """A window as plans hold it.

    Raises:
        ValueError: One of the two is no moment.
    """
    return _WINDOW.validate_python((first, last))


def within(window: tuple[float | str, float | str], now: datetime, elapsed: float) -> bool:
    """Whether it is now; a window of times of day may go over midnight."""
    began, over = (_reached(moment, now, elapsed) for moment in window)
    return began or not over if _is_over_midnight(*window) else began and not over


def _is_over_midnight(first: float | str, last: float | str) -> bool:
    if not isinstance(first, str) or not isinstance(last, str):
        return False
    evening, morning = _parsed(first), _parsed(last)
    return isinstance(evening, time) and isinstance(morning, time) and morning < evening


def _reached(moment: float | str, now: datetime, elapsed: float) -> bool:
    if not isinstance(moment, str):
        return elapsed >= moment
    parsed, now = _parsed(moment), now.astimezone(UTC)
    return now >= parsed if isinstance(parsed, datetime) else now.time() >= parsed


class Plan(Value, frozen=True):
    """Which of the calls a fault strikes, counted from 0; with limits, of the calls within them."""

    kind: str
    when: Match | None = None
    """Only these calls."""
    between: Window | None = None
    """Only then."""

    def choose(self, index: int, chance: Chance) -> Fault | None:
        """The fault of the call of this number; None: this one goes well."""
        raise NotImplementedError

    @property
    def limited(self) -> bool:
        """Whether it counts only some calls."""
        return self.when is not None or self.between is not None


class Script(Plan, frozen=True):
    """Exactly these, in order, None for a call that goes well; afterwards all goes well."""

    kind: Literal["script"] = "script"
    faults: tuple[Planned | None, ...]

    if TYPE_CHECKING:

        def __init__(
            self,
            *faults: Fault | OneOf | None,
            when: Match | None = None,
            between: tuple[float | str, float | str] | None = None,
        ) -> None: ...
    else:

        def __init__(self, *faults: object, **named: object) -> None:
            super().__init__(**({"faults": faults} | named if faults or "faults" not in named else named))

    def choose(self, index: int, chance: Chance) -> Fault | None:
        return _drawn(self.faults[index], chance) if index < len(self.faults) else None


class Rate(Plan, frozen=True):
    """Each with this probability."""

    kind: Literal["rate"] = "rate"
    probability: float = Field(ge=0, le=1, kw_only=False)
    fault: Planned = Field(kw_only=False)

    def choose(self, index: int, chance: Chance) -> Fault | None:
        random = chance()
        return _drawn(self.fault, lambda: random) if random.random() < self.probability else None


class Every(Plan, frozen=True):
    """The n-th, the 2n-th, and so on."""

    kind: Literal["every"] = "every"
    n: PositiveInt = Field(kw_only=False)
    fault: Planned = Field(kw_only=False)

    def choose(self, index: int, chance: Chance) -> Fault | None:
        return _drawn(self.fault, chance) if (index + 1) % self.n == 0 else None


class First(Plan, frozen=True):
    """The first n."""

    kind: Literal["first"] = "first"
    n: PositiveInt = Field(kw_only=False)
    fault: Planned = Field(kw_only=False)

    def choose(self, index: int, chance: Chance) -> Fault | None:
        return _drawn(self.fault, chance) if index < self.n else None


class Always(Plan, frozen=True):
    """Each one."""

    kind: Literal["always"] = "always"
    fault: Planned = Field(kw_only=False)

    def choose(self, index: int, chance: Chance) -> Fault | None:
        return _drawn(self.fault, chance)


class At(Plan, frozen=True):
    """The one that so many came before."""

    kind: Literal["at"] = "at"
    index: NonNegativeInt = Field(kw_only=False)
    fault: Planned = Field(kw_only=False)

    def choose(self, index: int, chance: Chance) -> Fault | None:
        return _drawn(self.fault, chance) if index == self.index else None


def _drawn(fault: Fault | OneOf | None, chance: Chance) -> Fault | None:
    return fault.draw(chance()) if isinstance(fault, OneOf) else fault


AnyPlan = Script | Rate | Every | First | Always | At
"""Every plan there is."""
PLANS: dict[str, type[Plan]] = {
    cast(str, kind.model_fields["kind"].default): kind for kind in cast(tuple[type[Plan], ...], AnyPlan.__args__)
}
"""Every plan there is, by its kind."""


APART = frozenset({"connect", "webhook"})
"""What is no call: `*` does not mean them."""


class Rule(Value, frozen=True):
    """A plan and the calls it is for: a vendor and an operation, `*` for any; operations may have `*` within."""

    vendor: str
    operation: str = "*"
    plan: Annotated[AnyPlan, Field(discriminator="kind")]

    if TYPE_CHECKING:

        def __init__(self, vendor: str, operation: str, plan: Plan) -> None: ...
    else:

        def __init__(self, *values: object, **named: object) -> None:
            super().__init__(**dict(zip(("vendor", "operation", "plan"), values, strict=False)), **named)


class FaultPlan(Value, frozen=True):
    """Every fault of a run: a seed, and rules. Of several rules that name a fault for a call the first wins."""

    seed: int = 0
    rules: tuple[Rule, ...] = ()

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """The plan in a JSON or YAML file.

        Raises:
            InvalidPlan: It says something that is not in the language; the message says where, and what there is.
            MissingExtra: The file is YAML, and no package to read it is installed.
        """
        return validated(cls, load(path))

    @classmethod
    def from_json(cls, data: "object") -> Self:
        """The plan in data as JSON has it: mappings, lists, texts, numbers.

        Raises:
            InvalidPlan: It says something that is not in the language.
        """
        return validated(cls, data)

    def to_json(self) -> dict[str, Any]:
        """As plain data, defaults left out."""
        return self.model_dump(mode="json")
