"""A rehearsal of losing the store: how long it takes until work goes on, and how far back it goes on."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.clock import Clock, SystemClock
from holdfast.stores.archive import Manifest
from holdfast.stores.backup import restore, verify_store
from holdfast.stores.findings import Finding
from holdfast.stores.open import open_store

LEASE = 10.0


@dataclass(frozen=True, kw_only=True)
class Drilled:
    """What a drill found."""

    manifest: Manifest
    steps: dict[str, float]
    """Seconds of each, in their order."""
    age: float
    """Seconds since the backup was begun: what was accepted since is to be found again."""
    findings: list[Finding]

    @property
    def recovery(self) -> float:
        """Seconds until the first job was in a worker's hands; examining is not needed for that."""
        return sum(seconds for step, seconds in self.steps.items() if step != "examine")

    def to_json(self) -> dict[str, Any]:
        return {
            "recovery_seconds": round(self.recovery, 3),
            "steps": {step: round(seconds, 3) for step, seconds in self.steps.items()},
            "age_seconds": round(self.age, 1),
            "rows": self.manifest.rows,
            "findings": [{"what": each.what, "count": each.count} for each in self.findings],
        }


async def drill(
    file: str | os.PathLike[str],
    store: str,
    *,
    progress: Callable[[float], None] | None = None,
    clock: Clock | None = None,
) -> Drilled:
    """Restore the backup into the empty store at this URL, claim a job there, give it back, and examine the store.

    Raises what `restore` raises.
    """
    clock = clock or SystemClock()
    steps: dict[str, float] = {}
    begun = clock.monotonic()

    def done(step: str) -> None:
        nonlocal begun
        now = clock.monotonic()
        steps[step], begun = now - begun, now

    manifest = await restore(Path(file), store, progress=progress)
    done("restore")
    async with open_store(store) as opened:
        queues = sorted({name.rpartition("/")[0] for name in manifest.jobs})
        await opened.jobs.claim(queues, owner="drill", limit=1, lease=LEASE)
        done("open and claim one job")
        await opened.jobs.release("drill")
    begun = clock.monotonic()
    findings = await verify_store(store)
    done("examine")
    age = (clock.now() - manifest.begun_at).total_seconds()
    return Drilled(manifest=manifest, steps=steps, age=age, findings=findings)
