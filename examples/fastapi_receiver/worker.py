"""The same hub without a web server: handlers and sweeps only."""

import asyncio
import signal

from examples.fastapi_receiver import shop
from examples.fastapi_receiver.integrations import hub


async def main() -> None:
    """Work until SIGTERM."""
    await shop.create_tables()
    loop = asyncio.get_running_loop()
    async with hub, asyncio.TaskGroup() as group:
        work = group.create_task(hub.work())
        loop.add_signal_handler(signal.SIGTERM, work.cancel)
    await shop.engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
