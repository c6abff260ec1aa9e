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
class BacklogHigh(Signal):
    """More jobs wait than should: `high`, or `refusing`, so many that vendors are asked to come again later."""

    name: ClassVar[str] = "holdfast.backlog"
    level: ClassVar[int] = logging.WARNING
    waiting: int
    state: str

    @property
    def severity(self) -> int:
        return logging.ERROR if self.state == "refusing" else self.level


@dataclass(frozen=True, slots=True)
class TakenOver(Signal):
    """The jobs of a process of this host that died were freed at once."""

    name: ClassVar[str] = "holdfast.taken_over"
    level: ClassVar[int] = logging.WARNING
    owner: str
    jobs: int


@dataclass(frozen=True, slots=True)
class Purged(Signal):
    """Payloads of jobs that ended long ago were dropped."""

    name: ClassVar[str] = "holdfast.purged"
    jobs: int
