"""How fast jobs are worked through on PostgreSQL, each with an effect exactly once: beside procrastinate.

Ours notes every job in a table of the user's by `handled_in`, over connections of the user's own; procrastinate's tasks
do nothing. Both use the same server.
"""

import asyncio
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from asyncpg import Connection, connect  # type: ignore[import-untyped]

from benchmarks._drains import BYTES, HANDLER, Finished, Ordered, Ours, compare, figures, peer
from benchmarks._measure import Report, arguments, publish, versions
from holdfast import Holdfast, Secrets, WorkerOptions, handled_ddl
from holdfast.telemetry import Telemetry
from tests.servers.postgres import PostgresServer

CONNECTIONS: Final = 16
CONCURRENCY: Final = 64
PROCRASTINATES: Final = 300
REMARKS: Final = {
    "ratio_procrastinate": "jobs per second, over procrastinate, 30 at once: at least once, no effect",
    "ours_per_s": f"jobs of {BYTES} bytes, one process, each with its row in the user's table exactly once",
}


def main() -> None:
    parser = arguments("drain_postgres", __doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of every candidate in turn (default 9)")
    parser.add_argument("--jobs", type=int, default=2000, help="of ours in a round (default 2000)")
    options = parser.parse_args()
    found = asyncio.run(run(options))
    publish(
        Report(
            name="drain_postgres", figures=found, versions=versions("holdfast", "psycopg", "asyncpg"), remarks=REMARKS
        ),
        options,
    )


class Pool:
    """The user's own connections."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._free = asyncio.LifoQueue[Connection]()

    async def open(self, stack: AsyncExitStack) -> None:
        for _ in range(CONNECTIONS):
            connection = await connect(self._url)
            stack.push_async_callback(connection.close)
            self._free.put_nowait(connection)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        connection = await self._free.get()
        try:
            yield connection
        finally:
            self._free.put_nowait(connection)


async def run(options: Namespace) -> dict[str, float]:
    finished = Finished()
    async with AsyncExitStack() as stack:
        server = stack.enter_context(PostgresServer())
        procrastinate = stack.enter_context(peer("procrastinate_drain.py", server.url, str(BYTES)))
        server.execute("CREATE TABLE notes (reference text NOT NULL)")
        server.execute(handled_ddl("postgresql"))
        pool = Pool(server.url)
        await pool.open(stack)
        hub = Holdfast(
            store=server.url,
            secret=Secrets("of the benchmark"),
            telemetry=Telemetry([finished]),
            worker=WorkerOptions(concurrency=CONCURRENCY),
        )

        @hub.on(Ordered, name=HANDLER)
        async def note(order: Ordered) -> None:
            async with pool.connection() as connection, connection.transaction(), order.handled_in(connection):
                await connection.execute("INSERT INTO notes VALUES ($1)", order.reference)

        async with hub:
            ours = Ours(hub, finished)
            rates = await compare(
                {"ours": (ours.drain, options.jobs), "procrastinate": (procrastinate.drain, PROCRASTINATES)},
                rounds=options.rounds,
            )
            assert await ours.all_done()
            [noted] = server.execute("SELECT count(*), count(DISTINCT reference) FROM notes")
            assert noted == (ours.added, ours.added)
    return figures(rates)


if __name__ == "__main__":
    main()
