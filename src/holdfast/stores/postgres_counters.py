"""Windowed sums and slots in PostgreSQL."""

from typing import Any, Final

from psycopg.types.numeric import Int8

from holdfast.stores.postgres_connection import Connection, lock_number, select
from holdfast.stores.postgres_engine import Engine
from holdfast.stores.postgres_time import MOMENT, span

BUCKETS: Final = 10

# Whoever holds the lock of a name sees everything that was written under it, and a limit is never passed unseen.
LOCK: Final = "SELECT pg_advisory_xact_lock(%s)"

FORGET_SUMS: Final = f"""
WITH {MOMENT}
DELETE FROM sums WHERE (name, bucket) IN (
    SELECT name, bucket FROM sums WHERE expires_at <= (SELECT now FROM moment)
    ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED
)
"""
SUM_UP: Final = f"""
WITH {MOMENT}
INSERT INTO sums AS there (name, bucket, amount, expires_at)
SELECT %(name)s, bucket, %(amount)s, bucket + %(reach)s::bigint
FROM (SELECT now - now %% %(width)s::bigint AS bucket FROM moment) AS current
ON CONFLICT (name, bucket) DO UPDATE SET
    amount = there.amount + excluded.amount,
    expires_at = greatest(there.expires_at, excluded.expires_at)
"""
# Counts a bucket while any part of it is in the window: a limit is kept too early rather than too late.
TOTAL: Final = f"""
WITH {MOMENT}
SELECT coalesce(sum(amount), 0)::bigint FROM sums
WHERE name = %(name)s AND bucket > (SELECT now FROM moment) - %(reach)s::bigint
"""

FREE: Final = f"WITH {MOMENT} DELETE FROM slots WHERE name = %(name)s AND until <= (SELECT now FROM moment)"
TAKEN: Final = "SELECT coalesce(sum(taken), 0)::bigint FROM slots WHERE name = %(name)s"
HELD: Final = """
SELECT until, taken FROM slots WHERE name = %(name)s AND owner = %(owner)s AND NOT cooling ORDER BY until
"""
PUT: Final = f"""
WITH {MOMENT}
INSERT INTO slots AS there (name, owner, until, cooling, taken)
SELECT %(name)s, %(owner)s, now + %(after)s::bigint, %(cooling)s::boolean, %(count)s::bigint FROM moment
ON CONFLICT (name, until, owner, cooling) DO UPDATE SET taken = there.taken + excluded.taken
"""
TAKE_BACK: Final = """
UPDATE slots SET taken = taken - %(count)s::bigint
WHERE name = %(name)s AND owner = %(owner)s AND until = %(until)s::bigint AND NOT cooling
"""


class PostgresCounters:
    """Sums and slots over a time window."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add(self, name: str, amount: int, *, window: float) -> int:
        wanted = self._of_window(name, window) | {"amount": Int8(amount)}

        async def add(connection: Connection) -> int:
            async with connection.transaction():
                await connection.execute(LOCK, [lock_number("sum", name)])
                await connection.execute(FORGET_SUMS, wanted)
                await connection.execute(SUM_UP, wanted)
                return await _number(connection, TOTAL, wanted)

        return await self._engine.run(add)

    async def total(self, name: str, *, window: float) -> int:
        wanted = self._of_window(name, window)
        return await self._engine.run(lambda connection: _number(connection, TOTAL, wanted))

    async def take(self, name: str, *, owner: str, slots: int, wanted: int, ttl: float) -> int:
        of_owner = self._engine.time.parameters() | {"name": name, "owner": owner}

        async def take(connection: Connection) -> int:
            async with connection.transaction():
                await connection.execute(LOCK, [lock_number("slots", name)])
                await connection.execute(FREE, of_owner)
                had = max(0, min(wanted, slots - await _number(connection, TAKEN, of_owner)))
                if had:
                    taken = {"after": span(ttl), "cooling": False, "count": Int8(had)}
                    await connection.execute(PUT, of_owner | taken)
                return had

        return await self._engine.run(take)

    async def give(self, name: str, *, owner: str, count: int, after: float = 0.0) -> None:
        of_owner = self._engine.time.parameters() | {"name": name, "owner": owner}

        async def give(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute(LOCK, [lock_number("slots", name)])
                await connection.execute(FREE, of_owner)
                left = count
                for until, taken in await select(connection, HELD, of_owner):
                    given = min(left, taken)
                    left -= given
                    if given > 0:
                        back = {"count": Int8(given), "until": Int8(until)}
                        await connection.execute(TAKE_BACK, of_owner | back)
                        cooling = {"after": span(after), "cooling": True, "count": Int8(given)}
                        await connection.execute(PUT, of_owner | cooling)

        await self._engine.run(give)

    def _of_window(self, name: str, window: float) -> dict[str, Any]:
        width = max(1, round(window * 1_000_000 / BUCKETS))
        reach = {"width": Int8(width), "reach": Int8((BUCKETS + 1) * width)}
        return {"name": name, **reach} | self._engine.time.parameters()


async def _number(connection: Connection, query: Any, parameters: dict[str, Any]) -> int:
    [(number,)] = await select(connection, query, parameters)
    result: int = number
    return result
