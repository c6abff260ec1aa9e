"""What every candidate of the shoot-out is asked to do: charge each order once. Needs Python alone.

Its arguments are the vendor's address, whether the vendor honours idempotency keys, how many orders, and a directory
to keep things in.
"""

import asyncio
import importlib.metadata
import json
import platform
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

AT_ONCE: Final = 16
"""Orders that are being charged at any moment."""
TIMEOUT: Final = 1.0
"""Seconds a client waits for the vendor; the slowest answer takes three times as long."""
CENTS: Final = 12_000
CURRENCY: Final = "CHF"
KEYS, NO_KEYS = "keys", "no_keys"
"""Whether the vendor honours idempotency keys."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a candidate is started with."""

    url: str
    keys: bool
    intents: int
    directory: Path

    @classmethod
    def given(cls) -> "Task":
        """By the command line."""
        url, mode, intents, directory = sys.argv[1:5]
        return cls(url, mode == KEYS, int(intents), Path(directory))

    @property
    def orders(self) -> list[str]:
        """By their names."""
        return orders(self.intents)


def orders(intents: int) -> list[str]:
    """The names of so many orders."""
    return [f"order-{number}" for number in range(intents)]


def charge(order: str) -> dict[str, object]:
    """The vendor's request to charge an order."""
    return {"order": order, "reference": order, "cents": CENTS, "currency": CURRENCY}


async def ask_each(orders: Sequence[str], ask: Callable[[str], Awaitable[object]]) -> None:
    """Ask for every order once, so many at a time; what is raised is a failure the shop was told of."""
    left, told = iter(orders), Counter[str]()

    async def caller() -> None:
        for order in left:
            try:
                await ask(order)
            except Exception as error:  # whatever a library raises: the shop writes it down and goes on
                told[type(error).__name__] += 1
            else:
                told["done"] += 1

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    print(f"the shop was told: {dict(told)}", file=sys.stderr)


def ask_each_in_threads(orders: Sequence[str], ask: Callable[[str], object]) -> None:
    """The same for a library without `async`."""
    with ThreadPoolExecutor(AT_ONCE) as threads:

        async def in_thread(order: str) -> None:
            await asyncio.get_running_loop().run_in_executor(threads, ask, order)

        asyncio.run(ask_each(orders, in_thread))


def finish(*packages: str, **more: float) -> None:
    """Say that all were asked for, with what."""
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
    print(json.dumps({"versions": versions, **more}), flush=True)
