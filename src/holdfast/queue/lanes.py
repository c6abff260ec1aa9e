"""Which of the claimed jobs runs next: one group after the other, so that none waits behind another's backlog."""

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from holdfast.resilience.limits import RateLimit
from holdfast.resilience.policy import Rate
from holdfast.stores.store import Job

SHARE = 0.75
"""Of all places, what one group may fill: the rest is for the others, however slow it is."""
LATER_SHARE = 0.25
"""The same for a group's retries and replays."""
SHORTEST, LONGEST = 0.5, 30.0
"""Seconds a job is given back for."""
WEIGHT = 4
"""New jobs that are begun for each one that is tried again or replayed, while there are both."""
ALONE_AFTER = 2
"""Losses after which a job runs alone: should it take the process with it once more, it is dead, and only it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupLimit:
    """What a queue, a source or a handler may take, in each process."""

    concurrency: int | None = None
    """Jobs at a time; None: three quarters of the worker's."""
    rate: Rate | None = None
    """Jobs that are begun in a window of time."""


def names(job: Job) -> tuple[str, str, str]:
    """What limits of its group can be set under: `events/payment.paid/confirm`, `events/payment.paid`, `events`."""
    source = f"{job.queue}/{job.kind}"
    return f"{source}/{job.handler}", source, job.queue


@dataclass(slots=True, eq=False)
class _Group:
    """The jobs of one source, handler and tenant; those that are tried again are a group of their own."""

    later: bool
    limit: int
    limited: tuple[str, ...]
    """The limits it falls under, by their names."""
    waiting: deque[Job] = field(default_factory=deque[Job])
    running: int = 0
    seconds: float = 0.0
    """What a job of it takes, about."""
    moved_at: float = 0.0
    """When one began or ended."""


