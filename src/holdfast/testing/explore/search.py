"""The search for a history that fails: each single step first, then several, drawn to where nobody has been yet."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from holdfast.testing.explore.history import HOWS, KINDS, CallFails, Crash, History, Step, WebhookComes
from holdfast.testing.explore.running import Ran
from holdfast.testing.explore.stepping import Place

MOST_DRAWS: Final = 4
"""How often something is added to a history; a leap adds the fates of several webhooks at once."""
SHARE_OF_SINGLES: Final = 2 / 3
"""How much of all histories those with one step take before others get their turn."""
DRAWS: Final = 50
"""Draws in a row that bring nothing new, before everything counts as tried."""
MIXED: Final = 2 / 3
"""How many of the webhooks a leap gives a fate of their own."""
NEW: Final = 8
"""How much likelier it is to go wrong where nothing has yet, and to go on from where nobody had been before."""

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
    crashes: Sequence[Candidate]
    calls: Sequence[Candidate]
    webhooks: Sequence[Candidate]
    new: int
    """How many places it was the first to reach."""
    chosen: int = 0

    @property
    def has_one_crash(self) -> bool:
        return len(self.steps) == 1 and isinstance(self.steps[0], Crash)


class Search:
    """Proposes histories, and learns from each that held what else could go wrong in it."""

    def __init__(self, first: Ran, *, histories: int) -> None:
        self._seed = first.history.seed
        self._random = Random(f"search:{self._seed}")
        self._left = histories - 1
        self._known: set[Place] = set()
        """Where any history has been."""
        self._struck: set[Spot] = set()
        """Where anything has gone wrong."""
        self._tried: set[frozenset[Step]] = set()
        self._spots: dict[tuple[Step, ...], tuple[Spot, ...]] = {(): ()}
        self._seen: Counter[tuple[Spot, ...]] = Counter()
        self._parents: list[_Parent] = []
        self._leaps = True
        self.learn(first)
        self._singles = self._in_order(self._parents[0])
        self._turns_of_singles = round(histories * SHARE_OF_SINGLES)

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
        spots = self._spots[steps]
        new = len(set(ran.places) - self._known)
        self._known.update(ran.places)
        if len(spots) < MOST_DRAWS and ran.struck.issuperset(steps):
            self._parents.append(_Parent(steps, spots, *_what_follows(ran), new))

    def _in_order(self, first: _Parent) -> list[Candidate]:
        """Last comes first: each spot once, in any order, before a spot is tried again."""
        candidates = [*first.crashes, *first.calls, *first.webhooks]
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
        single = self._singles.pop()
        return self._take((single.step,), (single.spot,))

    def _longer(self) -> tuple[Step, ...] | None:
        """By a stride and by a leap in turn."""
        for _ in range(DRAWS):
            self._leaps = not self._leaps
            found = self._leap() if self._leaps else self._stride()
            if found is not None:
                return found
        return None

    def _stride(self) -> tuple[Step, ...] | None:
        """One that held, with one more step."""
        parent = self._chosen(self._parents)
        groups = [group for group in (parent.crashes, parent.calls, parent.webhooks) if group]
        if not groups:
            return None
        added = self._drawn(parent, self._random.choice(groups))
        return self._take((*parent.steps, added.step), (*parent.spots, added.spot))

    def _leap(self) -> tuple[Step, ...] | None:
        """After a crash a call fails, and the webhooks come as they like: what does not matter is shrunk away."""
        parent = self._chosen([one for one in self._parents if one.has_one_crash] or self._parents[:1])
        added = [self._drawn(parent, parent.calls)] if parent.calls else []
        fates = {one.step.place: one for one in self._random.sample(parent.webhooks, len(parent.webhooks))}
        added += [one for one in fates.values() if self._random.random() < MIXED]
        if len(added) < 2:
            return None
        spots = (*parent.spots, *(one.spot for one in added[:1]), ("webhooks",))
        return self._take((*parent.steps, *(one.step for one in added)), spots)

    def _chosen(self, parents: Sequence[_Parent]) -> _Parent:
        parent = self._random.choices(parents, [_weight(one) for one in parents])[0]
        parent.chosen += 1
        return parent

    def _drawn(self, parent: _Parent, group: Sequence[Candidate]) -> Candidate:
        return self._random.choices(group, [self._weight((*parent.spots, one.spot)) for one in group])[0]

    def _take(self, steps: tuple[Step, ...], spots: tuple[Spot, ...]) -> tuple[Step, ...] | None:
        """These steps, if they are new."""
        if frozenset(steps) in self._tried:
            return None
        self._tried.add(frozenset(steps))
        self._spots[steps] = spots
        self._seen[spots] += 1
        self._struck.update(spots)
        return steps

    def _weight(self, spots: tuple[Spot, ...]) -> float:
        new = 1 if spots[-1] in self._struck else NEW
        return new / (1 + self._seen[spots]) ** 2


def _weight(parent: _Parent) -> float:
    return (1 + NEW * min(NEW, parent.new)) / (1 + parent.chosen)


def _what_follows(ran: Ran) -> tuple[list[Candidate], list[Candidate], list[Candidate]]:
    """What can go wrong once all this has: crashes, calls and webhooks."""
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
    return crashes, calls, webhooks


def _awaits(step: Step, ran: Ran) -> int:
    """How often the program had waited when this struck."""
    match step:
        case Crash(at):
            return at + 1
        case CallFails():
            return next((one.awaits for one in ran.calls if one.place == step.place), 0)
        case WebhookComes():
            return 0
