"""The pytest plugin: fixtures, the marker `holdfast`, and what a failed test says.

Nothing of the test kit is imported before a test asks for it.
"""

import inspect
import os
import shlex
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, NoReturn
from zlib import crc32

import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.testing.deliveries import Webhooks
    from holdfast.testing.explore import Crashes, History, Progress
    from holdfast.testing.fake_server import FakeServer
    from holdfast.testing.faults import Faults
    from holdfast.testing.vendors import Fakes
    from holdfast.testing.virtual_clock import VirtualClock
    from holdfast.testing.world import World

MARKER: Final = (
    "holdfast(seed=None, providers=None, strict=True, explore=None): the test's seed; the vendors it may call, and "
    "whether a call to another one fails it; in how many histories of crashes, faults and deliveries it is run"
)
OF_A_WORLD: Final = ("fakes", "faults", "vclock", "webhooks", "crashes")
"""The fixtures every history has anew."""
LONGEST: Final = 60
"""Lines of the timeline under a failed test."""
EVERY: Final = 0.2
"""Seconds between two looks at an exploration."""

_WORLD: Final = pytest.StashKey["World"]()
_RUNNING: Final = pytest.StashKey[pytest.Item]()
_SERVER: Final = pytest.StashKey["FakeServer"]()
_IDLE: Final = "holdfast_idle"
_FOUND: Final = pytest.StashKey["_Found"]()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What markers and command line say about one test."""

    seed: int
    providers: Sequence[str] | None
    strict: bool
    explore: int
    """In so many histories; 0: it is an ordinary test."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is to say under a failure."""

    text: str
    again: str
    timeline: str


# Once per run


