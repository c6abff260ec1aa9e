"""What the queue tells about itself, beside the deliveries and jobs of `telemetry`."""

import logging
from dataclasses import dataclass
from typing import ClassVar

from holdfast.telemetry import Signal


@dataclass(frozen=True, slots=True)
class LoopBlocked(Signal):
    """The event loop stands still: a handler blocks it. Leases are kept meanwhile; nothing else goes on."""

    name: ClassVar[str] = "holdfast.loop_blocked"
    level: ClassVar[int] = logging.ERROR
    seconds: float
    where: str
    """The line that runs, `file:line function`."""


@dataclass(frozen=True, slots=True)
class HandlerOverran(Signal):
    """A handler goes on past its time limit; its lease is no longer kept, so the job will run elsewhere."""

    name: ClassVar[str] = "holdfast.handler_overran"
    level: ClassVar[int] = logging.ERROR
    queue: str
    kind: str
    handler: str


@dataclass(frozen=True, slots=True)
class NotHandledIn(Signal):
    """A handler that promises `handled_in` returned without it: its effect may happen twice."""

    name: ClassVar[str] = "holdfast.not_handled_in"
    level: ClassVar[int] = logging.ERROR
    kind: str
    handler: str


@dataclass(frozen=True, slots=True)
class TransactionSlow(Signal):
    """A transactional handler took over a second: meanwhile nobody else could write to the store."""

    name: ClassVar[str] = "holdfast.transaction_slow"
    level: ClassVar[int] = logging.WARNING
    kind: str
    handler: str
    seconds: float


@dataclass(frozen=True, slots=True)
class BacklogHigh(Signal):
    """More waits than should: `high`, or `refusing`, so much that vendors are asked to come again later."""

    name: ClassVar[str] = "holdfast.backlog"
    level: ClassVar[int] = logging.WARNING
    waiting: int
    state: str
    of: str = "backlog"
    """There is too much of this: `backlog`, jobs; `bytes`, of what waits; `disk`, in use."""

    @property
    def severity(self) -> int:
        return logging.ERROR if self.state == "refusing" else self.level


@dataclass(frozen=True, slots=True)
class OldSecretUsed(Signal):
    """A vendor still signs with a secret that was replaced: it is not yet time to take it out of the list."""

    name: ClassVar[str] = "holdfast.old_secret"
    provider: str
    number: int
    """Its place in `Secrets`: 1 is the one before the current one."""


@dataclass(frozen=True, slots=True)
class UpkeepFailed(Signal):
    """A provider could not fetch what it verifies with; it is tried again within a minute or so."""

    name: ClassVar[str] = "holdfast.upkeep_failed"
    level: ClassVar[int] = logging.WARNING
    provider: str
    why: str


@dataclass(frozen=True, slots=True)
class TakenOver(Signal):
    """The jobs of a process of this host that died were freed at once."""

    name: ClassVar[str] = "holdfast.taken_over"
    level: ClassVar[int] = logging.WARNING
    owner: str
    jobs: int


@dataclass(frozen=True, slots=True)
class FirstDead(Signal):
    """A handler has a dead letter, and had none before."""

    name: ClassVar[str] = "holdfast.first_dead"
    level: ClassVar[int] = logging.ERROR
    queue: str
    kind: str
    handler: str


@dataclass(frozen=True, slots=True)
class DeadRateHigh(Signal):
    """Many jobs became dead letters lately."""

    name: ClassVar[str] = "holdfast.dead_rate"
    level: ClassVar[int] = logging.ERROR
    jobs: int
    seconds: float
    """Within which they did."""


@dataclass(frozen=True, slots=True)
class WaitsLong(Signal):
    """A job of this queue has been due for long and was not begun: there are too few workers, or none."""

    name: ClassVar[str] = "holdfast.waits_long"
    level: ClassVar[int] = logging.WARNING
    queue: str
    seconds: float


@dataclass(frozen=True, slots=True)
class JobReplayed(Signal):
    """Somebody had an ended job run again."""

    name: ClassVar[str] = "holdfast.job_replayed"
    level: ClassVar[int] = logging.WARNING
    queue: str
    kind: str
    handler: str
    generation: int


@dataclass(frozen=True, slots=True)
class Redriven(Signal):
    """Somebody had many dead letters run again: `done`, or `stopped` because a canary failed again."""

    name: ClassVar[str] = "holdfast.redriven"
    level: ClassVar[int] = logging.WARNING
    result: str
    replayed: int
    skipped: int

    @property
    def severity(self) -> int:
        return logging.ERROR if self.result == "stopped" else self.level


@dataclass(frozen=True, slots=True)
class DeadDropped(Signal):
    """Somebody gave dead letters up."""

    name: ClassVar[str] = "holdfast.dead_dropped"
    level: ClassVar[int] = logging.WARNING
    jobs: int


@dataclass(frozen=True, slots=True)
class BodyRevealed(Signal):
    """Somebody looked at a job's body as it is."""

    name: ClassVar[str] = "holdfast.body_revealed"
    level: ClassVar[int] = logging.WARNING
    queue: str
    kind: str


@dataclass(frozen=True, slots=True)
class Purged(Signal):
    """Payloads of jobs that ended long ago were dropped."""

    name: ClassVar[str] = "holdfast.purged"
    jobs: int


@dataclass(frozen=True, slots=True)
class DeferredCallExpired(Signal):
    """A call could not be made before it expired, and was not made."""

    name: ClassVar[str] = "holdfast.outbox.expired"
    level: ClassVar[int] = logging.WARNING
    call: str
    key: str


@dataclass(frozen=True, slots=True)
class DeferredCallUnknown(Signal):
    """A call that must not be made twice may have been made; it is held as a dead letter until somebody decides."""

    name: ClassVar[str] = "holdfast.outbox.unknown"
    level: ClassVar[int] = logging.ERROR
    call: str
    key: str
    on_unknown: str


@dataclass(frozen=True, slots=True)
class DeferredCallConflict(Signal):
    """A call from the outbox table has the key of another one with another payload; it was dropped."""

    name: ClassVar[str] = "holdfast.outbox.conflict"
    level: ClassVar[int] = logging.ERROR
    call: str
    key: str


@dataclass(frozen=True, slots=True)
class OutboxRelayed(Signal):
    """Calls were moved from the outbox table to the queue."""

    name: ClassVar[str] = "holdfast.outbox.relayed"
    calls: int


@dataclass(frozen=True, slots=True)
class SlotsMissed(Signal):
    """Nobody was there to run recurring work when it was due; it is run once for all the slots that were missed."""

    name: ClassVar[str] = "holdfast.slots_missed"
    level: ClassVar[int] = logging.WARNING
    work: str
    slots: int


@dataclass(frozen=True, slots=True)
class Reconciled(Signal):
    """A vendor was asked what happened since the last time."""

    name: ClassVar[str] = "holdfast.reconciled"
    provider: str
    seen: int
    missed: int


@dataclass(frozen=True, slots=True)
class DeliveriesMissed(Signal):
    """A vendor knows of more than its webhooks told; it is in the queue now."""

    name: ClassVar[str] = "holdfast.deliveries_missed"
    level: ClassVar[int] = logging.WARNING
    provider: str
    missed: int
