"""From one layout of the keys to the next."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

SCHEMA: Final = 2
STEPS: Final = ("ended", "dead", "leased", "heads")
"""From the first layout to the second."""


async def migrate(step: Callable[[str, bytes], Awaitable[Any]]) -> None:
    """Bring one partition to the current layout; `step` runs the script, from where it stopped the time before."""
    for name in STEPS:
        behind: bytes | None = b""
        while behind is not None:
            behind = await step(name, behind)