def pytest_addoption(parser: pytest.Parser) -> None:
    """The command line."""
    group = parser.getgroup("holdfast")
    add = group.addoption
    add("--holdfast-seed", type=int, metavar="N", help="the run's seed, from which each test's own follows; 0")
    add("--holdfast-explore", type=int, metavar="N", help="histories of each explored test, instead of its own number")
    add(
        "--holdfast-replay",
        metavar="STEPS",
        help="run explored tests in this one history, as a failure printed it, and --holdfast-seed is the test's own",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line("markers", MARKER)


def pytest_report_header(config: pytest.Config) -> str:
    """The seed, and how to have it again."""
    seed = _run_seed(config)
    return f"holdfast: seed {seed} (repeat with --holdfast-seed={seed})"


# Fixtures


@pytest.fixture
def fakes(_holdfast_world: "World") -> "Fakes":
    """The vendors, simulated: `fakes.stripe()`, `fakes.httpx()`, `fakes.transport`, `fakes.ledger`."""
    return _holdfast_world.fakes


@pytest.fixture
def faults(_holdfast_world: "World") -> "Faults":
    """What goes wrong at them: `faults.on("stripe", "payments.create").script(Reset(), None)`."""
    return _holdfast_world.faults


@pytest.fixture
def vclock(_holdfast_world: "World") -> "VirtualClock":
    """Their time, which jumps while everybody waits: `async with vclock.running(): ...`."""
    return _holdfast_world.vclock


@pytest.fixture
def webhooks(_holdfast_world: "World") -> "Webhooks":
    """What they owe: `await webhooks.to(app, "/hooks/stripe").deliver(duplicate=2, shuffle=True)`."""
    return _holdfast_world.webhooks


@pytest.fixture
def crashes(_holdfast_world: "World") -> "Iterator[Crashes]":
    """Where a program is killed: `await crashes.run(program)`."""
    yield _holdfast_world.crashes
    _holdfast_world.crashes.close()


@pytest.fixture(scope="session")
def fake_server(request: pytest.FixtureRequest) -> "Iterator[FakeServer]":
    """The same vendors on loopback sockets: `fake_server.url("stripe")`; they forget everything after each test."""
    from holdfast.testing.fake_server import FakeServer

    with FakeServer(_world(request.config.stash[_RUNNING]).fakes) as server:
        request.config.stash[_SERVER] = server
        yield server
        del request.config.stash[_SERVER]


@pytest.fixture
def _holdfast_world(request: pytest.FixtureRequest) -> "World":
    return _world(request.node)


def _world(item: pytest.Item) -> "World":
    """The test's own, made when first asked for."""
    if _WORLD not in item.stash:
        from holdfast.clock import SystemClock
        from holdfast.testing.world import World

        wishes = _wishes(item)
        # Whoever does not ask for virtual time may have code that looks at the machine's clock.
        virtual = wishes.explore or _uses(item, "vclock")
        if virtual and _uses(item, "fake_server"):
            _refuse(
                "the sockets of fake_server keep real time: under virtual time, use fakes.httpx() or fakes.transport"
            )
        clock = None if virtual else SystemClock()
        item.stash[_WORLD] = World(wishes.seed, clock=clock, providers=wishes.providers, strict=wishes.strict)
    return item.stash[_WORLD]


def _uses(item: pytest.Item, fixture: str) -> bool:
    return fixture in getattr(item, "fixturenames", ())


# One test


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What the session's server serves is this test's; what is explored is run by us."""
    item.config.stash[_RUNNING] = item
    server = item.config.stash.get(_SERVER, None)
    if server is not None and _uses(item, "fake_server"):
        server.show(_world(item).fakes)
    wishes = _wishes(item)
    if wishes.explore and isinstance(item, pytest.Function):
        # Not a new item: those of async plugins bring a loop, and an exploration has its own.
        vars(item)["runtest"] = partial(_explore, item, wishes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """A call that went astray fails the test, also where the program swallowed the error."""
    yield
    world = item.stash.get(_WORLD, None)
    if world is not None and _FOUND not in item.stash:
        world.check()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under a failure: the line that repeats it, and what happened."""
    report = yield
    world, found = item.stash.get(_WORLD, None), item.stash.get(_FOUND, None)
    if world is None:
        return report
    idle = [] if _wishes(item).explore else world.faults.idle
    if report.failed:
        again = _again(item, _run_seed(item.config))
        found = found or _Found("", again, world.fakes.explain(last=LONGEST))
        report.sections.append(("holdfast", _below(found, idle, str(call.excinfo and call.excinfo.value))))
    elif report.when == "call" and idle:
        setattr(report, _IDLE, idle)  # travels with the report, also from a worker of xdist
    return report


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """What was planned in tests that passed, and never came about."""
    reports = [report for of_one_kind in terminalreporter.stats.values() for report in of_one_kind]
    idle = [(report.nodeid, rule) for report in reports for rule in getattr(report, _IDLE, ())]
    if idle:
        terminalreporter.section("holdfast: planned, and never came about")
        for nodeid, rule in idle:
            terminalreporter.line(f"{nodeid}: {rule}")


def _below(found: _Found, idle: Sequence[str], error: str) -> str:
    """What stands below a failure; what its error tells already is not told again."""
    lines = [found.text] if found.text else []
    lines.append(f"repeat with: {found.again}")
    if idle:
        lines.append(f"planned, and never came about: {', '.join(idle)}")
    if found.timeline not in error:
        lines += ["", found.timeline]
    return "\n".join(lines)


def _again(item: pytest.Item, seed: int, *more: str) -> str:
    """The line that repeats the test as it was."""
    return shlex.join(["pytest", _address(item), f"--holdfast-seed={seed}", *more])


def _address(item: pytest.Item) -> str:
    """What pytest finds it by; not its node id, which is written from the root directory, and xdist adds to it."""
    return "::".join([os.path.relpath(item.path, item.config.invocation_params.dir), *_names(item)])


# Explored tests


def _explore(item: pytest.Function, wishes: Wishes) -> None:
    """Run the test in one history after the other, each in a world of its own."""
    from holdfast.testing.explore import History, explore, replay
    from holdfast.testing.world import World

    _refuse_fixtures(item)
    test = _in_a_world(item)

    def world(history: History) -> Any:
        item.stash[_WORLD] = made = World(
            history.seed, providers=wishes.providers, strict=wishes.strict, history=history
        )
        return made

    steps = item.config.getoption("holdfast_replay")
    if steps is not None:
        try:
            history = History.parse(steps, seed=wishes.seed)
        except ValueError as error:
            pytest.fail(f"--holdfast-replay: {error}", pytrace=False)
        ran = replay(test, history, world=world)
        if ran.error is not None:
            _tell(item, history, f"in the history: {history}", ran.timeline)
            raise ran.error
        return
    with _progress(item) as progress:
        found = explore(test, wishes.explore, wishes.seed, world=world, progress=progress)
    if found is not None:
        text = f"history {found.tried} of {wishes.explore} fails; shrunk to: {found.history}"
        _tell(item, found.history, text, found.timeline)
        raise found.error


def _tell(item: pytest.Item, history: "History", text: str, timeline: str) -> None:
    again = _again(item, history.seed, f"--holdfast-replay={history}")
    item.stash[_FOUND] = _Found(text, again, "\n".join(timeline.splitlines()[-LONGEST:]))


def _in_a_world(item: pytest.Function) -> "Callable[[World], Awaitable[None]]":
    """The test, to be given the fixtures of another world."""
    arguments = {name: item.funcargs[name] for name in inspect.signature(item.obj).parameters if name in item.funcargs}

    async def run(world: "World") -> None:
        ours = {name: getattr(world, name) for name in arguments if name in OF_A_WORLD}
        result = item.obj(**(arguments | ours))
        if inspect.isawaitable(result):
            await result
        world.check()

    return run


def _refuse_fixtures(item: pytest.Function) -> None:
    """Those that cannot be had in an explored test."""
    known: Any = vars(item)["_fixtureinfo"]  # has no public name
    for name, definitions in known.name2fixturedefs.items():
        fixture = definitions[-1]
        if fixture.func.__module__ == __name__:
            continue
        if depends := sorted({*OF_A_WORLD} & {*fixture.argnames}):
            _refuse(
                f"the fixture {name!r} uses {depends[0]!r}, which an explored test has anew in every history: make "
                f"what {name!r} gives in the test, by a plain function of {depends[0]!r}"
            )
        if fixture.scope == "function" and _is_async(inspect.unwrap(fixture.func)):  # plugins wrap it
            _refuse(
                f"the async fixture {name!r} belongs to another event loop than the histories of an explored test: "
                f"make what it gives in the test, `async with` for what has to be closed"
            )


def _refuse(text: str) -> NoReturn:
    pytest.fail(text, pytrace=False)


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


@contextmanager
def _progress(item: pytest.Item) -> "Generator[Callable[[Progress], None]]":
    """On a terminal, one line that says how far it is, gone at the end."""
    terminal: Any = item.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or not terminal.isatty or hasattr(item.config, "workerinput"):
        yield _say_nothing
        return
    from holdfast.clock import SystemClock

    clock, told = SystemClock(), -inf
    begun = False

    def tell(progress: "Progress") -> None:
        nonlocal told, begun
        if clock.monotonic() - told < EVERY:
            return
        told = clock.monotonic()
        if not begun:
            terminal.ensure_newline()
            begun = True
        how = f"{progress.tried} of {progress.histories} histories"
        if progress.found is not None:
            how = f"history {progress.tried} fails; shrinking: {progress.found}"
        terminal.rewrite(f"{item.name}: {how}"[: terminal._tw.fullwidth - 1], erase=True)

    try:
        yield tell
    finally:
        if begun:
            terminal.rewrite("", erase=True)
            terminal.rewrite("")
            terminal.currentfspath = None


def _say_nothing(progress: "Progress") -> None:
    pass


# What the test asks for


def _wishes(item: pytest.Item) -> Wishes:
    said: dict[str, Any] = {}
    for marker in item.iter_markers("holdfast"):  # the closest first
        try:
            _marked(*marker.args, **marker.kwargs)
        except TypeError as error:
            text = str(error).replace("_marked()", "@pytest.mark.holdfast")
            _refuse(f"{text}; it is {MARKER}")
        said = {**marker.kwargs, **said}
    explored, instead = said.get("explore") or 0, item.config.getoption("holdfast_explore")
    seed = said.get("seed")
    if seed is None:
        seed = _seed(item)
    if item.config.getoption("holdfast_replay") is not None and item.config.getoption("holdfast_seed") is not None:
        seed = _run_seed(item.config)  # what a failure printed is the test's own
    return Wishes(
        seed=seed,
        providers=said.get("providers"),
        strict=said.get("strict", True),
        explore=instead if explored and instead is not None else explored,
    )


def _marked(
    *,
    seed: int | None = None,
    providers: Sequence[str] | None = None,
    strict: bool = True,
    explore: int | None = None,
) -> None:
    """The form of the marker."""


def _seed(item: pytest.Item) -> int:
    run = _run_seed(item.config)
    if _uses(item, "fake_server"):
        return run  # the accounts at the server are those of the whole run
    # Its names, not its path, which reads differently from another working directory.
    return crc32(":".join([str(run), item.path.name, *_names(item)]).encode())


def _run_seed(config: pytest.Config) -> int:
    return config.getoption("holdfast_seed") or 0


def _names(item: pytest.Item) -> list[str]:
    """Of its classes and its own."""
    return [node.name for node in item.listchain() if isinstance(node, pytest.Class | pytest.Item)]
