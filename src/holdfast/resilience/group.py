"""Several providers for one purpose: how the time is shared, and why not all of them are ever shut."""

from collections.abc import Iterable
from math import inf

from holdfast.resilience.guard import Guard


def share(left: float, among: int, usual: float = 0.0) -> float:
    """Seconds of what is left of a deadline for the next of so many providers, else the first slow one eats it all.

    An equal share, but at least what the operation usually takes there.
    """
    return min(left, max(left / max(1, among), usual))


def never_shut(guards: Iterable[Guard], operation: str) -> Guard | None:
    """If the circuits of all are open, let the next call try out the one that is due first; the guard it is.

    Waiting helps nobody where there is no other to ask. A probe under way already, or a circuit set by hand, stays.
    """
    waits: dict[Guard, float] = {}
    for guard in guards:
        wait = guard.shut_for(operation)
        if wait is None:
            return None
        waits[guard] = wait
    if not waits:
        return None
    first = min(waits, key=lambda guard: waits[guard])
    if waits[first] == inf:
        return None
    first.hasten(operation)
    return first
