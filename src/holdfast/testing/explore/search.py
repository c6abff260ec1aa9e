"""The search for a history that fails: each single step first, then several, drawn to where nobody has been yet."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from holdfast.testing.explore.history import HOWS, KINDS, CallFails, Crash, History, Step, WebhookComes
from holdfast.testing.explore.running import Ran

MOST_STEPS: Final = 3
SHARE_OF_SINGLES: Final = 2 / 3
"""How much of all histories those with one step take before others get their turn."""
DRAWS: Final = 50
"""Draws in a row that bring nothing new, before everything counts as tried."""
NEW: Final = 8
"""How much likelier a place is that the untroubled history does not have."""

Spot = tuple[object, ...]
"""What makes two steps alike: the same place in the code, or the same fault of the same operation."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A step that can be added to a history, and what it is like."""

    step: Step
    spot: Spot


@dataclass(slots=True)
class _Parent:
    """A history that held, and can be gone through with more going wrong."""

    steps: tuple[Step, ...]
    spots: tuple[Spot, ...]
    groups: Sequence[Sequence[Candidate]]
    new: int
    """How many places it has that the untroubled history does not have."""
    chosen: int = 0


class Search:
    """Proposes histories, and learns from each that held what else could go wrong in it."""

    def __init__(self, first: Ran, *, histories: int) -> None:
        self._seed = first.history.seed
        self._random = Random(f"search:{self._seed}")
        self._left = histories - 1
        self._usual = frozenset(first.places)
        self._tried: set[frozenset[Step]] = set()
        self._spots: dict[tuple[Step, ...], tuple[Spot, ...]] = {(): ()}
        self._seen: Counter[tuple[Spot, ...]] = Counter()
        self._parents: list[_Parent] = []
        self._singles = self._in_order(first)
        self._turns_of_singles = round(histories * SHARE_OF_SINGLES)
        self.learn(first)

    def __iter__(self) -> Iterator[History]:
        while self._left > 0:
            steps = self._single() or self._longer() or self._single(late=True)
            if steps is None:
                return
            self._left -= 1
            yield History(self._seed, steps)

    def learn(self, ran: Ran) -> None:
        """This one held."""
        steps = ran.history.steps
        if len(steps) < MOST_STEPS and ran.struck.issuperset(steps):
            new = len(set(ran.places) - self._usual)
            self._parents.append(_Parent(steps, self._spots[steps], _what_follows(ran), new))

    def _in_order(self, first: Ran) -> list[Candidate]:
        """Last comes first: each spot once, in any order, before a spot is tried again."""
        candidates = [candidate for group in _what_follows(first) for candidate in group]
        self._random.shuffle(candidates)
        times: Counter[Spot] = Counter()
        ranks: dict[Step, int] = {}
        for candidate in candidates:
            ranks[candidate.step] = times[candidate.spot]
            times[candidate.spot] += 1
        return sorted(candidates, key=lambda candidate: -ranks[candidate.step])

    def _single(self, *, late: bool = False) -> tuple[Step, ...] | None:
        if not self._singles or (self._turns_of_singles <= 0 and not late):
            return None
        self._turns_of_singles -= 1
        return self._take((), (), self._singles.pop())

    def _longer(self) -> tuple[Step, ...] | None:
        for _ in range(DRAWS):
            parent = self._random.choices(self._parents, [_weight(one) for one in self._parents])[0]
            parent.chosen += 1
            group = self._random.choice(parent.groups) if parent.groups else ()
            if not group:
                continue
            weights = [self._weight((*parent.spots, candidate.spot)) for candidate in group]
            candidate = self._random.choices(group, weights)[0]
            if frozenset((*parent.steps, candidate.step)) not in self._tried:
                return self._take(parent.steps, parent.spots, candidate)
        return None

    def _take(self, steps: tuple[Step, ...], spots: tuple[Spot, ...], added: Candidate) -> tuple[Step, ...]:
        longer, spots = (*steps, added.step), (*spots, added.spot)
        self._tried.add(frozenset(longer))
        self._spots[longer] = spots
        self._seen[spots] += 1
        return longer

    def _weight(self, spots: tuple[Spot, ...]) -> float:
        new = NEW if spots[-1][0] == "crash" and spots[-1][1] not in self._usual else 1
        return new / (1 + self._seen[spots]) ** 2


def _weight(parent: _Parent) -> float:
    return (1 + min(NEW, parent.new)) / (1 + parent.chosen)


def _what_follows(ran: Ran) -> list[list[Candidate]]:
    """What can go wrong once all this has: crashes, calls and webhooks; none of these groups is empty."""
    since = max((_awaits(step, ran) for step in ran.history.steps), default=0)
    taken = {step.place for step in ran.history.steps}
    crashes = [Candidate(Crash(at), ("crash", ran.places[at])) for at in range(since, len(ran.places))]
    calls = [
        Candidate(CallFails(call.vendor, call.operation, call.index, kind), (call.vendor, call.operation, kind))
        for call in ran.calls
        if call.awaits >= since and call.place not in taken
        for kind in KINDS
    ]
    webhooks = [
        Candidate(WebhookComes(number, how), ("webhook", how))
        for number in range(ran.webhooks)
        if ("webhook", number) not in taken
        for how in HOWS
    ]
    return [group for group in (crashes, calls, webhooks) if group]


def _awaits(step: Step, ran: Ran) -> int:
    """How often the program had waited when this struck."""
    match step:
        case Crash(at):
            return at + 1
        case CallFails():
            return next((one.awaits for one in ran.calls if one.place == step.place), 0)
        case WebhookComes():
            return 0
