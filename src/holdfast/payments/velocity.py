"""How many payments one customer may begin in a while, over all processes on the store."""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from holdfast.errors import ConfigurationError, InvalidInput, Throttled, VersionConflict
from holdfast.resilience.policy import Rate
from holdfast.stores.store import Draft, Json, Record, Store

KIND: Final = "velocity"
MOST: Final = 1000
"""Of so many beginnings each customer's are kept one by one."""


class Velocity:
    """A sliding window for each customer, kept in the store: exact, and as durable as that."""

    def __init__(self, rate: Rate, store: Store) -> None:
        """Raises ConfigurationError: a rate that cannot be kept so."""
        if rate.key is not None:
            raise ConfigurationError("velocity is by customer: leave its key out, and give create(customer=...)")
        if rate.limit > MOST:
            raise ConfigurationError(f"velocity allows one customer {MOST} payments at most")
        self._limit = rate.limit
        self._per = timedelta(seconds=rate.seconds("per"))
        self._store = store

    async def begin(self, customer: str, reference: str) -> None:
        """Count this payment, once however often it is asked for.

        Raises:
            InvalidInput: There is no customer.
            Throttled: The customer began as many as allowed.
        """
        if not customer.strip():
            raise InvalidInput("payments are limited per customer: say whose this is, create(customer=...)")
        key = sha256(customer.encode()).hexdigest()  # nobody's name is a key of ours
        while True:
            now, record = await self._store.now(), await self._store.records.get(KIND, key)
            begun = {name: at for name, at in _begun(record).items() if now < at + self._per}
            if reference in begun:
                return
            if len(begun) >= self._limit:
                raise self._refusal(sorted(begun.values())[-self._limit] + self._per - now)
            value: dict[str, Json] = {name: at.isoformat() for name, at in (begun | {reference: now}).items()}
            try:
                await self._store.records.apply(KIND, key, record.version if record else 0, Draft(value=value))
            except VersionConflict:
                continue
            return

    def _refusal(self, after: timedelta) -> Throttled:
        began = "1 payment" if self._limit == 1 else f"{self._limit} payments"
        return Throttled(
            f"this customer began {began} within {_words(self._per)}; the next may begin in {_words(after)}",
            operation="create",
            reason="velocity",
            retry_after=after.total_seconds(),
            local=True,
        )


def _begun(record: Record | None) -> dict[str, datetime]:
    return {name: datetime.fromisoformat(str(at)) for name, at in record.value.items()} if record else {}


def _words(time: timedelta) -> str:
    """`45 seconds`, `12 minutes`, `3 hours`: the greatest unit that fits, rounded up."""
    seconds = max(1, -(-time // timedelta(seconds=1)))
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = -(-seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
