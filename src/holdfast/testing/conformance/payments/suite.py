"""The suite itself: one class to subclass, which pytest runs, or one call that returns what was found."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from holdfast.payments.models import Payer
from holdfast.payments.provider import PaymentProvider, PaymentSnapshot
from holdfast.testing.clock import ManualClock
from holdfast.testing.conformance.payments import creating, facts, looking, losing, moving, selling, telling
from holdfast.testing.conformance.payments.bench import START, USUAL_PAYER, Bench, usual_due, usual_pay
from holdfast.testing.conformance.payments.promise import Finding, Promise
from holdfast.testing.simulators.simulator import Simulator
from holdfast.values import Money

if TYPE_CHECKING:
    import pytest

SimulatorT = TypeVar("SimulatorT", bound=Simulator)


class PaymentConformance(Generic[SimulatorT]):
    """Every promise that the family of payments relies on, proven for one provider.

    Say how the simulator and the provider are made; pytest runs a test for each promise that the provider's own
    capabilities and protocols make it keep. For what it cannot do there is no test.

    class TestAcmePay(PaymentConformance[AcmePaySimulator]):
        def simulator(self, clock: ManualClock) -> AcmePaySimulator:
            return AcmePaySimulator(clock=clock)

        def provider(self, simulator: AcmePaySimulator) -> AcmePay:
            return AcmePay(base_url="http://127.0.0.1", **simulator.credentials)
    """

    payer: Payer = USUAL_PAYER
    """Who pays, for vendors that have to be told."""

    def simulator(self, clock: ManualClock) -> SimulatorT:
        """A fresh vendor that goes by this clock, the same each time."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its simulator is made")

    def provider(self, simulator: SimulatorT) -> PaymentProvider:
        """The provider that this vendor knows."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its provider is made")

    def due(self, provider: PaymentProvider) -> Money:
        """What payments are over; in four equal parts, for refunds of one."""
        return usual_due(provider)

    def pay(self, simulator: SimulatorT, snapshot: PaymentSnapshot) -> None:
        """The payer pays this offer, or agrees to it. Raises LookupError: nobody can pay it any more."""
        usual_pay(simulator, snapshot)

    def promises(self) -> Iterator[Promise]:
        """Those that this provider makes."""
        provider = self.provider(self.simulator(ManualClock(START)))
        for part in (facts, creating, losing, looking, moving, telling, selling):
            yield from part.promises(provider)

    def pytest_generate_tests(self, metafunc: "pytest.Metafunc") -> None:
        """One test per promise."""
        if "promise" in metafunc.fixturenames:
            promises = list(self.promises())
            metafunc.parametrize("promise", promises, ids=[promise.name for promise in promises])

    def test_it_keeps_its_promise(self, promise: Promise) -> None:
        """Raises AssertionError: it does not, and how."""
        __tracebackhide__ = True
        asyncio.run(_tried(self, promise))


async def examine(
    subject: PaymentConformance[SimulatorT], *, promises: Iterable[Promise] | None = None
) -> tuple[Finding, ...]:
    """Try promises without pytest, by default all that the provider makes; what became of each, in their order."""
    findings: list[Finding] = []
    for promise in subject.promises() if promises is None else promises:
        happened = ""
        try:
            await _tried(subject, promise)
        except Exception as error:
            happened = f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error)
        findings.append(Finding(promise=promise.name, rule=promise.rule, kept=not happened, happened=happened))
    return tuple(findings)


async def _tried(subject: PaymentConformance[SimulatorT], promise: Promise) -> None:
    await promise.keep(Bench(subject))
