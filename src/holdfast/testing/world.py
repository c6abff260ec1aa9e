"""Everything one run of one program touches: vendors, faults, time, post and books, from one seed."""

from collections.abc import Sequence

from holdfast.clock import Clock
from holdfast.errors import ConfigurationError
from holdfast.testing.deliveries import Webhooks
from holdfast.testing.explore import Crashes, History
from holdfast.testing.faults import Faults
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Ledger
from holdfast.testing.vendors import Fakes
from holdfast.testing.virtual_clock import VirtualClock


class World:
    """One of each, made for each other; nothing of it outlives the run.

    Without a `clock` it has a `VirtualClock`. `providers` are the vendors the program may call: with `strict` a call
    to another one is a failure. `history` says where the program is killed.
    """

    def __init__(
        self,
        seed: int = 0,
        clock: Clock | None = None,
        providers: Sequence[str] | None = None,
        strict: bool = True,
        history: History | None = None,
    ) -> None:
        self.seed = seed
        self.strict = strict
        self.clock: Clock = clock or VirtualClock()
        self.history = history or History(seed)
        self.journal = Journal(self.clock)
        self.ledger = Ledger(self.clock, journal=self.journal)
        self.faults = Faults(seed, clock=self.clock)
        self.fakes = Fakes(
            seed=seed,
            clock=self.clock,
            faults=self.faults,
            ledger=self.ledger,
            journal=self.journal,
            providers=providers if strict else None,
        )
        self.webhooks = Webhooks(self.fakes.simulators, seed=seed, clock=self.clock, journal=self.journal)
        self.crashes = Crashes(self.history, journal=self.journal)

    @property
    def vclock(self) -> VirtualClock:
        """The clock, where it is a virtual one.

        Raises:
            ConfigurationError: It is not.
        """
        if not isinstance(self.clock, VirtualClock):
            raise ConfigurationError(f"time here is that of a {type(self.clock).__name__}")
        return self.clock

    def check(self) -> None:
        """Once the program has ended: whether every call went where it may.

        Raises:
            NotSimulated: With `strict`, one did not, whatever the program made of it.
        """
        if self.strict and self.fakes.strangers:
            raise self.fakes.strangers[0]
