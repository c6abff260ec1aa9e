"""Thousands of random lives of a shop, over vendors of every kind, judged by the vendors' own books.

The clients, the desks and the pure core are the real ones: modelled are vendors, time, and the order in which things
happen. `--histories 20000 --first-history 7000` lives others; a seed that fails is told, and is the whole story.
"""

from collections import Counter

import pytest

from tests.payments.model.history import STEPS, History

pytestmark = pytest.mark.unmeasured

PARTS = 8
TROUBLE = {
    "connect",
    "throttled",
    "refused",
    "rejected",
    "lost",
    "reset",
    "hang",
    "slow",
    "adrift",
    "lie",
    "mix-up",
    "authorized",
    "approved",
    "processing",
    "partially_paid",
    "paid",
    "refund",
    "resolved",
    "payment.paid",
    "payment.expired",
    "payment.canceled",
    "payment.failed",
    "payment.authorized",
    "payment.refunded",
    "payment.refund_by_hand",
    "payment.refund_failed",
    "duplicate",
    "late",
    "orphan_paid",
    "overpaid",
    "underpaid",
    "mismatch",
    "held",
    "refund_unknown",
}
"""What a few hundred histories hold, or they would not be worth much."""


def seeds(config: pytest.Config, part: int) -> range:
    first, many = config.getoption("first_history"), config.getoption("histories")
    return range(first + part, first + many, PARTS)


@pytest.mark.parametrize("part", range(PARTS))
async def test_whatever_happens_no_payer_is_charged_twice_and_no_money_is_lost(
    part: int, pytestconfig: pytest.Config
) -> None:
    which = seeds(pytestconfig, part)
    print("seeds", which)
    happened: Counter[str] = Counter()
    for seed in which:
        history = History(seed=seed)
        wrong = await history.run()
        happened.update(history.happened | history.weather.seen)

        assert wrong == [], story(history)
        assert history.steps >= 20

    print(dict(happened))
    if len(which) >= 250:
        assert set(happened) >= TROUBLE - {"refund_unknown", "payment.refund_failed", "duplicate"}


def story(history: History) -> str:
    return "\n".join([f"seed {history.seed}", *history.log, *history.wrong])


async def test_a_history_is_the_same_each_time_it_is_lived() -> None:
    first, second = History(seed=11), History(seed=11)
    await first.run()
    await second.run()

    assert first.log == second.log
    assert min(STEPS) >= 20
