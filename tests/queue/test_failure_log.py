"""What the worker writes about a failure: a traceback of a handler's, one quiet line about what is nobody's fault."""

import logging
from random import Random

import pytest

from holdfast.errors import NotFound
from holdfast.queue.worker import Result, Worker
from holdfast.stores import open_store
from holdfast.stores.store import Job, NewJob
from holdfast.telemetry import Telemetry
from holdfast.testing.clock import ManualClock


async def fail(job: NewJob, error: Exception) -> None:
    """The job's one run ends with the error."""

    async def perform(_job: Job) -> Result:
        raise error

    clock = ManualClock()
    async with open_store("memory://", clock=clock) as store:
        await store.jobs.add([job])
        await Worker(
            store.jobs,
            perform,
            queues=[job.queue],
            owner="one",
            clock=clock,
            chance=Random(1),
            telemetry=Telemetry([]),
        ).run_once()


async def test_a_delivery_about_something_unknown_is_one_quiet_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "holdfast.worker")

    await fail(NewJob(queue="deliveries", key="1", kind="stripe"), NotFound("payment", "that stripe calls cs_1"))

    [record] = caplog.records
    assert record.levelname == "INFO"
    assert (
        record.getMessage()
        == "stripe told of what is not known here: NotFound: there is no payment that stripe calls cs_1"
    )


async def test_a_delivery_that_fails_otherwise_has_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    await fail(NewJob(queue="deliveries", key="1", kind="stripe"), ValueError("a bug"))

    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("a delivery of stripe failed\nTraceback")


async def test_a_handler_that_finds_nothing_has_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    job = NewJob(queue="events", key="1", kind="payment.paid", handler="confirm")

    await fail(job, NotFound("booking", "4711"))

    [record] = caplog.records
    assert record.getMessage().startswith("handler confirm of payment.paid failed\nTraceback")


@pytest.mark.parametrize("queue", ["calls", "timers"])
async def test_a_function_of_yours_that_finds_nothing_has_a_traceback(
    caplog: pytest.LogCaptureFixture, queue: str
) -> None:
    await fail(NewJob(queue=queue, key="1", kind="tidy-up"), NotFound("booking", "4711"))

    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("a run of tidy-up failed\nTraceback")
