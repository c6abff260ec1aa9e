"""Handlers whose effect commits with the end of their job: in the store's own database, in one transaction."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from sqlite3 import Connection
from typing import Any, Final, cast

from holdfast.clock import Clock
from holdfast.errors import ConfigurationError, StoreError
from holdfast.queue.events import QUEUE, Subscription, Subscriptions
from holdfast.queue.signals import TransactionSlow
from holdfast.resilience.context import Transaction, surroundings
from holdfast.resilience.policy import Priority
from holdfast.stores.store import Change, Job, Jobs, SupportsTransactions
from holdfast.telemetry import Telemetry

SLOW: Final = 1.0
"""Seconds: while a handler runs, nobody else writes to the store."""

INSIDE: Final = (inf, False, Priority.INTERACTIVE, Transaction(None))
"""What surrounds a change: a transaction that is open, and nothing of its caller's, who is in another thread."""


def check(jobs: Jobs, handler: Callable[..., Any], require: object) -> None:
    """Raises ConfigurationError: it cannot run in a transaction of this store."""
    if not isinstance(jobs, SupportsTransactions):
        raise ConfigurationError(
            "only a store in SQLite, sqlite:///…, runs handlers in its own transactions; "
            "leave transactional=True out, and write to your own database inside event.handled_in(session)"
        )
    if inspect.iscoroutinefunction(handler):
        raise ConfigurationError("a transactional handler is a plain function: def confirm(event, connection)")
    if require is not None:
        raise ConfigurationError("a transactional handler happens exactly once as it is; leave require= out")


class Transactional:
    """Runs them, many in a transaction."""

    def __init__(
        self, subscriptions: Subscriptions, jobs: Callable[[], Jobs], clock: Clock, telemetry: Telemetry
    ) -> None:
        self._subscriptions = subscriptions
        self._jobs = jobs
        self._clock = clock
        self._telemetry = telemetry
        self._slow: list[TransactionSlow] = []

    def takes(self, job: Job) -> bool:
        """Whether the job is one of theirs. Its end is then recorded by running it."""
        return self._find(job) is not None

    async def perform(self, job: Job) -> None:
        """Run the job's handler and record the job as done. Raises what the handler raised, and LeaseLost."""
        [failed] = await self.perform_each([job])
        if failed is not None:
            raise failed

    async def perform_each(self, taken: Sequence[Job]) -> list[Exception | None]:
        """Run the jobs' handlers and record the jobs as done; for each what stood in the way, None where it is done."""
        jobs = cast("SupportsTransactions", self._jobs())  # `check` has looked; here it would take as long as a job
        changes: list[tuple[Job, Change]] = [(job, partial(self._run, self._find(job), job)) for job in taken]
        results: list[Exception | None] = []
        while len(results) < len(changes):
            try:
                results += await jobs.complete_with(changes[len(results) :] if results else changes)
            except StoreError as error:  # what was recorded before stays so
                results += [error] * (len(changes) - len(results))
        self._tell()
        return results

    def _find(self, job: Job) -> Subscription | None:
        subscription = self._subscriptions.find(job.kind, job.handler) if job.queue == QUEUE else None
        return subscription if subscription is not None and subscription.transactional else None

    def _run(self, subscription: Subscription | None, job: Job, connection: Connection) -> None:
        """In the thread that writes, inside the transaction."""
        assert subscription is not None
        begun = self._clock.monotonic()
        surroundings.set(INSIDE)
        result = subscription.handler(subscription.event_of(job), connection)
        seconds = self._clock.monotonic() - begun
        if seconds > SLOW:
            self._slow.append(TransactionSlow(job.kind, job.handler, seconds))
        if result is not None and inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise ConfigurationError(f"{subscription.name} waits: a transactional handler is a plain function")

    def _tell(self) -> None:
        # Here and not inside the transaction: nobody knows what a sink does.
        slow, self._slow = self._slow, []
        for signal in slow:
            self._telemetry.emit(signal)
