"""procrastinate on PostgreSQL: for each line with a number it defers so many tasks that do nothing, works through them
until there is none left, and prints the seconds the work took.

Its arguments are the server's address and the bytes of a task's argument.
"""

import asyncio
import logging
import sys
import time

from procrastinate import App, PsycopgConnector

CONCURRENCY = 30

logging.disable(logging.CRITICAL)
app = App(connector=PsycopgConnector(conninfo=sys.argv[1]))
body = "x" * int(sys.argv[2])


@app.task
async def handle(body: str) -> None:
    """What is measured is what surrounds this."""


async def main() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for line in sys.stdin:
            await handle.batch_defer_async(*({"body": body} for _ in range(int(line))))
            begun = time.perf_counter()
            await app.run_worker_async(concurrency=CONCURRENCY, wait=False, install_signal_handlers=False)
            print(time.perf_counter() - begun, flush=True)


asyncio.run(main())
