"""What surrounds a call without being passed to it: deadline, outer retry, priority, an open transaction."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf

from holdfast.clock import Clock
from holdfast.resilience.policy import Priority


class Transaction:
    """The mark of an open transaction: whoever inherited it, such as a task, sees that it is over."""

    __slots__ = ("open", "outer")

    def __init__(self, outer: "Transaction | None") -> None:
        self.open = True
        self.outer = outer


class Surroundings:
    """All of it in one value, so that a call reads one context variable and sets one."""

    __slots__ = ("outer", "over", "priority", "retrying", "transaction", "until")

    outer: "Surroundings"

    def __init__(self, until: float, retrying: bool, priority: Priority, transaction: Transaction | None) -> None:
        self.over = False
        """It has ended, and what surrounded it counts; cheaper than setting the variable back."""
        self.until = until
        """Monotonic seconds of the innermost deadline; infinite when there is none."""
        self.retrying = retrying
        """Somebody further out retries; a retry here would multiply with theirs."""
        self.priority = priority
        self.transaction = transaction


surroundings: ContextVar[Surroundings] = ContextVar(
    "holdfast_surroundings",
    default=Surroundings(inf, False, Priority.INTERACTIVE, None),  # noqa: B039 (never changed)
)



def around() -> Surroundings:
    """What surrounds this place in the program."""
    found = surroundings.get()
    while found.over:
        found = found.outer
    return found


# Each scope sets the former value instead of resetting a token: a token works only in the context that made it, and
# frameworks close generators in another.


@contextmanager
def deadline_scope(seconds: float | None, clock: Clock) -> Generator[None]:
    """Everything in the block is to be done within `seconds`; an outer deadline that ends sooner goes on holding."""
    if seconds is None:
        yield
        return
    outer = around()
    until = min(outer.until, clock.monotonic() + max(0.0, seconds))
    surroundings.set(Surroundings(until, outer.retrying, outer.priority, outer.transaction))
    try:
        yield
    finally:
        surroundings.set(outer)


def remaining(clock: Clock) -> float:
    """Seconds until the innermost deadline; infinite when there is none, never negative."""
    until = around().until
    return inf if until == inf else max(0.0, until - clock.monotonic())


@contextmanager
def retry_scope(retries: bool = True) -> Generator[bool]:
    """Mark that somebody retries, if so; True while nobody further out does, else attempts would multiply."""
    outer = around()
    surroundings.set(Surroundings(outer.until, outer.retrying or retries, outer.priority, outer.transaction))
    try:
        yield not outer.retrying
    finally:
        surroundings.set(outer)


@contextmanager
def priority(of: Priority) -> Generator[None]:
    """Calls in the block have this priority where there is not room for all; outside of any it is INTERACTIVE."""
    outer = around()
    surroundings.set(Surroundings(outer.until, outer.retrying, of, outer.transaction))
    try:
        yield
    finally:
        surroundings.set(outer)


@contextmanager
def transaction() -> Generator[None]:
    """While the block runs a database transaction is open, and no vendor may be called."""
    outer = around()
    mark = Transaction(outer.transaction)
    surroundings.set(Surroundings(outer.until, outer.retrying, outer.priority, mark))
    try:
        yield
    finally:
        mark.open = False
        surroundings.set(outer)


def in_transaction() -> bool:
    """Whether a `transaction` block is open around here."""
    mark = around().transaction
    while mark is not None and not mark.open:
        mark = mark.outer
    return mark is not None
