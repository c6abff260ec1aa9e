"""A process that makes calls until it is killed; its arguments are a directory, a first number and a count."""

import asyncio
import os
import sys
from pathlib import Path

from holdfast import Call, Holdfast, WorkerOptions
from holdfast.clock import SystemClock


def write(file: Path, line: str) -> None:
    """Keep a line outside of the store, where no rollback takes it back."""
    with file.open("a") as lines:
        lines.write(f"{line}\n")
        lines.flush()
        os.fsync(lines.fileno())


async def main(directory: Path, first: int, count: int) -> None:
    """Add calls of each kind, print each key once it is kept, and make what is there until told to stop."""
    clock = SystemClock()
    hub = Holdfast(
        store=f"sqlite:///{directory}/holdfast.db",
        worker=WorkerOptions(lease=0.5, heartbeat=0.1, idle=0.05),
    )

    async def make(call: Call[None]) -> None:
        await clock.sleep(0.002)
        write(directory / "effects", f"{call.name}/{call.key}")
        await clock.sleep(0.002)

    async def check(call: Call[None]) -> bool:
        return f"{call.name}/{call.key}" in (directory / "effects").read_text().splitlines()

    hub.call("plain")(make)
    hub.call("hold", once=True)(make)
    hub.call("check", once=True, check=check)(make)

    async with hub.lifespan():
        for number in range(first, first + count):
            for name in ("plain", "hold", "check"):
                await hub.outbox.add(name, key=str(number))
                print(f"{name}/{number}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
