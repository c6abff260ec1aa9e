"""What all calls of a guard share, and how one thread at a time decides about it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from threading import Event, RLock
from typing import Literal, Protocol, TypeVar

from holdfast.clock import Clock
from holdfast.errors import CircuitOpen
from holdfast.resilience.breaker import Circuit, CircuitState, Transition
from holdfast.resilience.budget import RetryBudget
from holdfast.resilience.classify import Classify
from holdfast.resilience.holds import Holds
from holdfast.resilience.limits import ConcurrencyLimit, RateLimit
from holdfast.resilience.policy import Breaker, Policy
from holdfast.telemetry import CircuitChanged, Telemetry

T = TypeVar("T")

Limit = RateLimit | ConcurrencyLimit
TRIED_OUT = (CircuitState.OPEN, CircuitState.HALF_OPEN)
SharedState = Literal["ok", "degraded"]
"""Whether what other processes know is known here; degraded: each process decides alone."""
COMES_ROUND = 1.0
"""An event loop that has not come round after so many seconds stands still, and so decides nothing."""


class Peers(Protocol):
    """The other processes that guard the same provider; nothing here waits, and nothing raises."""

    @property
    def state(self) -> SharedState:
        """Whether they can be heard."""
        ...

    def elect(self, operation: str, lease: float, wake: Callable[[], None], now: float) -> float:
        """Ask who probes; seconds to wait for the answer, at most, and 0 when there is none to wait for.

        The guard is locked meanwhile, and when `wake` is called.
        """
        ...

    def changed(self) -> None:
        """A circuit has another state."""
        ...

    def held(self, credential: str, seconds: float) -> None:
        """A credential pauses."""
        ...

    def released(self, credential: str) -> None:
        """A credential pauses no more."""
        ...


@dataclass(slots=True, eq=False)
class Shared:
    """What all calls of a guard share."""

    name: str
    policy: Policy
    clock: Clock
    random: Random
    telemetry: Telemetry
    classify: Classify
    circuit: Circuit | None
    budget: RetryBudget | None
    holds: Holds
    rates: tuple[RateLimit, ...]
    places: ConcurrencyLimit | None
    limits: tuple[Limit, ...]
    """The rates, then the places."""
    keys: tuple[Callable[[], str], ...]
    """Of the rates: whose slot a call takes."""
    unkeyed: tuple[str, ...] | None
    """What `keys` always say where no rate is keyed."""
    retries: bool
    timeout: float
    deadline: float
    usual_limit: float
    """The shorter of the two."""
    slow_after: float
    monotonic: Callable[[], float]
    """The clock's."""
    lock: RLock
    """Held around every decision of a `Call`, for several threads may make some; never while a signal is emitted.

    Reentrant, for the garbage collector may close a forgotten call in the middle of a decision.
    """
    calm: bool = True
    """Nothing stands in a call's way that would concern all: one thread, no hold, no rate with a key."""
    threaded: bool = False
    handed_over: bool = False
    """Since then no usual call is in the middle of a decision."""
    running: int = 0
    """Attempts of a `Call` that are under way."""
    loop: asyncio.AbstractEventLoop | None = None
    """Where usual calls are made."""
    rejection: type[CircuitOpen] = CircuitOpen
    """What is raised while a circuit is open."""
    peers: Peers | None = None

    def whose(self) -> tuple[str, ...]:
        """Whose slot of each rate a call takes that begins here."""
        return tuple(key() for key in self.keys) if self.unkeyed is None else self.unkeyed

    def settle(self) -> None:
        """Find out whether things are as usual."""
        self.calm = not (self.threaded or self.holds.scopes or self.unkeyed is None)

    def move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make usual calls in this loop; where another one runs as well, there are no usual calls any more."""
        with self.lock:
            if self.loop is None or self.loop is loop or not self.loop.is_running():
                self.loop = loop
                return
        self.go_threaded()

    def go_threaded(self) -> None:
        """From now on several threads make calls, so that every decision takes the lock.

        Usual calls take none. They decide without ever waiting, so once their loop has come round there is none in
        the middle of a decision.
        """
        if self.handed_over:
            return
        with self.lock:
            self.threaded = True
            self.settle()
            loop, came_round = self.loop, Event()
        if loop is not None and running_loop() is loop:
            return  # another thread has to wait for this one yet
        if loop is not None and loop.is_running():
            with suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(came_round.set)
                came_round.wait(COMES_ROUND)
        self.handed_over = True

    def in_turn(self, look: Callable[[], T]) -> T:
        """Do it while no call is in the middle of a decision, whatever thread this is.

        Usual calls take no lock, so while they are made in another thread, their loop does it.
        """
        loop, turn = self.loop, Future[T]()
        if not self.handed_over and loop is not None and loop.is_running() and running_loop() is not loop:
            with suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(self._take_turn, look, turn)
                wait([turn], COMES_ROUND)
            if not turn.cancel():
                return turn.result()
        with self.lock:
            return look()

    def _take_turn(self, look: Callable[[], T], turn: "Future[T]") -> None:
        if not turn.set_running_or_notify_cancel():
            return
        try:
            with self.lock:
                turn.set_result(look())
        except BaseException as error:  # it is raised where it is waited for
            turn.set_exception(error)

    def tell(self, operation: str, change: Transition | None) -> None:
        """Signal a change of a circuit's state, if there is one."""
        if change is None:
            return
        if (peers := self.peers) is not None:
            peers.changed()
        if self.places is not None and change.before in TRIED_OUT and change.after is CircuitState.CLOSED:
            window = self.policy.breaker or Breaker()
            with self.lock:
                self.places.restart(self.monotonic(), window.seconds("window"))
        if self.telemetry.sinks:
            self.telemetry.emit(
                CircuitChanged(self.name, operation, change.before, change.after, change.reason, change.open_for)
            )


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop this thread runs, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
