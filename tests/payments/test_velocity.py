"""How many payments one customer may begin in a while."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack

import pytest

from holdfast.errors import ConfigurationError, InvalidInput, NotSent, Throttled
from holdfast.outcome import Cause
from holdfast.payments.client import Payments
from holdfast.resilience import Rate
from holdfast.runtime import Runtime
from holdfast.stores import open_store
from holdfast.testing.clock import ManualClock
from holdfast.values import Money
from tests.payments.vendors import Vendor

DUE = Money("120.00", "CHF")
TWO_AN_HOUR = Rate(2, per=3600)
Open = Callable[..., Payments]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def process(tmp_path: object, clock: ManualClock, vendor: Vendor) -> Open:
    """Payments as another process would make them, on the same file."""

    def make(rate: Rate | None = TWO_AN_HOUR) -> Payments:
        store = open_store(f"sqlite:///{tmp_path}/shop.db", clock=clock)
        return Payments([vendor], runtime=Runtime(store, clock=clock), velocity=rate)

    return make


@pytest.fixture
async def payments(process: Open) -> AsyncGenerator[Payments]:
    async with process() as payments:
        yield payments


async def test_one_too_many_is_refused_before_anything_is_sent(payments: Payments, vendor: Vendor) -> None:
    for number in range(2):
        await payments.create(f"order-{number}", DUE, customer="ada")

    with pytest.raises(Throttled) as refused:
        await payments.create("order-2", DUE, customer="ada")

    assert str(refused.value) == "this customer began 2 payments within 1 hour; the next may begin in 1 hour"
    assert (refused.value.cause, refused.value.local, refused.value.retry_after) == (Cause.THROTTLED, True, 3600.0)
    assert len(vendor.requests) == 2
    assert "ada" not in str(refused.value)


async def test_each_customer_has_a_window_of_their_own(payments: Payments, vendor: Vendor) -> None:
    for customer in ("ada", "bob"):
        for number in range(2):
            await payments.create(f"{customer}-{number}", DUE, customer=customer)

    assert len(vendor.requests) == 4


async def test_the_window_slides(payments: Payments, clock: ManualClock) -> None:
    await payments.create("order-0", DUE, customer="ada")
    await clock.advance(1800)
    await payments.create("order-1", DUE, customer="ada")
    await clock.advance(1799)
    with pytest.raises(Throttled) as refused:
        await payments.create("order-2", DUE, customer="ada")
    await clock.advance(1)
    await payments.create("order-2", DUE, customer="ada")
    with pytest.raises(Throttled) as again:
        await payments.create("order-3", DUE, customer="ada")

    assert refused.value.retry_after == 1.0
    assert again.value.retry_after == 1800.0


async def test_the_same_reference_counts_once(payments: Payments) -> None:
    for _ in range(5):
        await payments.create("order-0", DUE, customer="ada")

    await payments.create("order-1", DUE, customer="ada")


async def test_the_same_reference_counts_once_also_where_nobody_could_make_an_offer(
    payments: Payments, vendor: Vendor
) -> None:
    await payments.switch("vendor", on=False, actor="ada", reason="their incident")
    for reference in ("order-0", "order-1", "order-0", "order-1"):
        with pytest.raises(NotSent):
            await payments.create(reference, DUE, customer="ada")
    await payments.switch("vendor", on=True, actor="ada", reason="over")

    await payments.create("order-0", DUE, customer="ada")
    await payments.create("order-1", DUE, customer="ada")

    assert len(vendor.requests) == 2


async def test_it_holds_over_processes_at_the_same_time(process: Open, clock: ManualClock, vendor: Vendor) -> None:
    async with AsyncExitStack() as stack:
        shops = [await stack.enter_async_context(process()) for _ in range(4)]
        ends = await asyncio.gather(
            *(shop.create(f"order-{number}", DUE, customer="ada") for number, shop in enumerate(shops)),
            return_exceptions=True,
        )

    assert sorted(isinstance(end, Throttled) for end in ends) == [False, False, True, True]
    assert len(vendor.requests) == 2


async def test_it_holds_over_a_restart(process: Open) -> None:
    async with process() as before:
        for number in range(2):
            await before.create(f"order-{number}", DUE, customer="ada")

    async with process() as after:
        with pytest.raises(Throttled):
            await after.create("order-2", DUE, customer="ada")
        assert (await after.create("order-1", DUE, customer="ada")).reference == "order-1"


async def test_renewing_begins_nothing(payments: Payments, clock: ManualClock) -> None:
    for number in range(2):
        await payments.create(f"order-{number}", DUE, customer="ada")
    await clock.advance(1500)
    await payments.refresh("order-0")

    renewed = await payments.renew("order-0")

    assert len(renewed.attempts) == 2


async def test_a_customer_has_to_be_named(payments: Payments, process: Open) -> None:
    with pytest.raises(InvalidInput, match="customer="):
        await payments.create("order-0", DUE)

    async with process(None) as unlimited:
        await unlimited.create("order-0", DUE)


async def test_nothing_that_is_kept_names_the_customer(payments: Payments) -> None:
    await payments.create("order-0", DUE, customer="ada@example.org")

    [record] = await payments._runtime.store.records.list("velocity")

    assert "ada" not in f"{record.key} {record.value}"


@pytest.mark.parametrize(
    ("rate", "why"), [(Rate(5, key=lambda: "x"), "leave its key out"), (Rate(1001), "1000 payments at most")]
)
def test_a_rate_that_cannot_be_kept_is_refused(process: Open, rate: Rate, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        process(rate)
