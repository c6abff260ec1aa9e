"""The same over real stores, and over simulators on the wire: processes die, others go on with what is stored."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from holdfast.stores import open_store
from holdfast.testing.faults import chance
from holdfast.testing.virtual_clock import VirtualClock
from tests.payments.test_crash_anywhere import History
from tests.payments.world import World
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.unmeasured

SEEDS = [seed for seed in range(41) if seed != 25]
"""On each engine; in 25 somebody pays after the last look for late money, and a lie has used up the webhook."""


async def live(url: Callable[[], str], *, part: int, parts: int = 4) -> None:
    """Lives of which some end with a process killed at a step that the seed chooses."""
    for seed in SEEDS[part::parts]:
        clock = VirtualClock()
        world = partial(World, clock=clock, make_store=partial(open_store, url()))
        dies_at: Any = chance(seed, "dies").choice([None, *range(1, 90)])
        print(f"seed {seed}, killed at step {dies_at}")
        async with clock.running(loop=False):
            assert await History(seed=seed, dies_at=dies_at, make_world=world).run() == [], f"seed {seed}"


@pytest.mark.parametrize("part", range(4))
async def test_on_a_sqlite_file_no_money_is_asked_for_twice_lost_or_told_twice(part: int, tmp_path: Path) -> None:
    await live(lambda: f"sqlite:///{tmp_path}/{uuid4().hex}.db", part=part)


@pytest.mark.xdist_group("postgres")
@pytest.mark.parametrize("part", range(4))
async def test_on_postgres_no_money_is_asked_for_twice_lost_or_told_twice(
    part: int, postgres_server: PostgresServer
) -> None:
    await live(lambda: f"{postgres_server.url}?schema=s{uuid4().hex}", part=part)


@pytest.mark.xdist_group("redis")
@pytest.mark.parametrize("part", range(4))
async def test_on_redis_no_money_is_asked_for_twice_lost_or_told_twice(part: int, redis_server: RedisServer) -> None:
    await live(lambda: f"{redis_server.store_url}&namespace={uuid4().hex}", part=part)
