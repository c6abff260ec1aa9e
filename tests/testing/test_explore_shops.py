"""Two shops under exploration: one by hand, right or with a planted bug, and one over holdfast."""

from typing import Any, get_args

import pytest

from examples import shop_under_test
from holdfast import Holdfast, Money, PaymentPaid, Secrets
from holdfast.errors import ConfigurationError
from holdfast.stores.memory import MemoryStore
from holdfast.testing.clock import ManualClock
from holdfast.testing.explore import Crash, Found, History, KeptStore, explore, replay
from holdfast.testing.fakes import FakePayments
from holdfast.testing.world import World
from tests.testing.planted_doubt import a_doubtful_order_is_shipped_once
from tests.testing.planted_shop import Bug, an_order_is_charged_and_shipped_once

SEEDS = (7, 42, 2026)


def explored(bug: Bug | None, seed: int, histories: int = 500) -> Found | None:
    async def test(world: World) -> None:
        await an_order_is_charged_and_shipped_once(world, () if bug is None else {bug})

    return explore(test, histories, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_found_in_a_shop_that_is_right(seed: int) -> None:
    assert explored(None, seed) is None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bug", get_args(Bug))
def test_a_planted_bug_is_found_and_shrunk(bug: Bug, seed: int) -> None:
    found = explored(bug, seed)

    assert found is not None
    assert isinstance(found.error, AssertionError)
    assert len(found.history.steps) <= 2
    assert found.tried <= 100
    print(f"{bug} from seed {seed}: history {found.tried}, shrunk in {found.runs} to {found.history}")


@pytest.mark.parametrize(
    ("bug", "line", "says"),
    [
        ("retry-unknown", "stripe.payments.create#0=reset", "charge of o1 happened 2 times"),
        ("fresh-key-on-retry", "stripe.payments.create#0=hang", "charge of o1 happened 2 times"),
        ("trust-body", "webhook#0=last", "shipped 2 times"),
        ("no-dedup", "webhook#2=twice", "shipped 2 times"),
        ("no-dedup", "webhook#2=together", "shipped 2 times"),
        ("lost-orphan", "webhook#2=never", "the order is failed, not paid"),
    ],
)
def test_each_planted_bug_is_what_its_name_says(bug: Bug, line: str, says: str) -> None:
    async def wrong(world: World) -> None:
        await an_order_is_charged_and_shipped_once(world, {bug})

    async def right(world: World) -> None:
        await an_order_is_charged_and_shipped_once(world)

    assert says in str(replay(wrong, line).error)
    assert replay(wrong, "").error is None
    assert replay(right, line).error is None


async def over_holdfast(world: World) -> None:
    test = shop_under_test.test_an_order_is_paid_and_confirmed_once
    await test(world.fakes, world.vclock, world.webhooks, world.crashes)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bug_behind_four_mishaps_is_found_and_shrunk_to_them(seed: int) -> None:
    async def test(world: World) -> None:
        await a_doubtful_order_is_shipped_once(world, in_two_steps=True)

    found = explore(test, 500, seed)

    assert found is not None
    assert str(found.error) == "shipped 2 times"
    kinds = sorted(type(step).__name__ for step in found.history.steps)
    assert kinds == ["CallFails", "Crash", "Crash", "WebhookComes"]


def test_none_of_the_four_mishaps_alone_or_without_the_mistake_does_harm() -> None:
    mishaps = ("crash@3", "stripe.payments.find#0=status_503", "webhook#2=twice", "crash@11")

    async def wrong(world: World) -> None:
        await a_doubtful_order_is_shipped_once(world, in_two_steps=True)

    async def right(world: World) -> None:
        await a_doubtful_order_is_shipped_once(world, in_two_steps=False)

    assert str(replay(wrong, " ".join(mishaps)).error) == "shipped 2 times"
    assert replay(right, " ".join(mishaps)).error is None
    for left_out in mishaps:
        assert replay(wrong, " ".join(one for one in mishaps if one != left_out)).error is None


def test_nothing_is_found_in_the_same_shop_without_the_mistake() -> None:
    async def test(world: World) -> None:
        await a_doubtful_order_is_shipped_once(world, in_two_steps=False)

    assert explore(test, 500, seed=7) is None


def test_nothing_is_found_in_a_shop_over_holdfast() -> None:
    found = explore(over_holdfast, 200, seed=7)

    assert found is None, str(found)


def test_a_shop_over_holdfast_without_handled_in_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def confirm(self: Any, paid: PaymentPaid) -> None:
        with self._connection:
            self._connection.execute("INSERT INTO confirmations VALUES (?)", (paid.reference,))

    monkeypatch.setattr(shop_under_test.Books, "confirm", confirm)

    found = explore(over_holdfast, 500, 7)

    assert found is not None
    assert str(found.error).startswith("confirmed: ['o1', 'o1']")
    assert [type(step) for step in found.history.steps] == [Crash]


# The store that survives


async def test_a_kept_store_outlives_the_hubs_that_open_it() -> None:
    store = KeptStore(clock=ManualClock())

    def hub() -> Holdfast:
        return Holdfast(store=store, secret=Secrets(["secret"]), payments=[FakePayments()], clock=ManualClock())

    async with hub() as one:
        await one.payments.create("o1", Money("1.00", "CHF"))
    await hub().__aenter__()  # its process is killed: it never leaves
    async with hub() as other:
        payment = await other.payments.get("o1")

    assert payment.reference == "o1"


async def test_an_ordinary_store_in_memory_would_not() -> None:
    store = MemoryStore(clock=ManualClock())

    await store.__aenter__()

    with pytest.raises(ConfigurationError, match="open already"):
        await store.__aenter__()


def test_a_kept_store_has_a_place_to_crash_before_and_after_each_change() -> None:
    committed: list[int] = []

    async def test(world: World) -> None:
        store = KeptStore(clock=world.vclock)

        async def program() -> None:
            async with store:
                await store.counters.add("changes", 1, window=3600)

        await world.crashes.run(program)
        committed.append(await store.counters.total("changes", window=3600))

    for line in ("", "crash@0", "crash@1"):
        assert replay(test, History.parse(line)).error is None

    assert committed == [1, 1, 2]
