"""From a history that fails to the simplest that fails the same way."""

from collections.abc import Callable, Iterator
from typing import Final

from holdfast.testing.explore.history import HOWS, KINDS, CallFails, Crash, Step, WebhookComes

MOST_RUNS: Final = 300

Steps = tuple[Step, ...]


def shrink(steps: Steps, fails: Callable[[Steps], bool], *, most: int = MOST_RUNS) -> Steps:
    """Leave out steps, then make each as simple as it can be, as long as it fails; at most so many runs."""
    left = most
    known: dict[Steps, bool] = {steps: True}

    def still_fails(candidate: Steps) -> bool:
        nonlocal left
        if candidate not in known:
            left -= 1
            known[candidate] = fails(candidate)
        return known[candidate]

    while True:
        for candidate in (*_shorter(steps), *_simpler(steps)):
            if left <= 0:
                return steps
            if still_fails(candidate):
                steps = candidate
                break
        else:
            return steps


def _shorter(steps: Steps) -> Iterator[Steps]:
    for index in range(len(steps)):
        yield (*steps[:index], *steps[index + 1 :])


def _simpler(steps: Steps) -> Iterator[Steps]:
    """The same with one step simpler, the simplest first."""
    taken = {step.place for step in steps}
    for index, step in enumerate(steps):
        for other in _simpler_steps(step):
            if other.place == step.place or other.place not in taken:
                yield (*steps[:index], other, *steps[index + 1 :])


def _simpler_steps(step: Step) -> Iterator[Step]:
    """Less harm first, then earlier."""
    match step:
        case Crash(at):
            yield from map(Crash, _earlier(at))
        case CallFails(vendor, operation, index, kind):
            for simpler in KINDS[: KINDS.index(kind) if kind in KINDS else len(KINDS)]:
                yield CallFails(vendor, operation, index, simpler)
            for before in range(index):
                yield CallFails(vendor, operation, before, kind)
        case WebhookComes(number, how):
            for simple in HOWS[: HOWS.index(how)]:
                yield WebhookComes(number, simple)
            for before in range(number):
                yield WebhookComes(before, how)


def _earlier(at: int) -> Iterator[int]:
    """Far away first, every one of the last few: few runs, however long the history."""
    distance = at
    seen: set[int] = set()
    while distance > 0:
        if (found := at - distance) not in seen:
            seen.add(found)
            yield found
        distance = distance // 2 if distance > 8 else distance - 1
