"""What surrounds a call without being passed to it: the deadline, an outer retry, an open transaction."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf

from holdfast.clock import Clock

_deadline: ContextVar[float | None] = ContextVar("holdfast_deadline", default=None)
_retrying: ContextVar[bool] = ContextVar("holdfast_retrying", default=False)


class _Transaction:
    """The mark of an open transaction: whoever inherited it, such as a task, sees that it is over."""

    __slots__ = ("open", "outer")

    def __init__(self, outer: "_Transaction | None") -> None:
        self.open = True
        self.outer = outer


_transaction: ContextVar[_Transaction | None] = ContextVar("holdfast_transaction", default=None)

# Each scope sets the former value instead of resetting a token: a token works only in the context that made it, and
# frameworks close generators in another.


@contextmanager
def deadline_scope(seconds: float | None, clock: Clock) -> Generator[None]:
    """Everything in the block is to be done within `seconds`; an outer deadline that ends sooner goes on holding."""
    if seconds is None:
        yield
        return
    until = clock.monotonic() + max(0.0, seconds)
    outer = _deadline.get()
    _deadline.set(until if outer is None else min(outer, until))
    try:
        yield
    finally:
        _deadline.set(outer)


def remaining(clock: Clock) -> float:
    """Seconds until the innermost deadline; infinite when there is none, never negative."""
    until = _deadline.get()
    return inf if until is None else max(0.0, until - clock.monotonic())


@contextmanager
def retry_scope(retries: bool = True) -> Generator[bool]:
    """Mark that somebody retries, if so; True while nobody further out does, else attempts would multiply."""
    outer = _retrying.get()
    _retrying.set(outer or retries)
    try:
        yield not outer
    finally:
        _retrying.set(outer)


@contextmanager
def transaction() -> Generator[None]:
    """While the block runs a database transaction is open, and no vendor may be called."""
    mark = _Transaction(_transaction.get())
    _transaction.set(mark)
    try:
        yield
    finally:
        mark.open = False
        _transaction.set(mark.outer)


def in_transaction() -> bool:
    """Whether a `transaction` block is open around here."""
    mark = _transaction.get()
    while mark is not None and not mark.open:
        mark = mark.outer
    return mark is not None
