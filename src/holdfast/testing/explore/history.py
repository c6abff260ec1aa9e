"""A history: one seed, and what goes wrong in it, step by step; it reads and writes as one line of words.

crash@17                           the program is killed at its 17th await, counted over the whole history from 0
stripe.payments.create#0=reset     the first such call is reset after its effect
webhook#2=twice                    the third webhook that is owed arrives twice
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, Self, cast, get_args

from holdfast.testing.faults import Fault, Stage, fault

How = Literal["twice", "together", "late", "last", "never"]
"""What can become of a webhook, the least harmful first."""

KINDS: Final = (
    "refused",
    "rate_limited",
    "status_503",
    "status_500",
    "reset-before",
    "bad_json",
    "status_500-after",
    "reset",
    "hang",
)
"""What is tried on every call, the least harmful first: a fault's word, moved before or after the effect."""
HOWS: Final = cast(tuple[How, ...], get_args(How))
MOVABLE: Final = ("reset", "hang", "close", "status_…")

_CRASH = re.compile(r"crash@(\d{1,9})")
_WEBHOOK = re.compile(r"webhook#(\d{1,9})=(\w+)")
_CALL = re.compile(r"([\w-]+)\.([\w.-]+)#(\d{1,9})=([\w-]+)")


@dataclass(frozen=True, slots=True, order=True)
class Crash:
    """The program is killed where it waits for the so-manieth time."""

    at: int

    @property
    def place(self) -> object:
        """What it strikes; a history strikes it once at most."""
        return "crash", self.at

    def __str__(self) -> str:
        return f"crash@{self.at}"


@dataclass(frozen=True, slots=True, order=True)
class CallFails:
    """One call at a vendor goes wrong; `index` counts the calls of this vendor and operation from 0."""

    vendor: str
    operation: str
    index: int
    kind: str
    """A word that `fault` reads: `reset`, `bad_json`, `status_503`; with `-before` or `-after` it is moved."""

    @property
    def place(self) -> object:
        """What it strikes; a history strikes it once at most."""
        return self.vendor, self.operation, self.index

    @property
    def fault(self) -> Fault:
        """What it is at the vendor."""
        return fault_of(self.kind)

    def __str__(self) -> str:
        return f"{self.vendor}.{self.operation}#{self.index}={self.kind}"


@dataclass(frozen=True, slots=True, order=True)
class WebhookComes:
    """One webhook does not arrive as it should; `number` counts those owed, over all vendors, from 0."""

    number: int
    how: How

    @property
    def place(self) -> object:
        """What it strikes; a history strikes it once at most."""
        return "webhook", self.number

    def __str__(self) -> str:
        return f"webhook#{self.number}={self.how}"


Step = Crash | CallFails | WebhookComes


@dataclass(frozen=True, slots=True)
class History:
    """What is decided before a history runs: everything else follows from it."""

    seed: int = 0
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if len({step.place for step in self.steps}) < len(self.steps):
            raise ValueError(f"two steps of one history strike at the same place: {self}")

    @classmethod
    def parse(cls, text: str, *, seed: int = 0) -> Self:
        """The history that `str` wrote.

        Raises:
            ValueError: A word is no step, or two strike at the same place; the message says how steps are written.
        """
        return cls(seed, tuple(map(_step, text.replace(",", " ").split())))

    def __str__(self) -> str:
        return " ".join(map(str, self.steps))

    @property
    def crashes(self) -> frozenset[int]:
        """The awaits the program is killed at."""
        return frozenset(step.at for step in self.steps if isinstance(step, Crash))

    @property
    def webhooks(self) -> tuple[WebhookComes, ...]:
        """The webhooks that do not arrive as they should."""
        return tuple(step for step in self.steps if isinstance(step, WebhookComes))


@cache
def fault_of(kind: str) -> Fault:
    """The fault of that word.

    Raises:
        ValueError: There is none, or it cannot be moved.
    """
    word, _, moved = kind.partition("-")
    found = fault(word)
    if not moved:
        return found
    stage = {"before": Stage.BEFORE_EFFECT, "after": Stage.AFTER_EFFECT}.get(moved)
    if stage is None or not hasattr(found, f"{moved}_effect"):
        raise ValueError(f"{kind!r}: only {', '.join(MOVABLE)} can be moved, by -before or -after")
    return found.model_copy(update={"stage": stage})


def _step(word: str) -> Step:
    if found := _CRASH.fullmatch(word):
        return Crash(int(found[1]))
    if found := _WEBHOOK.fullmatch(word):
        return WebhookComes(int(found[1]), _how(found[2], word))
    if found := _CALL.fullmatch(word):
        try:
            fault_of(found[4])
        except ValueError as error:
            raise ValueError(f"{word!r}: {error}") from None
        return CallFails(found[1], found[2], int(found[3]), found[4])
    raise ValueError(
        f"{word!r} is no step of a history; steps are written crash@17, stripe.payments.create#0=reset, webhook#2=twice"
    )


def _how(found: str, step: str) -> How:
    for how in HOWS:
        if how == found:
            return how
    raise ValueError(f"{step!r}: a webhook comes {', '.join(HOWS)}; not {found}")
