"""What surrounds a call without being passed to it: the deadline, an outer retry, an open transaction."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf

from holdfast.clock import Clock

_deadline: ContextVar[float | None] = ContextVar("holdfast_deadline", default=None)
_retrying: ContextVar[bool] = ContextVar("holdfast_retrying", default=False)
_in_transaction: ContextVar[bool] = ContextVar("holdfast_in_transaction", default=False)


@contextmanager
def deadline_scope(seconds: float | None, clock: Clock) -> Generator[None]:
    """Everything in the block is to be done within `seconds`; an outer deadline that ends sooner goes on holding."""
    if seconds is None:
        yield
        return
    until = clock.monotonic() + max(0.0, seconds)
    outer = _deadline.get()
    token = _deadline.set(until if outer is None else min(outer, until))
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining(clock: Clock) -> float:
    """Seconds until the innermost deadline; infinite when there is none, never negative."""
    until = _deadline.get()
    return inf if until is None else max(0.0, until - clock.monotonic())


@contextmanager
def retry_scope(retries: bool = True) -> Generator[bool]:
    """Mark that somebody retries, if so; True while nobody further out does, else attempts would multiply."""
    outer = _retrying.get()
    token = _retrying.set(outer or retries)
    try:
        yield not outer
    finally:
        _retrying.reset(token)


@contextmanager
def transaction() -> Generator[None]:
    """While the block runs a database transaction is open, and no vendor may be called."""
    token = _in_transaction.set(True)
    try:
        yield
    finally:
        _in_transaction.reset(token)


def in_transaction() -> bool:
    """Whether a `transaction` block is open around here."""
    return _in_transaction.get()
