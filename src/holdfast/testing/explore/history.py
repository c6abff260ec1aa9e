"""A history: one seed, and what goes wrong in it, step by step; it reads and writes as one line of words.

crash@17                           the program is killed at its 17th await, counted over the whole history from 0
stripe.payments.create#0=reset     the first such call is reset after its effect
webhook#2=twice                    the third webhook that is owed arrives twice
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeVar, cast, get_args

Kind = Literal["refused", "429", "503", "500", "reset-before", "bad-json", "reset", "hang"]
"""What can become of a call, the least harmful first."""
How = Literal["twice", "together", "late", "last", "never"]
"""What can become of a webhook, the least harmful first."""

KINDS: Final = cast(tuple[Kind, ...], get_args(Kind))
HOWS: Final = cast(tuple[How, ...], get_args(How))

Word = TypeVar("Word", bound=str)

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
    kind: Kind

    @property
    def place(self) -> object:
        """What it strikes; a history strikes it once at most."""
        return self.vendor, self.operation, self.index

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


def _step(word: str) -> Step:
    if found := _CRASH.fullmatch(word):
        return Crash(int(found[1]))
    if found := _WEBHOOK.fullmatch(word):
        return WebhookComes(int(found[1]), _one_of(HOWS, found[2], word))
    if found := _CALL.fullmatch(word):
        return CallFails(found[1], found[2], int(found[3]), _one_of(KINDS, found[4], word))
    raise ValueError(
        f"{word!r} is no step of a history; steps are written crash@17, stripe.payments.create#0=reset, webhook#2=twice"
    )


def _one_of(words: tuple[Word, ...], found: str, step: str) -> Word:
    for word in words:
        if word == found:
            return word
    raise ValueError(f"{step!r}: there is no {found!r} there; there are {', '.join(words)}")
