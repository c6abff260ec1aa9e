"""Who is asked for a payment, in which order, and why."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal

from holdfast.errors import ConfigurationError, HoldfastError, InvalidInput
from holdfast.payments.accounts import tenant_of
from holdfast.payments.models import Capture, Payment
from holdfast.payments.provider import Capabilities, PaymentProvider
from holdfast.payments.quoting import Quotes
from holdfast.routing import Ask, Router
from holdfast.values import Money


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Who is asked for a payment, one after another."""

    names: Sequence[str] = ()
    why: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of each, why in its place."""
    refusal: HoldfastError | None = None
    """Why it is nobody: to be raised where somebody is needed."""


class Choosing:
    """The providers that can do what is asked, as the route orders them."""

    def __init__(
        self, providers: Mapping[str, PaymentProvider], retired: Set[str], quotes: Quotes, router: Router
    ) -> None:
        self._providers = providers
        self._retired = retired
        self._quotes = quotes
        self._router = router

    async def order(self, payment: Payment) -> Order:
        """Whom to ask; what there is already of a payment needs nobody."""
        try:
            names = self._eligible(payment)
        except (ConfigurationError, InvalidInput) as refusal:
            return Order(refusal=refusal)
        costs = {name: _cost(self._providers[name].capabilities, payment.due) for name in names}
        ask = Ask(key=payment.reference, money=payment.due, region=payment.region)
        routed = await self._router.order(ask, names, costs)
        if not routed.choices:
            return Order(refusal=routed.refusal(f"payment {payment.reference}", "create"))
        return Order(names=routed.names, why=routed.why)

    def _eligible(self, payment: Payment) -> list[str]:
        """Who can be asked for it, in order of preference. Raises ConfigurationError, InvalidInput: nobody can."""
        due = payment.due
        theirs = [name for name in self._providers if tenant_of(name) == payment.tenant and name not in self._retired]
        if payment.tenant and not theirs:
            raise InvalidInput(f"tenant {payment.tenant} has no payment provider; make one with for_tenant(...)")
        names = [name for name in theirs if self._quotes.can_price(self._providers[name], due)]
        if not names:
            raise ConfigurationError(f"no payment provider takes {due.currency}; add one that does")
        obstacles = {name: _obstacle(self._providers[name].capabilities, payment) for name in names}
        able = [name for name in names if not obstacles[name]]
        if not able:
            told = "; ".join(f"{name} {obstacle}" for name, obstacle in obstacles.items())
            raise InvalidInput(f"no payment provider that takes {due.currency} can do this: {told}")
        return able


def _cost(able: Capabilities, due: Money) -> Decimal | None:
    """What it would keep of this, in the currency that is due; None: not known."""
    fee = able.fee
    if fee is None or (fee.fixed is not None and fee.fixed.currency != due.currency):
        return None
    return due.amount * fee.percent / 100 + (fee.fixed.amount if fee.fixed else 0)


def _obstacle(able: Capabilities, payment: Payment) -> str:
    """Why it cannot do what is asked; empty when it can."""
    if payment.capture is Capture.MANUAL and not able.manual_capture:
        return "cannot set money aside until it is captured"
    if able.payer and payment.payer is None:
        return "has to be told who pays: payer=Payer(...)"
    return ""
