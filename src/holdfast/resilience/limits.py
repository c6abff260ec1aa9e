"""Rate and concurrency limits: synchronous objects that are told the time and never wait."""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import Literal

from holdfast.resilience.policy import Concurrency, Priority, Rate

FEW = 64
"""Up to so many slots a list holds a window: it is short to shift, and a tenth of an empty deque's size."""
RECOVERY_STEP = 10.0
"""After throttling, the limit grows a step in so many seconds, or in one window if that is longer."""
RECOVERY_STEPS = 30
"""Steps from nothing to the whole limit."""
SLOW_START = (0.25, 0.5, 1.0)
"""Shares of the limit in each third of a slow start."""

Burden = Literal["ok", "overload", "neutral", "unused"]
"""How a call ended: well, by a timeout or throttling, in a way that says nothing of the vendor's load, or unbegun."""

BULK, WEBHOOK, INTERACTIVE = Priority.BULK, Priority.WEBHOOK, Priority.INTERACTIVE


@dataclass(eq=False, slots=True)
class Ticket:
    """A place in a line. Its owner looks at it again when woken, and at `due` after calling `poll`."""

    wake: Callable[[], None]
    """Called when it was granted, dropped, or is due earlier: maybe several times. It must not call the limit."""
    key: str = ""
    priority: Priority = INTERACTIVE
    granted: bool = False
    """It is its turn: the slot is taken for it, to be given back by `release`, or by `leave` if it is not used."""
    due: float = inf
    """When to call `poll`; inf: somebody else's call, or release, comes first."""
    dropped: bool = False
    """Pushed out of a full line by a call of higher priority."""


