"""Random histories: SQLite answers as the memory store does, and the invariants of the queue hold in both."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from holdfast.errors import HoldfastError
from holdfast.stores import Job, JobFilter, JobState, NewJob, Store, open_store
from holdfast.testing.clock import ManualClock

QUEUES = ["deliveries", "events"]
NAMES = "abcdefgh"
KEYS = len(QUEUES) * len(NAMES)
LEASE = 10.0

jobs = st.builds(
    NewJob,
    queue=st.sampled_from(QUEUES),
    key=st.sampled_from(NAMES),
    kind=st.just("stripe"),
    digest=st.sampled_from(["1", "1", "1", "2"]),
    ordering_key=st.sampled_from(["", "k", "l"]),
    delay=st.sampled_from([0.0, 0.0, 5.0]),
    ignored=st.sampled_from([False, False, False, True]),
)
filters = st.builds(
    JobFilter,
    queue=st.sampled_from([None, None, *QUEUES]),
    state=st.sampled_from([None, None, *JobState]),
    reason=st.sampled_from([None, None, "", "permanent"]),
    error=st.sampled_from([None, None, "go", "late"]),
)


class Histories(RuleBasedStateMachine):
    """The same thing happens to both stores."""

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        file = Path(self.directory.name) / "store.db"
        self.stores = [open_store(url, clock=self.clock) for url in ("memory://", f"sqlite:///{file}")]
        for store in self.stores:
            self.run(store.__aenter__())
        self.held: list[tuple[Job, ...]] = []
        self.tokens: dict[tuple[str, str], int] = {}
        self.running: Counter[tuple[str, str]] = Counter()

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            for store in self.stores:
                self.run(store.__aexit__(None, None, None))
            self.runner.close()
            self.directory.cleanup()

    @rule(new=st.lists(jobs, min_size=1, max_size=3))
    def add(self, new: list[NewJob]) -> None:
        self.both(lambda store, _: store.jobs.add(new))

    @rule(queues=st.sampled_from([QUEUES, QUEUES[:1], QUEUES[1:]]), limit=st.integers(1, 3))
    def claim(self, queues: list[str], limit: int) -> None:
        claimed = self.both(lambda store, _: store.jobs.claim(queues, owner="a", limit=limit, lease=LEASE), show=many)
        for pair in zip(*claimed, strict=True):
            job = pair[0]
            assert job.token > self.tokens.get((job.queue, job.key), 0)
            self.tokens[job.queue, job.key] = job.token
            self.held.append(pair)

    @rule(pick=st.integers(0, 100), verb=st.sampled_from(["complete", "ignore", "bury", "retry", "snooze"]))
    def end(self, pick: int, verb: str) -> None:
        options: dict[str, dict[str, Any]] = {
            "bury": {"reason": "permanent", "error": "gone"},
            "retry": {"after": 3.0, "error": "late"},
            "snooze": {"after": 3.0},
        }
        self.on_held(pick, lambda store, job: getattr(store.jobs, verb)(job, **options.get(verb, {})))

    @rule(pick=st.integers(0, 100))
    def heartbeat(self, pick: int) -> None:
        async def lost(store: Store, job: Job) -> bool:
            return bool(await store.jobs.heartbeat([job], lease=LEASE))

        self.on_held(pick, lost)

    @rule(pick=st.integers(0, 100), generation=st.sampled_from([None, None, 0, 1]))
    def replay(self, pick: int, generation: int | None) -> None:
        self.on_held(pick, lambda store, job: store.jobs.replay(job.id, generation=generation), show=one)

    @rule(pick=st.integers(0, 100), generation=st.sampled_from([None, 0, 1]))
    def drop(self, pick: int, generation: int | None) -> None:
        self.on_held(pick, lambda store, job: store.jobs.drop(job.id, generation=generation))
        self._forget_tokens_of_dropped_jobs()

    @rule(where=filters, limit=st.integers(0, 3), newest=st.booleans())
    def page(self, where: JobFilter, limit: int, newest: bool) -> None:
        async def two_pages(store: Store) -> list[Job]:
            first = await store.jobs.list(where, limit=limit, newest=newest)
            after = first[-1].id if first else ""
            return [*first, *await store.jobs.list(where, after=after, limit=limit, newest=newest)]

        self.both(lambda store, _: two_pages(store), show=many)

    @rule()
    def release(self) -> None:
        self.both(lambda store, _: store.jobs.release("a"))

    @rule(
        older_than=st.sampled_from([0.0, 5.0, 30.0]),
        states=st.sampled_from([[JobState.DONE, JobState.IGNORED], [JobState.DEAD], [*JobState]]),
        one_by_one=st.booleans(),
    )
    def purge(self, older_than: float, states: list[JobState], one_by_one: bool) -> None:
        # Which of the keys that were dropped at once is forgotten first is nobody's promise: so always until all are.
        limits = [1] * 2 * KEYS if one_by_one else [1000]
        for limit in limits:
            self.both(lambda store, _, limit=limit: store.jobs.purge(older_than=older_than, states=states, limit=limit))
            self.both(lambda store, _: store.jobs.list(), show=many)
        self._forget_tokens_of_dropped_jobs()

    def _forget_tokens_of_dropped_jobs(self) -> None:
        kept = {(job.queue, job.key) for job in self.run(self.stores[0].jobs.list())}
        self.tokens = {key: token for key, token in self.tokens.items() if key in kept}

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0]))
    def pass_time(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))

    @invariant()
    def both_hold_the_same(self) -> None:
        if hasattr(self, "runner"):
            [held, _] = self.both(lambda store, _: store.jobs.list(), show=many)
            self.both(lambda store, _: store.jobs.count())
            running = Counter((job.queue, job.ordering_key) for job in held if job.state is JobState.LEASED)
            assert all(count == 1 for (_, ordering_key), count in running.items() if ordering_key)
            assert all(job.losses < 3 or job.reason == "poison" for job in held)
            assert all((job.state is JobState.DEAD) == bool(job.reason) for job in held)

    def on_held(self, pick: int, verb: Any, show: Any = None) -> None:
        if self.held:
            pair = self.held[pick % len(self.held)]
            self.both(lambda store, number: verb(store, pair[number]), show=show)

    def both(self, verb: Any, show: Any = None) -> list[Any]:
        """What both answer, which is the same but for the ids."""
        answers = [self.run(answer(verb(store, number))) for number, store in enumerate(self.stores)]
        shown = [show(each) if show and not isinstance(each, type) else each for each in answers]
        assert shown[0] == shown[1]
        return answers

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)


async def answer(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    except HoldfastError as error:
        return type(error)


def one(job: Job) -> Job:
    return replace(job, id="")


def many(jobs: list[Job]) -> list[Job]:
    return [one(job) for job in jobs]


Histories.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestHistories = Histories.TestCase
