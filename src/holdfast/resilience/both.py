"""Errors that are ours and another library's at once, so that `except` finds them by either."""

import sys
from functools import lru_cache
from typing import cast

from holdfast.errors import CallFailed

_DECIDES = ("cause", "provider", "operation", "retry_after", "local", "hard", "narrow")  # an outer guard reads them
_SLOTS = ("errno", "strerror", "filename", "filename2")  # what an OSError keeps outside its __dict__


class Both(CallFailed):
    """One of our errors and another library's: what both say of the answer, such as its code, is in their words.

    Pickled, it keeps plain values only: requests and responses hold credentials, and may not pickle at all.
    """

    def __reduce__(self) -> tuple[object, ...]:
        ours, theirs = type(self).__bases__[1:]
        state = {name: _plain(value) for name, value in vars(self).items()}
        return _restore, (ours, _importable(theirs), _plain(self.args), state)


def both(ours: CallFailed, theirs: Exception) -> CallFailed:
    """The two as one; ours alone where Python cannot make a class of them."""
    state = vars(ours) | vars(theirs) | {name: getattr(ours, name) for name in _DECIDES}
    notes = [*getattr(theirs, "__notes__", ()), *getattr(ours, "__notes__", ())]
    if notes:
        state["__notes__"] = notes
    try:
        error = _restore(type(ours), type(theirs), theirs.args, state)
    except TypeError:
        return ours
    if isinstance(theirs, OSError):
        for slot in _SLOTS:
            if (value := getattr(theirs, slot)) is not None:
                setattr(error, slot, value)
    return error


def _restore(
    ours: type[CallFailed], theirs: type[Exception], args: tuple[object, ...], state: dict[str, object]
) -> CallFailed:
    kind = _kind(ours, theirs)  # type: ignore[arg-type]  # classes do have a hash
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(state)
    return error


@lru_cache(maxsize=256)  # bounded, for some libraries make their classes as they go
def _kind(ours: type[CallFailed], theirs: type[Exception]) -> type[CallFailed]:
    return cast(type[CallFailed], type(f"{ours.__name__}_{theirs.__name__}", (Both, ours, theirs), {}))


def _importable(kind: type) -> type:
    """The class, or the nearest one above that another process finds by its name."""
    found = (each for each in kind.__mro__ if getattr(sys.modules.get(each.__module__), each.__name__, None) is each)
    return next(found, Exception)


def _plain(value: object) -> object:
    """The value without what is no plain value."""
    match value:
        case None | bool() | int() | float() | str() | bytes():
            return value
        case dict():
            return {_plain(key): _plain(each) for key, each in cast(dict[object, object], value).items()}
        case tuple():
            return tuple(map(_plain, cast(tuple[object, ...], value)))
        case list():
            return list(map(_plain, cast(list[object], value)))
        case _:
            return None
