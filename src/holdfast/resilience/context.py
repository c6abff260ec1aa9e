"""What surrounds a call without being passed to it: deadline, outer retry, priority, an open transaction."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from typing import TypeAlias

from holdfast.clock import Clock
from holdfast.resilience.policy import Priority


class Transaction:
    """The mark of an open transaction: whoever inherited it, such as a task, sees that it is over."""

    __slots__ = ("open", "outer")

    def __init__(self, outer: "Transaction | None") -> None:
        self.open = True
        self.outer = outer


Surroundings: TypeAlias = tuple[float, bool, Priority, Transaction | None]
"""The innermost deadline in monotonic seconds, whether somebody further out retries, priority, transaction."""

NOWHERE: Surroundings = (inf, False, Priority.INTERACTIVE, None)
surroundings: ContextVar[Surroundings] = ContextVar("holdfast_surroundings", default=NOWHERE)
"""All of it in one value, so that a call reads one variable and sets one."""


def leave(mine: Surroundings, outer: Surroundings) -> None:
    """Set back what `mine` replaced; elsewhere, where the garbage collector ended a forgotten call, do nothing."""
    if surroundings.get() is mine:
        surroundings.set(outer)


def forget_frame(error: BaseException) -> None:
    """Take the frame that was left last, a context manager's own, out of the traceback of what its block raised.

    From Python 3.12 on that frame leads to the one that threw the error into it, and so back to the error itself.
    """
    if error.__traceback__ is not None:
        error.__traceback__ = error.__traceback__.tb_next


# Each scope sets the former value instead of resetting a token: a token works only in the context that made it, and
# frameworks close generators in another.


@contextmanager
def deadline_scope(seconds: float | None, clock: Clock) -> Generator[None]:
    """Everything in the block is to be done within `seconds`; an outer deadline that ends sooner goes on holding."""
    if seconds is None:
        yield
        return
    outer = surroundings.get()
    surroundings.set((min(outer[0], clock.monotonic() + max(0.0, seconds)), *outer[1:]))
    try:
        yield
    finally:
        surroundings.set(outer)


def remaining(clock: Clock) -> float:
    """Seconds until the innermost deadline; infinite when there is none, never negative."""
    until = deadline()
    return inf if until == inf else max(0.0, until - clock.monotonic())


def deadline() -> float:
    """The innermost deadline, in monotonic seconds of the clock it was set with; infinite when there is none."""
    return surroundings.get()[0]


@contextmanager
def retry_scope(retries: bool = True) -> Generator[bool]:
    """Mark that somebody retries, if so; True while nobody further out does, else attempts would multiply."""
    until, retrying, priority, transaction = outer = surroundings.get()
    surroundings.set((until, retrying or retries, priority, transaction))
    try:
        yield not retrying
    finally:
        surroundings.set(outer)


@contextmanager
def priority(of: Priority) -> Generator[None]:
    """Calls in the block have this priority where there is not room for all; outside of any it is INTERACTIVE."""
    until, retrying, _, transaction = outer = surroundings.get()
    surroundings.set((until, retrying, of, transaction))
    try:
        yield
    finally:
        surroundings.set(outer)


@contextmanager
def transaction() -> Generator[None]:
    """While the block runs a database transaction is open, and no vendor may be called."""
    outer = surroundings.get()
    mark = Transaction(outer[3])
    surroundings.set((*outer[:3], mark))
    try:
        yield
    finally:
        mark.open = False
        surroundings.set(outer)


def in_transaction() -> bool:
    """Whether a `transaction` block is open around here."""
    mark = surroundings.get()[3]
    while mark is not None and not mark.open:
        mark = mark.outer
    return mark is not None
