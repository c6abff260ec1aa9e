"""What vendors keep of the money that comes in: by vendor and day, told, and held against limits."""

import logging
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, cast

from holdfast.errors import VersionConflict
from holdfast.payments import events
from holdfast.payments.models import Attempt, Payment
from holdfast.payments.provider import Capabilities, Fee
from holdfast.runtime import Runtime
from holdfast.stores.store import Draft, Json, Record
from holdfast.telemetry import FeeKept, SpendLimitReached
from holdfast.values import Money, exponent

log = logging.getLogger("holdfast.payments")

KIND: Final = "spend_told"
KEPT_FOR: Final = 2 * 86_400.0
"""Seconds for which the sum of a day is kept in the store's counters: longer than anything is added to it."""
DAY: Final = timedelta(days=1)
DAYS_TOLD: Final = 60
"""Of so many days it is kept which limits were told."""
LOOK_EVERY: Final = 60.0


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """Fees of a vendor on one day at which somebody is told, once: `SpendLimit(Money("50.00", "CHF"))`."""

    money: Money
    channel: str = field(default="", kw_only=True)
    """By which address of the hub's `on_call` they are told: `email`, `sms`; empty: by the first that takes it."""

    def __str__(self) -> str:
        return f"{self.money} {self.channel}".rstrip()


SpendLimits = Mapping[str, Money | SpendLimit | Sequence[Money | SpendLimit]]
"""By provider, one or several."""


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


def limits_of(given: SpendLimits) -> dict[str, tuple[SpendLimit, ...]]:
    """All of them, in one form."""
    return {
        provider: tuple(
            one if isinstance(one, SpendLimit) else SpendLimit(one)
            for one in ([limits] if isinstance(limits, Money | SpendLimit) else limits)
        )
        for provider, limits in given.items()
    }


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
    """Tells of each fee when it becomes known, and once of each limit that the fees of a day reach."""

    def __init__(
        self, capabilities: Mapping[str, Capabilities], limits: Mapping[str, Sequence[SpendLimit]], runtime: Runtime
    ) -> None:
        self._capabilities = capabilities
        self._limits = limits
        self._runtime = runtime
        self._told: set[tuple[str, date, SpendLimit]] = set()
        """As far as this process knows; the record in the store decides."""
        self._looked_at = -LOOK_EVERY

    async def count(self, before: Payment, after: Payment) -> None:
        """Count what changed with a commit; whatever fails only makes the meter miss it."""
        for number, attempt in enumerate(after.attempts):
            able = self._capabilities.get(attempt.provider)
            now = kept(attempt, able)
            was = kept(before.attempts[number], able) if number < len(before.attempts) else None
            if now is None or now == was:
                continue
            self._runtime.telemetry.emit(FeeKept(attempt.provider, str(now.money), now.estimated))
            with self._never_raising(f"the fee of payment {after.reference} could not be counted"):
                await self._add(attempt, now, was)

    async def look(self) -> None:
        """Tell of limits whose sum was counted by a process that died before it could tell."""
        now = self._runtime.clock.monotonic()
        if now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        today = self._runtime.clock.now().astimezone(UTC).date()
        counters = self._runtime.store.counters
        with self._never_raising("the fees could not be held against their limits"):
            for provider, limits in self._limits.items():
                for currency in sorted({limit.money.currency for limit in limits}):
                    for day in (today - DAY, today):
                        total = await counters.total(_counter(provider, day, currency), window=KEPT_FOR)
                        await self._compare(provider, day, Money.from_minor(total, currency))

    async def _add(self, attempt: Attempt, now: Kept, was: Kept | None) -> None:
        currency = now.money.currency
        if attempt.paid_at is None or not self._limits_of(attempt.provider, currency):
            return
        counted = was.money.minor_units if was and was.money.currency == currency else 0
        day = attempt.paid_at.astimezone(UTC).date()
        total = await self._runtime.store.counters.add(
            _counter(attempt.provider, day, currency), now.money.minor_units - counted, window=KEPT_FOR
        )
        await self._compare(attempt.provider, day, Money.from_minor(total, currency))

    async def _compare(self, provider: str, day: date, spent: Money) -> None:
        reached = [limit for limit in self._limits_of(provider, spent.currency) if limit.money <= spent]
        if all((provider, day, limit) in self._told for limit in reached):
            return
        await self._tell(provider, day, spent, reached)
        recent = {one for one in self._told if one[1] > day - DAYS_TOLD * DAY}
        self._told = recent | {(provider, day, limit) for limit in reached}

    async def _tell(self, provider: str, day: date, spent: Money, reached: Sequence[SpendLimit]) -> None:
        """Write down what is told, with the events that tell it: both or neither, and by one process only."""
        records = self._runtime.store.records
        while True:
            record = await records.get(KIND, provider)
            told = _told(record)
            new = [limit for limit in reached if str(limit) not in told.get(f"{day}", [])]
            if not new:
                return
            told[f"{day}"] = [*told.get(f"{day}", []), *map(str, new)]
            value: dict[str, Json] = {when: [*limits] for when, limits in sorted(told.items())[-DAYS_TOLD:]}
            jobs = self._runtime.subscriptions.jobs([self._event(provider, day, spent, limit) for limit in new])
            try:
                await records.apply(KIND, provider, record.version if record else 0, Draft(value=value), jobs=jobs)
            except VersionConflict:
                continue
            for limit in new:
                signal = SpendLimitReached(provider, f"{day}", str(spent), str(limit.money))
                self._runtime.telemetry.emit(signal)
            return

    def _event(self, provider: str, day: date, spent: Money, limit: SpendLimit) -> events.SpendLimitReached:
        return events.SpendLimitReached(
            id=f"spend/{provider}/{day}/{limit}",
            reference=f"{provider}/{day}",
            at=self._runtime.clock.now(),
            provider=provider,
            day=day,
            spent=spent,
            limit=limit.money,
            channel=limit.channel,
        )

    def _limits_of(self, provider: str, currency: str) -> list[SpendLimit]:
        return [limit for limit in self._limits.get(provider, ()) if limit.money.currency == currency]

    @contextmanager
    def _never_raising(self, what: str) -> Generator[None]:
        try:
            yield
        except Exception as error:  # a border: counting must not break what is counted
            log.warning("%s: %s", what, self._runtime.redactor.redact(str(error)))


def _counter(provider: str, day: date, currency: str) -> str:
    return f"spend/{provider}/{day}/{currency}"


def _told(record: Record | None) -> dict[str, list[str]]:
    return (
        {day: [str(limit) for limit in cast("list[str]", limits)] for day, limits in record.value.items()}
        if record
        else {}
    )
