"""How fast jobs are worked through on SQLite, each with an effect exactly once: beside huey and procrastinate.

Ours notes every job in a table of the user's, in the transaction that ends the job. huey's tasks do nothing, and are
lost when the process dies; procrastinate's do nothing, on a PostgreSQL. Everybody syncs to the same disk.
"""

import asyncio
import sqlite3
import tempfile
from argparse import Namespace
from contextlib import ExitStack, closing
from pathlib import Path
from sqlite3 import sqlite_version
from typing import Final

from benchmarks._drains import BYTES, HANDLER, Finished, Ordered, Ours, compare, figures, peer
from benchmarks._measure import Report, arguments, publish, versions
from holdfast import Holdfast, Secrets, WorkerOptions
from holdfast.telemetry import Telemetry
from tests.servers.postgres import PostgresServer

CONCURRENCY: Final = 256
HUEYS: Final = 1500
PROCRASTINATES: Final = 300
REMARKS: Final = {
    "ratio_huey": "jobs per second, over huey's SqliteHuey with fsync and 4 threads: at most once, no effect",
    "ratio_procrastinate": "the same, over procrastinate on PostgreSQL, 30 at once: at least once, no effect",
    "ours_per_s": f"jobs of {BYTES} bytes, one process, each with its row in the user's table exactly once",
}


def main() -> None:
    parser = arguments("drain_sqlite", __doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of every candidate in turn (default 7)")
    parser.add_argument("--jobs", type=int, default=8000, help="of ours in a round (default 8000)")
    parser.add_argument("--directory", help="on the disk that is to be measured (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-drain-", dir=options.directory) as directory:
        found = asyncio.run(run(Path(directory), options))
    publish(
        Report(
            name="drain_sqlite",
            figures=found,
            versions={"sqlite": sqlite_version} | versions("holdfast", "huey"),
            remarks=REMARKS,
        ),
        options,
    )


async def run(directory: Path, options: Namespace) -> dict[str, float]:
    finished = Finished()
    path = directory / "holdfast.db"
    hub = Holdfast(
        store=f"sqlite:///{path}",
        secret=Secrets("of the benchmark"),
        telemetry=Telemetry([finished]),
        worker=WorkerOptions(concurrency=CONCURRENCY),
    )

    @hub.on(Ordered, name=HANDLER, transactional=True)
    def note(order: Ordered, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes VALUES (?)", (order.reference,))

    with ExitStack() as stack:
        server = stack.enter_context(PostgresServer())
        huey = stack.enter_context(peer("huey_drain.py", str(directory / "huey.db"), str(BYTES)))
        procrastinate = stack.enter_context(peer("procrastinate_drain.py", server.url, str(BYTES)))
        async with hub:
            database = stack.enter_context(closing(sqlite3.connect(path)))
            database.execute("CREATE TABLE notes (reference TEXT)")
            ours = Ours(hub, finished)
            rates = await compare(
                {
                    "ours": (ours.drain, options.jobs),
                    "huey": (huey.drain, HUEYS),
                    "procrastinate": (procrastinate.drain, PROCRASTINATES),
                },
                rounds=options.rounds,
            )
            assert await ours.all_done()
            noted = database.execute("SELECT count(*), count(DISTINCT reference) FROM notes").fetchone()
            assert noted == (ours.added, ours.added)
    return figures(rates)


if __name__ == "__main__":
    main()