Line = OrderedDict[Ticket, None]
"""First come, first served; whoever leaves costs nothing, wherever he stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSnapshot:
    """A rate limit as it stands, over all its keys."""

    limit: int
    """The lowest of any key: below the configured one while a key recovers from throttling."""
    in_use: int
    waiting: int
    keys: int


class _Window:
    """The slots of one key."""

    __slots__ = (
        "busy_since",
        "closed_until",
        "flight",
        "freed",
        "limit",
        "line",
        "lowered_until",
        "plain",
        "recovers_at",
        "scheduled",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.flight = 0  # calls under way
        self.busy_since = 0.0  # none of them was taken earlier
        self.freed: deque[float] | list[float] = [] if limit <= FEW else deque()  # when slots come free, soonest first
        self.line: Line | None = None
        self.scheduled = inf  # when `poll` looks at it
        self.plain = True  # nobody waits, and the vendor does not complain
        self.closed_until = self.lowered_until = self.recovers_at = -inf


class RateLimit:
    """The slots of one `Rate`: never more than its limit in any window, for each key.

    `now` is monotonic seconds throughout. A slot is in use while its call is under way and for one window after the
    answer: whenever between the two the vendor counts the call, no window of his sees more than the limit.
    """

    def __init__(self, options: Rate) -> None:
        self._limit = options.limit
        self._per = options.seconds("per")
        self._max_waiting = options.max_waiting
        self._from_answer = options.counted_from == "answer"
        self._gain = max(1, options.limit // RECOVERY_STEPS)
        self._step = max(RECOVERY_STEP, self._per)
        self._windows: dict[str, _Window] = {}
        self._rota: deque[str] = deque()
        self._schedule: list[tuple[float, int, _Window]] = []
        self._scheduled = 0

    def take(self, key: str, now: float) -> bool:
        """Take a slot, if one is free and nobody waits for it."""
        window = self._windows.get(key) or self._open(key, now)
        if not window.plain:
            return self._take_last(window, now)
        freed = window.freed
        if freed and freed[0] <= now:
            del freed[0]
        if self._from_answer:
            if window.flight + len(freed) >= self._limit:
                return False
            window.flight += 1
            return True
        if len(freed) >= self._limit:
            return False
        self._occupy(window, now)
        return True

    def release(self, key: str, now: float, *, sent: bool = True) -> None:
        """The call ended. Its slot comes free in one window, or at once if nothing was sent.

        Counted from the start, an unsent call's slot comes free at once only if no call is under way for longer than a
        window; else it might be long free, and another one's would be given away.
        """
        window = self._windows[key]
        freed = window.freed
        if self._from_answer:
            if sent:
                freed.append(now + self._per)
        elif not sent:
            self._forgo(window, now)
        window.flight -= 1
        if not window.plain:
            self._advance(window, now)
        elif freed and freed[0] <= now:
            del freed[0]

    def line_up(self, key: str, now: float, wake: Callable[[], None]) -> Ticket | None:
        """Wait for a slot, in the line of this key; None when the line is full."""
        self.poll(now)
        window = self._windows.get(key) or self._open(key, now)
        ticket = Ticket(wake, key=key)
        line = window.line
        if not line and self._has_free(window, now):
            self._occupy(window, now)
            ticket.granted = True
            return ticket
        if len(line or ()) >= self._max_waiting:
            return None
        if line is None:
            line = window.line = OrderedDict()
        if not line:
            ticket.due = self._next_due(window)
        line[ticket] = None
        self._arrange(window, now)
        return ticket

    def leave(self, ticket: Ticket, now: float) -> None:
        """Give up waiting, or a granted slot that was not used; the next in line gets it. Twice is harmless."""
        window = self._windows.get(ticket.key)
        if ticket.granted:
            ticket.granted = False
            self.release(ticket.key, now, sent=False)
        elif window is not None and window.line and ticket in window.line:
            del window.line[ticket]
            self._advance(window, now)

    def poll(self, now: float) -> None:
        """Grant what has come free."""
        schedule = self._schedule
        while schedule and schedule[0][0] <= now:
            due, _, window = heappop(schedule)
            if due == window.scheduled:  # else an earlier look replaced this one
                window.scheduled = inf
                self._advance(window, now)

    def retry_after(self, key: str, now: float) -> float:
        """About how many seconds until a newcomer may have a slot."""
        self.poll(now)
        window = self._windows.get(key)
        if window is None:
            return 0.0
        self._has_free(window, now)
        pause = max(0.0, window.closed_until - now)
        missing = len(window.line or ()) + self._occupied(window) - window.limit
        if missing < 0:
            return pause
        rounds, place = divmod(missing, window.limit)
        freed = window.freed
        return max(pause, rounds * self._per + (freed[place] - now if place < len(freed) else self._per))

    def throttled(self, key: str, now: float, retry_after: float | None) -> None:
        """The vendor complained: pause, then go on with 30 % less, and grow back by steps while he is content.

        The pause is `retry_after` seconds, or one window. What he says meanwhile is of the same burst: it may only
        make the pause longer.
        """
        window = self._windows.get(key) or self._open(key, now)
        pause = retry_after if retry_after is not None and 0 <= retry_after < inf else self._per
        window.closed_until = max(window.closed_until, now + pause)
        if now >= window.lowered_until:
            window.limit = max(1, window.limit * 7 // 10)
            window.lowered_until = now + self._per
        window.lowered_until = max(window.lowered_until, window.closed_until)
        window.recovers_at = window.lowered_until + self._step
        window.plain = False

    def snapshot(self, now: float) -> RateSnapshot:
        """How it stands."""
        for _ in range(len(self._rota)):
            self._forget_if_idle(now)
        windows = self._windows.values()
        return RateSnapshot(
            limit=min((window.limit for window in windows), default=self._limit),
            in_use=sum(map(self._occupied, windows)),
            waiting=sum(len(window.line or ()) for window in windows),
            keys=len(windows),
        )

    # Keys.

    def _open(self, key: str, now: float) -> _Window:
        """A new key. Two others are looked at for each, so that at most about half of those kept are idle."""
        for _ in range(min(2, len(self._rota))):
            self._forget_if_idle(now)
        self._rota.append(key)
        window = self._windows[key] = _Window(self._limit)
        return window

    def _forget_if_idle(self, now: float) -> None:
        """Look at the key that was not looked at for longest."""
        key = self._rota.popleft()
        window = self._windows[key]
        self._has_free(window, now)
        self._advance(window, now)
        if window.plain and not window.flight and not window.freed:
            del self._windows[key]
        else:
            self._rota.append(key)

    # Slots.

    def _occupied(self, window: _Window) -> int:
        return len(window.freed) + (window.flight if self._from_answer else 0)

    def _has_free(self, window: _Window, now: float) -> bool:
        """Whether a slot is free, after noting what the passing of time has changed."""
        if window.limit < self._limit and now >= window.recovers_at:
            steps = 1 + int((now - window.recovers_at) / self._step)
            window.limit = min(self._limit, window.limit + steps * self._gain)
            window.recovers_at += steps * self._step
        freed = window.freed
        while freed and freed[0] <= now:
            del freed[0]
        return now >= window.closed_until and self._occupied(window) < window.limit

    def _take_last(self, window: _Window, now: float) -> bool:
        """Take a slot where somebody may wait, or the vendor complained."""
        if window.line or not self._has_free(window, now):
            return False
        self._occupy(window, now)
        return True

    def _occupy(self, window: _Window, now: float) -> None:
        if not window.flight:
            window.busy_since = now
        window.flight += 1
        if not self._from_answer:
            window.freed.append(now + self._per)

    def _forgo(self, window: _Window, now: float) -> None:
        """Free a slot counted from the start.

        The oldest goes, whosesoever it was: as long as the unsent one is in the window too, there are then at least as
        many left in any later window as there were calls.
        """
        self._has_free(window, now)
        if window.freed and now < window.busy_since + self._per:
            del window.freed[0]

    # Lines.

    def _advance(self, window: _Window, now: float) -> None:
        """Grant the first in line what is free."""
        line = window.line
        while line and self._has_free(window, now):
            ticket, _ = line.popitem(last=False)
            self._occupy(window, now)
            ticket.granted, ticket.due = True, inf
            ticket.wake()
        self._arrange(window, now)

    def _arrange(self, window: _Window, now: float) -> None:
        """See that the first in line comes back in time; only he does, or a thousand would for one slot."""
        line = window.line
        window.plain = not line and window.limit == self._limit and window.closed_until <= now
        if not line:
            return
        first, due = next(iter(line)), self._next_due(window)
        if due < window.scheduled:
            window.scheduled = due
            self._scheduled += 1
            heappush(self._schedule, (due, self._scheduled, window))
        sooner, first.due = due < first.due, due
        if sooner:
            first.wake()

    def _next_due(self, window: _Window) -> float:
        """When the first in line may get a slot."""
        freed, too_many = window.freed, self._occupied(window) - window.limit
        due = -inf if too_many < 0 else freed[too_many] if too_many < len(freed) else inf
        if window.limit < self._limit:
            due = min(due, window.recovers_at)
        return max(due, window.closed_until)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencySnapshot:
    """A concurrency limit as it stands."""

    limit: int
    """The present one: it moves when it is adaptive, and after a circuit closed."""
    in_use: int
    waiting: int


class ConcurrencyLimit:
    """The places of one `Concurrency`: so many calls at once, the important first.

    Whoever may have a place has it as soon as it is free, so a newcomer who finds one overtakes nobody.
    """

    def __init__(self, options: Concurrency) -> None:
        self._options = options
        self._adaptive = options.adaptive
        self._limit = float(options.limit)
        self._share = 1.0
        self._steps: list[tuple[float, float]] = []  # of a slow start: when, which share
        self._settling = 0
        self._in_use = self._below = self._bulk = 0  # all, those below interactive, those of them that are bulk
        self._lines: tuple[Line, Line, Line] = (OrderedDict(), OrderedDict(), OrderedDict())
        self._waiting = 0
        self._resize()

    def take(self, priority: Priority, now: float) -> bool:
        """Take a place, if one is free for this priority."""
        if self._steps:
            self.poll(now)
        if self._in_use >= self._places:
            return False
        if priority is not INTERACTIVE:
            if self._below >= self._webhook_places or (priority is BULK and self._bulk >= self._bulk_places):
                return False
            self._below += 1
            if priority is BULK:
                self._bulk += 1
        self._in_use += 1
        return True

    def release(self, priority: Priority, now: float, *, outcome: Burden = "ok") -> None:
        """The call ended, in one of these ways."""
        self._in_use -= 1
        if priority is not INTERACTIVE:
            self._below -= 1
            if priority is BULK:
                self._bulk -= 1
        if self._adaptive and outcome != "unused":
            self._adapt(outcome)
        if self._waiting:
            self.poll(now)
            self._grant(now)

    def line_up(self, priority: Priority, now: float, wake: Callable[[], None]) -> Ticket | None:
        """Wait for a place; None when the line is full of calls no less important."""
        ticket = Ticket(wake, priority=priority)
        if self.take(priority, now):
            ticket.granted = True
            return ticket
        if self._waiting >= self._options.max_waiting and not self._drop_below(priority):
            return None
        ticket.due = self._next_step()
        self._lines[priority][ticket] = None
        self._waiting += 1
        return ticket

    def leave(self, ticket: Ticket, now: float) -> None:
        """Give up waiting, or a granted place that was not used; the next in line gets it. Twice is harmless."""
        if ticket.granted:
            ticket.granted = False
            self.release(ticket.priority, now, outcome="unused")
        elif ticket in self._lines[ticket.priority]:
            del self._lines[ticket.priority][ticket]
            self._waiting -= 1

    def poll(self, now: float) -> None:
        """Grant what has come free: by the next step of a slow start, for all else is granted as it happens."""
        if not self._steps or now < self._steps[0][0]:
            return
        while self._steps and self._steps[0][0] <= now:
            _, self._share = self._steps.pop(0)
        self._resize()
        self._grant(now)
        for line in self._lines:
            for ticket in line:
                ticket.due = self._next_step()

    def restart(self, now: float, over: float) -> None:
        """Start slowly, after a circuit closed: a quarter of the limit, then half, then all, each a third of `over`."""
        self._share = SLOW_START[0]
        self._steps = [(now + over * third / 3, SLOW_START[third]) for third in (1, 2)]
        self._resize()
        for line in self._lines:
            for ticket in line:
                ticket.due = self._next_step()
                ticket.wake()

    def snapshot(self, now: float) -> ConcurrencySnapshot:
        """How it stands."""
        self.poll(now)
        return ConcurrencySnapshot(limit=self._places, in_use=self._in_use, waiting=self._waiting)

    def _adapt(self, outcome: str) -> None:
        """Move the limit: a tenth down, at most once in a round trip; about one up in a round trip of successes.

        A round trip is over when as many calls have ended as were under way at the last cut: what those say is of the
        same overload. So it is right for calls of 10 ms and of 30 s, which no number of seconds would be.
        """
        options = self._options
        under_way = self._in_use + 1
        if self._settling:
            self._settling -= 1
        elif outcome == "overload":
            self._limit = max(float(options.least), self._limit * 0.9)
            self._settling = self._in_use
            self._resize()
        if outcome == "ok" and self._limit < options.limit and under_way * 2 >= self._limit:  # else it is not in demand
            self._limit = min(float(options.limit), self._limit + 1 / self._limit)
            self._resize()

    def _resize(self) -> None:
        """Work out the places there are, and those lower priorities may use of them."""
        self._places = _part(self._limit, self._share)
        self._webhook_places = _part(self._places, self._options.webhook_share)
        self._bulk_places = _part(self._places, self._options.bulk_share)

    def _grant(self, now: float) -> None:
        for priority in (INTERACTIVE, WEBHOOK, BULK):
            line = self._lines[priority]
            while line and self.take(priority, now):
                ticket, _ = line.popitem(last=False)
                self._waiting -= 1
                ticket.granted, ticket.due = True, inf
                ticket.wake()

    def _drop_below(self, priority: Priority) -> bool:
        """Drop the latest of the least important, if it is less important than this."""
        for line in self._lines[:priority]:
            if line:
                ticket, _ = line.popitem()
                self._waiting -= 1
                ticket.dropped, ticket.due = True, inf
                ticket.wake()
                return True
        return False

    def _next_step(self) -> float:
        return self._steps[0][0] if self._steps else inf


def _part(whole: float, share: float) -> int:
    return max(1, int(whole * share + 1e-9))  # 0.29 of 100 is 29
