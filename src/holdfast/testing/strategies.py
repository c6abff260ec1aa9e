"""Fault plans, histories and deliveries as hypothesis strategies: what fails is shrunk to the least that fails.

@given(histories(awaits=30, operations={"stripe": ["payments.create"]}, webhooks=3))
def test_an_order_is_charged_once(history):
    ran = replay(an_order, history)
    assert ran.error is None, ran.timeline
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypedDict, cast

from holdfast.errors import MissingExtra
from holdfast.testing.explore import CallFails, Crash, History, Ran, Step, WebhookComes
from holdfast.testing.explore.history import HOWS, KINDS, fault_of
from holdfast.testing.faults import At, Fault, FaultPlan, Rule

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ModuleNotFoundError as error:
    raise MissingExtra("testing") from error

Operations = Mapping[str, Sequence[str]]
"""Of each vendor, what is asked of it: `{"stripe": ["payments.create", "payments.fetch"]}`."""

ANY: Final[Operations] = {"*": ["*"]}
"""Whatever is asked of whomever; calls are counted over all of it."""

FAULTS: Final[Sequence[Fault]] = tuple(map(fault_of, KINDS))
"""The least harmful first, so that shrinking leaves that."""


class Manner(TypedDict, total=False):
    """How webhooks come: `await door.deliver(**manner)`."""

    duplicate: int
    shuffle: bool
    late: float
    drop: list[int]
    together: bool


def fault_plans(
    operations: Operations = ANY, *, faults: Sequence[Fault] = FAULTS, calls: int = 4, most: int = 3
) -> SearchStrategy[FaultPlan]:
    """Plans with at most so many faults, among the first calls of each operation; the least is none."""
    struck = st.tuples(_asked(operations), st.integers(0, calls - 1))
    rules = st.lists(st.tuples(struck, st.sampled_from(faults)), max_size=most, unique_by=lambda rule: rule[0])
    return rules.map(
        lambda found: FaultPlan(
            rules=tuple(Rule(vendor, operation, At(index, fault)) for ((vendor, operation), index), fault in found)
        )
    )


def histories(
    *,
    awaits: int = 0,
    operations: Operations | None = None,
    calls: int = 4,
    webhooks: int = 0,
    most: int = 3,
    seed: int = 7,
) -> SearchStrategy[History]:
    """Histories of at most so many steps: crashes at the first awaits, faults of the first calls, unusual webhooks.

    The least is one without steps; of two, the one whose steps are fewer, earlier and less harmful.
    """
    kinds: list[SearchStrategy[Step]] = []
    if awaits:
        kinds.append(st.integers(0, awaits - 1).map(Crash))
    if operations:
        kinds.append(st.builds(_fails, _asked(operations), st.integers(0, calls - 1), st.sampled_from(KINDS)))
    if webhooks:
        kinds.append(st.builds(WebhookComes, st.integers(0, webhooks - 1), st.sampled_from(HOWS)))
    steps = st.lists(st.one_of(kinds), max_size=most if kinds else 0, unique_by=lambda step: step.place)
    return steps.map(lambda found: History(seed, tuple(found)))


def histories_like(ran: Ran, *, most: int = 3) -> SearchStrategy[History]:
    """Histories that strike where this one went by: `histories_like(replay(test, ""))`."""
    operations: dict[str, list[str]] = {}
    for call in ran.calls:
        if call.operation not in operations.setdefault(call.vendor, []):
            operations[call.vendor].append(call.operation)
    return histories(
        awaits=len(ran.places),
        operations=operations,
        calls=1 + max((call.index for call in ran.calls), default=0),
        webhooks=ran.webhooks,
        most=most,
        seed=ran.history.seed,
    )


def deliveries(*, webhooks: int = 0, latest: float = 72 * 3600) -> SearchStrategy[Manner]:
    """Manners of delivery: doubled, shuffled, late, together, some of the first never; the least is as it should be."""
    manners: dict[str, SearchStrategy[object]] = {
        "duplicate": st.integers(1, 3),
        "shuffle": st.just(value=True),
        "late": st.integers(1, int(latest)).map(float),
        "together": st.just(value=True),
    }
    if webhooks:
        manners["drop"] = st.lists(st.integers(0, webhooks - 1), min_size=1, max_size=webhooks, unique=True)
    return cast(SearchStrategy[Manner], st.fixed_dictionaries({}, optional=manners))


def _fails(asked: tuple[str, str], index: int, kind: str) -> CallFails:
    vendor, operation = asked
    return CallFails(vendor, operation, index, kind)


def _asked(operations: Operations) -> SearchStrategy[tuple[str, str]]:
    return st.sampled_from([(vendor, operation) for vendor, asked in operations.items() for operation in asked])
