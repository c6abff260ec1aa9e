"""Which of several processes tries out a provider: the one that holds the lease of its circuit."""

import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Protocol

from holdfast.clock import Clock
from holdfast.resilience.breaker import Circuit
from holdfast.resilience.reports import Name
from holdfast.resilience.shared import Shared

log = logging.getLogger("holdfast.shared_state")

WITHIN = 0.1
"""Seconds the store has for anything."""
PATIENCE = 0.15
"""A call waits so long for an election: a little longer than the store may take."""
AGAIN = 0.5
"""Seconds after which a lost election is held again, if a call wants to probe."""
ALONE = 1.0
"""Seconds for which a process probes by itself after the store did not answer."""
UNUSED = 1.0
"""A lease is given back so many seconds after its last use."""
LONGEST_TERM = 60.0
"""A lease is taken for no longer, and renewed while a probe runs."""


class Leases(Protocol):
    """Who may do what only one may do."""

    async def acquire(self, name: str, *, owner: str, ttl: float) -> Any | None:
        """Own the name for `ttl` seconds, unless somebody else does."""
        ...

    async def renew(self, lease: Any, *, ttl: float) -> bool:
        """Own it for `ttl` seconds from now; False when it was lost."""
        ...

    async def release(self, lease: Any) -> None:
        """Give it back."""
        ...


class Seat:
    """One circuit in the fleet."""

    def __init__(self, shared: Shared, operation: str, circuit: Circuit) -> None:
        self.shared = shared
        self.name: Name = shared.name, operation
        self.lease = f"circuit:{shared.name}:{operation}"
        self.circuit = circuit
        self.asked: float | None = None
        """When the election began that is held now."""
        self.waiting: list[Callable[[], None]] = []
        """Who waits for it to end."""
        self.term: Any = None
        """The lease, while we have it."""
        self.ttl = 0.0
        self.until = self.used = -inf

    def decided(self) -> None:
        """The election is over."""
        self.asked = None
        waiting, self.waiting = self.waiting, []
        for wake in waiting:
            wake()


class Spawn(Protocol):
    """Runs a coroutine function until the fleet ends."""

    def __call__(self, work: Callable[..., Any], /, *args: Any) -> None: ...


class Elections:
    """The elections of one process; its fleet's event loop is where they are held."""

    def __init__(self, leases: Leases, owner: str, clock: Clock, spawn: Spawn) -> None:
        self._leases = leases
        self._owner = owner
        self._clock = clock
        self._spawn = spawn

    def hold(self, seat: Seat, lease: float) -> None:
        """Ask for the lease of a circuit, for a probe that takes so long."""
        self._spawn(self._elect, seat, min(lease, LONGEST_TERM))

    async def _elect(self, seat: Seat, ttl: float) -> None:
        shared, begun = seat.shared, self._clock.monotonic()
        try:
            answered, term = await in_time(self._leases.acquire(seat.lease, owner=self._owner, ttl=ttl), self._clock)
            with shared.lock:
                now = self._clock.monotonic()
                if not answered:
                    seat.circuit.elect(now + ALONE)
                elif term is None:
                    seat.circuit.stand_back(now + AGAIN)
                else:
                    seat.term, seat.ttl, seat.until, seat.used = term, ttl, begun + ttl, now
                    seat.circuit.elect(seat.until)
        finally:
            with shared.lock:
                seat.decided()

    def tend(self, seat: Seat, now: float) -> None:
        """Renew the lease while probes run, and give it back when none did for a while."""
        if seat.term is None:
            return
        with seat.shared.lock:
            if seat.circuit.probing(now):
                seat.used = now
            if now - seat.used >= UNUSED or now >= seat.until:
                term, seat.term = seat.term, None
                seat.circuit.elect(-inf)
                self._spawn(self.give_back, term)
            elif seat.until - now < seat.ttl / 2 and seat.used == now:
                self._spawn(self._renew, seat, seat.term)

    async def _renew(self, seat: Seat, term: Any) -> None:
        begun = self._clock.monotonic()
        answered, renewed = await in_time(self._leases.renew(term, ttl=seat.ttl), self._clock)
        with seat.shared.lock:
            if seat.term is not term or not answered:
                return
            if renewed:
                seat.until = begun + seat.ttl
                seat.circuit.elect(seat.until)
            else:
                seat.term = None
                seat.circuit.elect(-inf)

    async def give_back(self, term: Any) -> bool:
        """Let others have the lease; whether the store answered."""
        answered, _ = await in_time(self._leases.release(term), self._clock)
        return answered


async def in_time(question: Awaitable[Any], clock: Clock) -> tuple[bool, Any]:
    """Whether the store answered within the time it has, and what."""
    try:
        async with clock.timeout(WITHIN):
            return True, await question
    except Exception as error:  # the border to the store: whatever it is, each process can do without
        log.debug("the store did not answer: %s", type(error).__name__)
        return False, None