class Lanes:
    """The jobs this process leased and did not begin yet; it decides, and runs nothing."""

    def __init__(self, concurrency: int, limits: Mapping[str, GroupLimit], now: Callable[[], float]) -> None:
        self._concurrency = concurrency
        self._limits = limits
        self._now = now
        self._rates = {name: RateLimit(limit.rate) for name, limit in limits.items() if limit.rate is not None}
        self._busy = Counter[str]()
        self._groups: dict[tuple[str, str, bool], _Group] = {}
        self._turns: deque[_Group] = deque()
        self._alone: deque[Job] = deque()
        self._sole: Job | None = None
        self._since_later = 0
        self.waiting = 0
        self.running = 0

    @property
    def alone(self) -> bool:
        """A job runs alone, or waits for the others to end."""
        return self._sole is not None or bool(self._alone)

    def put(self, job: Job) -> None:
        """A job that was claimed."""
        self.waiting += 1
        if job.losses >= ALONE_AFTER:
            self._alone.append(job)
        else:
            self._group(job).waiting.append(job)

    def take(self) -> Job | None:
        """The job to begin now; None: there is none, or no place for any."""
        if self._sole is not None or self.running >= self._concurrency:
            return None
        if self._alone:
            return self._take_alone() if not self.running else None
        group = self._next()
        if group is None:
            return None
        self._since_later = 0 if group.later else self._since_later + 1
        if len(self._turns) > 1:
            self._turns.remove(group)
            self._turns.append(group)
        group.running += 1
        group.moved_at = self._now()
        if group.limited:
            self._busy.update(group.limited)
        self.running += 1
        self.waiting -= 1
        return group.waiting.popleft()

    def done(self, job: Job, seconds: float) -> None:
        """A job that was taken ended, after so many seconds."""
        self.running -= 1
        if self._sole is job:
            self._sole = None
            return
        group = self._group(job)
        group.running -= 1
        now = group.moved_at = self._now()
        for name in group.limited:
            self._busy[name] -= 1
            if name in self._rates:
                self._rates[name].release("", now)
        group.seconds = seconds if not group.seconds else 0.8 * group.seconds + 0.2 * seconds
        if not group.running and not group.waiting:
            del self._groups[_key(job)]
            self._turns.remove(group)

    def set_aside(self) -> list[Job]:
        """Where a job is to run alone, everything else that was not begun: leased here, it would be lost with it."""
        if not self._alone:
            return []
        first = self._alone.popleft()
        left = self.remove_all()
        self.put(first)
        return left

    def remove_all(self) -> list[Job]:
        """Everything that was not begun; it waits here no longer."""
        left = [*self._alone, *(job for group in self._turns for job in group.waiting)]
        self._alone.clear()
        for group in self._turns:
            group.waiting.clear()
        self.waiting = 0
        return left

    def remove(self, job: Job) -> bool:
        """Forget a job that was not begun; False: it is not waiting here."""
        for waiting in (self._alone, *(group.waiting for group in self._turns)):
            if job in waiting:
                waiting.remove(job)
                self.waiting -= 1
                return True
        return False

    def shed(self, *, still_for: float = 0.0) -> list[tuple[Job, float]]:
        """Jobs to give back, each with the seconds after which its turn may come; for when none can begin.

        Those of groups in which nothing began or ended for that long; each keeps as many as it may run, for the moment
        when all that it runs ends at once.
        """
        given: list[tuple[Job, float]] = []
        for group in self._turns:
            still = self._now() - group.moved_at
            if still < still_for:
                continue
            pace = max(group.seconds, still, 0.1) / group.limit
            while len(group.waiting) > group.limit:
                job = group.waiting.pop()
                given.append((job, min(LONGEST, max(SHORTEST, pace * len(group.waiting)))))
        self.waiting -= len(given)
        return given

    def pause(self) -> float | None:
        """Seconds until a rate lets another job begin; None: no rate holds any."""
        now = self._now()
        held = (name for group in self._turns if self._has_place(group) for name in group.limited)
        return min((self._rates[name].retry_after("", now) for name in held if name in self._rates), default=None)

    def _take_alone(self) -> Job:
        self._sole = self._alone.popleft()
        self.running += 1
        self.waiting -= 1
        return self._sole

    def _next(self) -> _Group | None:
        if len(self._turns) == 1:
            only = self._turns[0]
            return only if self._has_place(only) and self._pays(only) else None
        ready = [group for group in self._turns if self._has_place(group)]
        turn = [group for group in ready if group.later == (self._since_later >= WEIGHT)]
        return next((group for group in [*turn, *ready] if self._pays(group)), None)

    def _has_place(self, group: _Group) -> bool:
        if not group.waiting or group.running >= group.limit:
            return False
        return not group.limited or all(map(self._has_room, group.limited))

    def _has_room(self, name: str) -> bool:
        most = self._limits[name].concurrency
        return most is None or self._busy[name] < most

    def _pays(self, group: _Group) -> bool:
        """Take a slot of every rate it falls under, or none."""
        if not group.limited:
            return True
        now, taken = self._now(), list[str]()
        for name in group.limited:
            if name in self._rates:
                if not self._rates[name].take("", now):
                    for other in taken:
                        self._rates[other].release("", now, sent=False)
                    return False
                taken.append(name)
        return True

    def _group(self, job: Job) -> _Group:
        key = _key(job)
        if key not in self._groups:
            self._groups[key] = self._new_group(job, later=key[2])
            self._turns.append(self._groups[key])
        return self._groups[key]

    def _new_group(self, job: Job, *, later: bool) -> _Group:
        most = max(1, math.ceil(self._concurrency * (LATER_SHARE if later else SHARE)))
        limited = tuple(name for name in names(job) if name in self._limits)
        given = [limit for name in limited if (limit := self._limits[name].concurrency) is not None]
        return _Group(later, min([most, *given] if later else given or [most]), limited, moved_at=self._now())


def _key(job: Job) -> tuple[str, str, bool]:
    return names(job)[0], job.headers.get("tenant", ""), bool(job.attempts or job.generation)
