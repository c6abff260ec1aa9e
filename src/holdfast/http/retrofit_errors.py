"""Errors that are both ours and the client's: `except` finds them by either name."""

from types import ModuleType
from typing import Any, Final, cast

from holdfast.errors import BulkheadFull, CallFailed, CircuitOpen, OnHold, RateLimited
from holdfast.http.errors import translate
from holdfast.outcome import Cause, Effect


class _Both(CallFailed):
    """One of our classes and one of the client's, as one."""

    def __reduce__(self) -> tuple[object, ...]:
        _, ours, theirs = type(self).__bases__
        state = {name: value for name, value in vars(self).items() if name != "_request"}  # it holds the credential
        return _restore, (ours, theirs, self.args, state)


def both(error: CallFailed, library: ModuleType) -> CallFailed:
    """Our error, raised by the guard itself, as one of the library's too."""
    return error if isinstance(error, library.TransportError) else _both(error, _nearest(error, library))


def understood(error: Exception, library: ModuleType, *, name: str, method: str, effect: Effect) -> CallFailed:
    """An exception of the library or of the machine, as one of ours too."""
    plain = translate(error)
    advice = "; nothing was sent" if plain.cause is Cause.NOT_SENT else ""
    if plain.cause is Cause.UNKNOWN and effect is not Effect.READ:
        advice = "; it may have happened, so look before you repeat it"
    plain.args = (f"{name}: {method} {plain}{advice}",)
    plain.provider, plain.operation = name, method
    return _both(plain, error if isinstance(error, library.TransportError) else _nearest(plain, library))


def _both(error: CallFailed, client: Exception) -> CallFailed:
    return _restore(type(error), type(client), error.args, vars(client) | vars(error))


def _restore(
    ours: type[CallFailed], theirs: type[Exception], args: tuple[object, ...], state: dict[str, object]
) -> CallFailed:
    if (ours, theirs) not in _KINDS:
        kind = type(f"{ours.__name__}_{theirs.__name__}", (_Both, ours, theirs), {})
        _KINDS[ours, theirs] = cast(type[CallFailed], kind)
    error = _KINDS[ours, theirs].__new__(_KINDS[ours, theirs])
    error.args = args
    error.__dict__.update({"_request": None} | state)
    return error


_KINDS: Final[dict[tuple[type[CallFailed], type[Exception]], type[CallFailed]]] = {}


def _nearest(error: CallFailed, library: Any) -> Exception:
    """What the library would have raised in place of a failure found here."""
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
