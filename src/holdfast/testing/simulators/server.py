"""The simulated vendors as a server: each on a port of its own, one ledger, one journal, one seed, and an admin."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from types import TracebackType
from typing import Final, NoReturn, Self

from holdfast.clock import Clock, SystemClock
from holdfast.errors import InvalidInput
from holdfast.testing.deliveries import Webhooks
from holdfast.testing.faults import FaultPlan, Faults, Latency
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Ledger
from holdfast.testing.scenario import CALM, Scenario
from holdfast.testing.simulators import installed_simulators, load_simulator
from holdfast.testing.simulators.admin import Admin
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.listener import HOST
from holdfast.testing.simulators.post import Poster
from holdfast.testing.simulators.sdks import pointing
from holdfast.testing.simulators.simulator import Simulator, Webhook
from holdfast.testing.simulators.smtp import SmtpSimulator
from holdfast.testing.simulators.webhooks import Sent, WebhookSimulator

JOURNAL: Final = 20_000
"""Calls, effects and webhooks the server remembers; older ones are forgotten."""
LAST_PORT: Final = 65_535
TIDY_EVERY: Final = 10.0
"""Seconds."""


class UnknownVendor(InvalidInput, LookupError):
    """There is no simulator of that name; the message says what there is."""


class PortTaken(OSError):
    """Somebody listens there already; the message says where, and for whom it was meant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """One vendor, as its customer sees it."""

    url: str
    credentials: Mapping[str, str]
    client: str
    """The line of code, or the settings, that point a client at it."""


def known_vendors() -> list[str]:
    """Every vendor that can be served."""
    return sorted([*installed_simulators(), SmtpSimulator.vendor])


def check_vendors(names: Sequence[str]) -> None:
    """Look whether there are simulators of all of them.

    Raises:
        UnknownVendor: There is none of one of them.
    """
    known = known_vendors()
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UnknownVendor(f"no simulator of {name!r}: {hint}there are {', '.join(known)}")


