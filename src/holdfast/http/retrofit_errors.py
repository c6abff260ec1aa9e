"""Errors that are both ours and the client's own: which of the client's classes each of ours is."""

from types import ModuleType
from typing import Any

from holdfast.errors import BulkheadFull, CallFailed, CircuitOpen, OnHold, RateLimited
from holdfast.http.errors import translate
from holdfast.outcome import Cause, Effect
from holdfast.resilience.both import both


def raised_by_guard(error: CallFailed, library: ModuleType) -> CallFailed:
    """What the guard raises, as what the library would have raised in its place."""
    return error if isinstance(error, library.TransportError) else _as_both(error, _nearest(error, library))


def raised_beneath(error: Exception, library: ModuleType, *, name: str, method: str, effect: Effect) -> CallFailed:
    """An exception of the library, or of the machine, as one of ours too."""
    plain = translate(error)
    advice = "; nothing was sent" if plain.cause is Cause.NOT_SENT else ""
    if plain.cause is Cause.UNKNOWN and effect is not Effect.READ:
        advice = "; it may have happened, so look before you repeat it"
    plain.args = (f"{name}: {method} {plain}{advice}",)
    plain.provider, plain.operation = name, method
    return _as_both(plain, error if isinstance(error, library.TransportError) else _nearest(plain, library))


def _as_both(ours: CallFailed, theirs: Exception) -> CallFailed:
    error = both(ours, theirs)
    error.args = ours.args  # the client's own text is often empty, and may quote a header
    return error


def _nearest(error: CallFailed, library: Any) -> Exception:
    kind: type[Exception]
    match error:
        case CircuitOpen() | OnHold():
            kind = library.ConnectError
        case RateLimited() | BulkheadFull():
            kind = library.PoolTimeout
        case _ if error.cause is Cause.NOT_SENT:  # no time was left
            kind = library.ConnectTimeout
        case _:
            kind = library.ReadTimeout if error.reason == "timeout" else library.ReadError
    return kind("")
