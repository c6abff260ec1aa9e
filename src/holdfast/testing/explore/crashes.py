"""A program that may be killed at any await, and is started again."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from holdfast.testing.explore.history import History
from holdfast.testing.explore.stepping import Life, Place, Stepped

ResultT = TypeVar("ResultT")
DISPOSAL: Final = 60.0
"""Seconds what is left of killed programs has for its cleaning up, once nobody looks any more."""


class Notes(Protocol):
    """Where crashes and restarts are written down: a journal."""

    def note(self, kind: str, text: str = "", **facts: object) -> None:
        """Write one down."""
        ...


class Crashes:
    """Kills the programs given to `run` where the history says, as `kill -9` does: no `except`, no `finally`.

    What survives has to be made outside the program, and must not be a lock, queue or event of asyncio: what a dead
    program held stays held. Where no crash is planned and nobody watches, `run` is a plain call.
    """

    def __init__(self, history: History | None = None, *, journal: Notes | None = None) -> None:
        self.journal = journal
        self.awaits = 0
        """How often the programs have waited so far."""
        self.struck: set[int] = set()
        """The awaits at which one was killed."""
        self.places: list[Place] | None = None
        """Where they waited, in order; None where nobody watches."""
        self._planned = set(history.crashes if history is not None else ())
        self._lives: list[Life] = []
        self._receiver: Life | None = None
        self._told: Callable[[Life, Stepped], None] | None = None

    def at(self, *awaits: int) -> None:
        """Kill the program at these awaits, counted from 0 over all it does."""
        self._planned.update(awaits)

    def watch(self, *, told: Callable[[Life, Stepped], None] | None = None) -> None:
        """Number every await and remember where it is, also without a crash; each is told of."""
        self.places = []
        self._told = told

    async def run(self, program: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Run the program to its end; when it is killed, start it again."""
        if not self._active:
            return await program()
        while True:
            ended = await self._begin().run(program)
            if ended is not None:
                return ended.result()
            self._note("restart", "the program starts again")

    async def receive(self, call: Callable[[], Awaitable[ResultT]]) -> ResultT | int:
        """Have the receiver handle one webhook: its answer, or 0 where it was killed before it answered.

        All calls until it is killed are one process.
        """
        if not self._active:
            return await call()
        if self._receiver is None or self._receiver.dead:
            self._receiver = self._begin()
        ended = await self._receiver.run(call)
        return 0 if ended is None else ended.result()

    async def dispose(self) -> None:
        """Let go of what was killed; nobody looks any more."""
        try:
            for life in tuple(self._lives):
                await life.dispose(within=DISPOSAL)
        finally:
            self.close()

    def close(self) -> None:
        """The same, at once and also without an event loop."""
        lives, self._lives, self._receiver = self._lives, [], None
        for life in lives:
            life.close()

    @property
    def _active(self) -> bool:
        return bool(self._planned) or self.places is not None

    def _begin(self) -> Life:
        life = Life(self._suspended)
        self._lives.append(life)
        return life

    def _suspended(self, life: Life, stepped: Stepped) -> None:
        number = self.awaits
        self.awaits = number + 1
        if self.places is not None:
            self.places.append(stepped.place)
        if self._told is not None:
            self._told(life, stepped)
        if number in self._planned:
            self.struck.add(number)
            self._note("crash", f"killed at await {number}: {stepped.describe()}", at=number)
            life.kill()

    def _note(self, kind: str, text: str, **facts: object) -> None:
        if self.journal is not None:
            self.journal.note(kind, text, **facts)
