"""Named places at which a process kills itself: it is told by its environment, and asks from outside of holdfast."""

import os
import signal
import time
from dataclasses import dataclass
from typing import Final, Self

from chaos.journal import Journal

VARIABLE: Final = "HOLDFAST_CHAOS_CRASH"
"""`mark.after:3`: right after the third job was recorded as done."""

PLACES: Final = ("append", "commit", "ack", "claim", "effect", "mark", "prune", "checkpoint")
SIDES: Final = ("before", "after")
OF_RECEIVER: Final = ("append", "commit", "ack")
OF_WORKER: Final = ("commit", "claim", "effect", "mark")
OF_PRUNER: Final = ("prune", "checkpoint")


@dataclass(slots=True)
class Points:
    """Counts down to the place where this process is to end."""

    journal: Journal
    place: str = ""
    left: int = 0

    @classmethod
    def from_environment(cls, journal: Journal) -> Self:
        """What the variable says; nothing where it is not set."""
        place, _, times = os.environ.get(VARIABLE, "").partition(":")
        return cls(journal, place, int(times or 1))

    def reach(self, place: str) -> None:
        """The process is at this place, and may not leave it."""
        if place != self.place:
            return
        self.left -= 1
        if self.left == 0:
            self.journal.write("died", pid=os.getpid(), at=time.monotonic(), how=place)
            os.kill(os.getpid(), signal.SIGKILL)


def every(places: tuple[str, ...]) -> list[str]:
    """Both sides of these."""
    return [f"{place}.{side}" for place in places for side in SIDES]
