"""What vendors keep of the money that comes in: by vendor and day, told, and held against limits."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from holdfast.errors import StoreError
from holdfast.payments.models import Attempt, Payment
from holdfast.payments.provider import Capabilities, Fee
from holdfast.stores.store import Counters
from holdfast.telemetry import FeeKept, SpendLimitReached, Telemetry
from holdfast.values import Money, exponent

log = logging.getLogger("holdfast.payments")

KEPT_FOR: Final = 2 * 86_400.0
"""Seconds for which the sum of a day is kept in the store's counters: longer than anything is added to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spend:
    """What a vendor kept of the payments of one day in UTC, in one currency."""

    provider: str
    day: date
    fees: Money
    estimated: Money
    """Of these, by the vendor's price list, where it did not say itself."""
    payments: int
    unknown: int = 0
    """Of these, how many nothing is known of: no fee was told, and there is no price list."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The fee of one attempt."""

    money: Money
    estimated: bool


def kept(attempt: Attempt, able: Capabilities | None) -> Kept | None:
    """What the vendor kept of what came in: as it said, else by its price list; None: nothing came in, or not known."""
    if attempt.paid_at is None:
        return None
    if attempt.fee is not None:
        return Kept(attempt.fee, estimated=False)
    listed = estimate(able.fee, attempt.received or attempt.price) if able and able.fee else None
    return Kept(listed, estimated=True) if listed is not None else None


def estimate(fee: Fee, money: Money) -> Money | None:
    """What the price list says of this, rounded to the currency's unit; None: it speaks of another currency."""
    if fee.fixed is not None and fee.fixed.currency != money.currency:
        return None
    kept = money.amount * fee.percent / 100 + (fee.fixed.amount if fee.fixed else 0)
    return Money(kept.quantize(Decimal(1).scaleb(-exponent(money.currency)), ROUND_HALF_UP), money.currency)


def spends(payments: Iterable[Payment], able: Mapping[str, Capabilities], day: date) -> list[Spend]:
    """The fees of that day, by provider and currency."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for payment in payments:
        for attempt in payment.attempts:
            if attempt.paid_at is None or attempt.paid_at.astimezone(UTC).date() != day:
                continue
            fee = kept(attempt, able.get(attempt.provider))
            row = sums[attempt.provider, fee.money.currency if fee else attempt.price.currency]
            row[0] += fee.money.minor_units if fee else 0
            row[1] += fee.money.minor_units if fee and fee.estimated else 0
            row[2] += 1
            row[3] += fee is None
    return [
        Spend(
            provider=provider,
            day=day,
            fees=Money.from_minor(fees, currency),
            estimated=Money.from_minor(estimated, currency),
            payments=count,
            unknown=unknown,
        )
        for (provider, currency), (fees, estimated, count, unknown) in sorted(sums.items())
    ]


class Meter:
    """Tells of each fee when it becomes known, and once a day of a vendor that keeps more than was expected."""

    def __init__(
        self,
        capabilities: Mapping[str, Capabilities],
        limits: Mapping[str, Money],
        counters: Counters,
        telemetry: Telemetry,
    ) -> None:
        self._capabilities = capabilities
        self._limits = limits
        self._counters = counters
        self._telemetry = telemetry

    async def count(self, before: Payment, after: Payment) -> None:
        """Count what changed with a commit; a failing store only makes the meter miss it."""
        for number, attempt in enumerate(after.attempts):
            able = self._capabilities.get(attempt.provider)
            now = kept(attempt, able)
            was = kept(before.attempts[number], able) if number < len(before.attempts) else None
            if now is None or now == was:
                continue
            self._telemetry.emit(FeeKept(attempt.provider, str(now.money), now.estimated))
            try:
                await self._add(attempt, now, was)
            except StoreError as error:
                log.warning("the fee of payment %s could not be counted: %s", after.reference, error)

    async def _add(self, attempt: Attempt, now: Kept, was: Kept | None) -> None:
        limit = self._limits.get(attempt.provider)
        if limit is None or limit.currency != now.money.currency or attempt.paid_at is None:
            return
        counted = was.money.minor_units if was and was.money.currency == limit.currency else 0
        day = f"{attempt.paid_at.astimezone(UTC):%Y-%m-%d}"
        name = f"spend/{attempt.provider}/{day}"
        total = await self._counters.add(name, now.money.minor_units - counted, window=KEPT_FOR)
        if total < limit.minor_units:
            return
        if await self._counters.take(f"{name}/told", owner="meter", slots=1, wanted=1, ttl=KEPT_FOR):
            spent = Money.from_minor(total, limit.currency)
            self._telemetry.emit(SpendLimitReached(attempt.provider, day, str(spent), str(limit)))
