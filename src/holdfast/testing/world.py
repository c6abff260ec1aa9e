"""Everything one run of one program touches: vendors, faults, time, post and books, from one seed."""

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from holdfast.clock import Clock
from holdfast.testing.faults import Faults
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Ledger
from holdfast.testing.vendors import Fakes

if TYPE_CHECKING:
    from holdfast.testing.deliveries import Webhooks
    from holdfast.testing.explore import Crashes, History
    from holdfast.testing.virtual_clock import VirtualClock


class World:
    """One of each, made for each other; nothing of it outlives the run.

    `providers` are the vendors the program may call: with `strict` a call to another one is a failure.
    """

    def __init__(
        self,
        seed: int = 0,
        clock: Clock | None = None,
        providers: Sequence[str] | None = None,
        strict: bool = True,
        history: "History | None" = None,
    ) -> None:
        self.seed = seed
        self.strict = strict
        self._clock = clock
        self._history = history
        self.journal = _make(Journal, self.clock)
        self.ledger = _make(Ledger, self.clock, journal=self.journal)
        self.faults = _make(Faults, seed, clock=self.clock)
        self.fakes = Fakes(
            seed=seed,
            clock=self.clock,
            faults=self.faults,
            ledger=self.ledger,
            journal=self.journal,
            providers=providers if strict else None,
        )

    @property
    def clock(self) -> Clock:
        """The one clock of all of it."""
        return self._clock or self.vclock

    @cached_property
    def vclock(self) -> "VirtualClock":
        """The clock, where it is a virtual one."""
        from holdfast.testing.virtual_clock import VirtualClock

        return VirtualClock()

    @cached_property
    def history(self) -> "History":
        """What goes wrong in this run, beyond the plans of `faults`."""
        from holdfast.testing.explore import History

        return self._history or History(self.seed, ())

    @cached_property
    def webhooks(self) -> "Webhooks":
        """What the vendors owe, and how it is delivered."""
        from holdfast.testing.deliveries import Webhooks

        return Webhooks(self.fakes.simulators, seed=self.seed, clock=self.clock, journal=self.journal)

    @cached_property
    def crashes(self) -> "Crashes":
        """Where the program may be killed."""
        from holdfast.testing.explore import Crashes

        return Crashes(self.history, journal=self.journal)

    def check(self) -> None:
        """Once the program has ended: whether every call went where it may.

        Raises:
            NotSimulated: With `strict`, one did not, whatever the program made of it.
        """
        if self.strict and self.fakes.strangers:
            raise self.fakes.strangers[0]


def _make(kind: Any, *arguments: object, **named: object) -> Any:
    """While the parts learn to know one another."""
    known = inspect.signature(kind).parameters
    return kind(*arguments, **{name: value for name, value in named.items() if name in known})
