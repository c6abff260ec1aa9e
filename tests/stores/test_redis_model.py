"""Random histories: Redis answers as the memory store does, in one partition and in several."""

import asyncio
from dataclasses import replace
from typing import ClassVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from holdfast.stores import JobState, NewJob, open_store
from holdfast.testing.clock import ManualClock
from tests.servers.redis import RedisServer
from tests.stores.test_jobs_model import Histories, jobs

pytestmark = pytest.mark.unmeasured


class RedisHistories(Histories):
    """The same thing happens to the memory store and to Redis."""

    url: ClassVar[str]

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        urls = ("memory://", f"{self.url}&namespace={uuid4().hex}")
        self.stores = [open_store(url, clock=self.clock) for url in urls]
        for store in self.stores:
            self.run(store.__aenter__())
        self.held = []
        self.tokens = {}

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            for store in self.stores:
                self.run(store.__aexit__(None, None, None))
            self.runner.close()

    @rule(new=st.lists(jobs, min_size=1, max_size=3))
    def add(self, new: list[NewJob]) -> None:
        if "partitions=1" in self.url:
            return super().add(new)
        # An ordering key follows from the key, as it does where both come from one delivery.
        orders = {"a": "k", "b": "k", "c": "k", "d": "l", "e": "l"}
        return super().add([replace(job, ordering_key=orders.get(job.key, "")) for job in new])

    @rule(
        older_than=st.sampled_from([0.0, 5.0, 30.0]),
        states=st.sampled_from([[JobState.DONE, JobState.IGNORED], [JobState.DEAD], [*JobState]]),
    )
    def purge(self, older_than: float, states: list[JobState]) -> None:
        # With a limit, what ended at one moment in several partitions goes in no promised order.
        return super().purge(older_than=older_than, states=states, one_by_one=False)


@pytest.mark.parametrize("partitions", [1, 3])
def test_redis_answers_as_the_memory_store_does(redis_server: RedisServer, partitions: int) -> None:
    histories = type("Histories", (RedisHistories,), {"url": f"{redis_server.store_url}&partitions={partitions}"})

    run_state_machine_as_test(
        histories,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