class Server:
    """`async with Server(["stripe", "telegram"], seed=7) as server: server.vendors["stripe"].url`.

    Each vendor has a port of its own, from `port` upwards in the order of their names here, so that a refused
    connection is refused by that vendor alone. The admin answers under `/__fake/` on all of them, and on one more port
    behind them that no fault ever closes.

    What the vendors hold, and the ledger, grow until `reset`, as with the vendors themselves; all else is bounded.
    """

    def __init__(
        self,
        providers: Sequence[str],
        *,
        seed: int | None = None,
        scenario: Scenario = CALM,
        latency: Latency | None = None,
        webhook_base: str = "",
        hold_webhooks: bool = False,
        host: str = HOST,
        port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        """`webhook_base`, and behind it `/` and the vendor's name, is where account-wide webhooks go.

        With `hold_webhooks` none is sent before `deliver` is asked to. Without a seed it is the scenario's, or 0.

        Raises:
            UnknownVendor: There is no simulator of one of the providers, or of a vendor the scenario names.
            UnknownOperation: The scenario names an operation that its vendor does not have.
            ValueError: There are not that many ports.
        """
        names = list(dict.fromkeys(providers))
        check_vendors(names)
        self.clock: Clock = clock or SystemClock()
        self.journal = Journal(self.clock, limit=JOURNAL)
        self.ledger = Ledger(self.clock, journal=self.journal)
        check_vendors(sorted(scenario.vendors))
        self.faults = scenario.faults(seed, clock=self.clock)
        self._mischief = scenario.mischief(names)
        if latency is not None:
            self.faults.on("*").always(latency)
        self._host, self._ports = host, _ports(port, len(names) + 1)
        self._names = names
        self.simulators = {
            name: self._simulator(name, webhook_base.rstrip("/")) for name in names if name != SmtpSimulator.vendor
        }
        for name, simulator in self.simulators.items():
            simulator.at_most = scenario.rate(name)
        self._holds_webhooks = hold_webhooks
        self._start_webhooks()
        self.vendors: dict[str, Served] = {}
        """By name, once it is entered."""
        self.admin = ""
        """The admin's own address, once it is entered."""
        self._admin = Admin(self)
        self._stack = AsyncExitStack()
        self._tasks = asyncio.TaskGroup()
        self._delivering: asyncio.Task[NoReturn] | None = None

    @property
    def seed(self) -> int:
        return self.faults.seed

    def to_json(self) -> dict[str, object]:
        """Where everybody is, as plain data."""
        vendors = {name: asdict(served) for name, served in self.vendors.items()}
        return {"admin": self.admin, "seed": self.seed, "vendors": vendors}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for name, port in zip(self._names, self._ports, strict=False):
                self.vendors[name] = await self._open(stack, name, port)
            edge = Edge(self._admin, host=self._host, port=self._ports[-1], admin=self._admin)
            await _enter(stack, edge, "the admin", self._ports[-1])
            self.admin = edge.url
            self._tasks = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(self._stop_webhooks)
            self._deliver_from_now_on()
            stack.callback(self._tasks.create_task(self._tidy()).cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(None, None, None)

    def reset(self, *, seed: int | None = None) -> None:
        """Forget everything that happened; plans stay. With a seed, go on as if started with it."""
        if seed is not None:
            self.faults.seed = seed
        self._stop_webhooks()
        for simulator in self.simulators.values():
            simulator.seed = self.seed
            simulator.reset()
        self.ledger.clear()
        self.journal.clear()
        self.faults.reset()
        self._start_webhooks()
        self._deliver_from_now_on()

    def plan(self, plan: FaultPlan) -> None:
        """Plan more faults: all of them, or none where one of them can never strike.

        Raises:
            UnknownVendor: A rule is about a vendor that is not served here.
            UnknownOperation: A rule is about what its vendor cannot do.
        """
        for rule in plan.rules:
            if rule.vendor not in ("*", *self._names):
                raise UnknownVendor(f"no vendor {rule.vendor!r} here: there are {', '.join(self._names)}")
        trial = Faults()
        for name, simulator in self.simulators.items():
            trial.meet(name, simulator.operations, self.clock)
        trial.take(plan)
        self.faults.take(plan)

    def calm(self) -> None:
        """No faults and no mischief from now on; what happened stays."""
        self.faults.calm()
        self._mischief = {}
        self.live.calm()

    @property
    def sent(self) -> list[Sent]:
        """Every webhook sent, by the vendors or on demand, in order."""
        return sorted([*self.live.sent, *self.webhooks.sent], key=lambda sent: sent.at)

    @property
    def dropped(self) -> list[Webhook]:
        """What was never sent."""
        return [*self.live.dropped, *self.webhooks.dropped]

    def _start_webhooks(self) -> None:
        self.webhooks = Webhooks(self.simulators, seed=self.seed, clock=self.clock, journal=self.journal, waits=False)
        """Sends on demand."""
        self.live = WebhookSimulator(
            list(self.simulators.values()),
            Poster(clock=self.clock),
            mischief=self._mischief,
            seed=self.seed,
            clock=self.clock,
            journal=self.journal,
        )
        """Sends by itself, as vendors do."""

    def _deliver_from_now_on(self) -> None:
        if not self._holds_webhooks:
            self._delivering = self._tasks.create_task(self.live.run())

    async def _tidy(self) -> NoReturn:
        """A server may run for weeks: of what was sent it remembers as much as of what it was asked."""
        while True:
            await self.clock.sleep(TIDY_EVERY)
            for remembered in (self.live.sent, self.webhooks.sent):
                del remembered[:-JOURNAL]
            for dropped in (self.live.dropped, self.webhooks.dropped):
                del dropped[:-JOURNAL]

    def _stop_webhooks(self) -> None:
        if self._delivering is not None:
            self._delivering.cancel()

    def _simulator(self, name: str, webhook_base: str) -> Simulator:
        simulator = load_simulator(name)(
            seed=self.seed,
            ledger=self.ledger,
            faults=self.faults,
            journal=self.journal,
            clock=self.clock,
            webhook_url=f"{webhook_base}/{name}" if webhook_base else "",
        )
        secret = {text for part, text in simulator.credentials.items() if part.endswith(("key", "secret", "token"))}
        self.journal.conceal(*secret)
        return simulator

    async def _open(self, stack: AsyncExitStack, name: str, port: int) -> Served:
        if name == SmtpSimulator.vendor:
            mail = SmtpSimulator(
                seed=self.seed, ledger=self.ledger, faults=self.faults, clock=self.clock, host=self._host, port=port
            )
            await _enter(stack, mail, name, port)
            return Served(url=mail.url, credentials={}, client=pointing(name, mail.url, {}))
        edge = Edge(self.simulators[name], host=self._host, port=port, admin=self._admin)
        await _enter(stack, edge, name, port)
        credentials = dict(self.simulators[name].credentials)
        return Served(url=edge.url, credentials=credentials, client=pointing(name, edge.url, credentials))


def _ports(first: int, count: int) -> list[int]:
    """All 0, for any free ones, or one after the other."""
    if first + count - 1 > LAST_PORT:
        raise ValueError(f"there are no {count} ports from {first} upwards: the last is {LAST_PORT}")
    return [first + number if first else 0 for number in range(count)]


async def _enter(stack: AsyncExitStack, opening: Edge | SmtpSimulator, name: str, port: int) -> None:
    try:
        await stack.enter_async_context(opening)
    except OSError as error:
        raise PortTaken(error.errno, f"cannot listen on port {port}, for {name}: {error.strerror}") from error
