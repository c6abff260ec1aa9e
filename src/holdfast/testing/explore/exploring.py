"""The machine that finds the double charge: it runs a test again and again, and each time something else goes wrong."""

import gc
import inspect
import os
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, cast

from holdfast.testing.explore.history import History, Step
from holdfast.testing.explore.running import Limits, Parts, Ran, Test, run_history
from holdfast.testing.explore.search import Search
from holdfast.testing.explore.shrinking import shrink

_UNSTEADY: Final = (
    "\nRun again, it did not fail: beside the seed, a real clock, a thread, a file or the network decides."
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    tried: int
    """Histories run so far, those of the shrinking not among them."""
    histories: int
    """How many it will be at most."""
    found: History | None = None
    """The simplest failing history so far, while it is being shrunk."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A history in which the test fails, shrunk."""

    history: History
    error: BaseException = field(repr=False)
    """What the test raised in it."""
    timeline: str = field(repr=False)
    """What happened in it."""
    tried: int
    """How many histories it took to find one that fails."""
    runs: int
    """How many more to shrink it."""
    repeats: bool
    """False: run again it held, so that something else than the seed decides."""
    line: str
    """What to type to see it again."""

    def __str__(self) -> str:
        how_many = f"{len(self.history.steps)} step{'s' * (len(self.history.steps) != 1)}"
        return (
            f"history {self.tried} fails, with {how_many} when shrunk: {self.history}\n"
            f"{type(self.error).__name__}: {self.error}\n\n"
            f"what happened:\n{self.timeline}\n\n"
            f"see it again:\n{self.line}{'' if self.repeats else _UNSTEADY}"
        )


def explore(
    test: Test,
    histories: int = 500,
    seed: int = 7,
    *,
    world: Callable[[History], Parts] | None = None,
    progress: Callable[[Progress], object] | None = None,
    limits: Limits | None = None,
    name: str = "",
) -> Found | None:
    """Run the test until it fails, each time with other crashes, faults and webhooks; None: so many histories held.

    The test takes a `world`, or its parts by name: `fakes`, `faults`, `vclock`, `webhooks`, `crashes`, `ledger`. `name`
    is what pytest knows it by.

    Raises:
        BaseException: What the test raises when nothing goes wrong.
    """
    make, tell, limits = world or _world, progress or _nobody, limits or Limits()
    tried = 1
    first = run_history(test, History(seed), make, limits)
    if first.error is not None:
        raise first.error
    tell(Progress(tried, histories))
    search = Search(first, histories=histories)
    with left_behind_in_silence():
        for history in search:
            ran = run_history(test, history, make, limits)
            tried += 1
            tell(Progress(tried, histories))
            if ran.error is not None:
                return _shrunk(test, ran, make, limits, tell, Progress(tried, histories), name or named(test))
            search.learn(ran)
    return None


def replay(
    test: Test,
    history: History | str,
    seed: int = 7,
    *,
    world: Callable[[History], Parts] | None = None,
    limits: Limits | None = None,
) -> Ran:
    """Run the test once in this history; the history as text gets this seed.

    Raises:
        ValueError: The text is no history.
    """
    chosen = History.parse(history, seed=seed) if isinstance(history, str) else history
    with left_behind_in_silence(at_all=bool(chosen.crashes)):
        return run_history(test, chosen, world or _world, limits or Limits())


@contextmanager
def left_behind_in_silence(*, at_all: bool = True) -> Generator[None]:
    """What a killed program left open or never awaited is nobody's mistake, whenever it is found."""
    if not at_all:  # finding all of it takes longer than a history
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        warnings.simplefilter("ignore", ResourceWarning)
        gc.freeze()  # so that collecting looks at what is new only: a suite's other objects are many
        try:
            yield
        finally:
            gc.collect()
            gc.unfreeze()


def named(test: Test) -> str:
    """What pytest would call it: its file and its name."""
    filename = inspect.getsourcefile(inspect.unwrap(test))
    path = os.path.relpath(filename) if filename else "?"
    return f"{path}::{getattr(test, '__name__', test)}"


def _shrunk(
    test: Test,
    found: Ran,
    make: Callable[[History], Parts],
    limits: Limits,
    tell: Callable[[Progress], object],
    so_far: Progress,
    name: str,
) -> Found:
    simplest, runs = found, 0

    def fails(steps: tuple[Step, ...]) -> bool:
        nonlocal simplest, runs
        runs += 1
        ran = run_history(test, History(found.history.seed, steps), make, limits)
        if ran.failure != found.failure:
            return False
        simplest = ran
        tell(Progress(so_far.tried, so_far.histories, ran.history))
        return True

    tell(Progress(so_far.tried, so_far.histories, found.history))
    repeats = fails(found.history.steps)
    if repeats:
        shrink(found.history.steps, fails)
    assert simplest.error is not None
    return Found(
        history=simplest.history,
        error=simplest.error,
        timeline=simplest.timeline,
        tried=so_far.tried,
        runs=runs,
        repeats=repeats,
        line=f'pytest {name} --holdfast-seed={simplest.history.seed} --holdfast-replay="{simplest.history}"',
    )


def _world(history: History) -> Parts:
    from holdfast.testing.world import World

    return cast(Parts, World(seed=history.seed, history=history))


def _nobody(_progress: Progress) -> None:
    pass
