"""Holdfast with one of its promises taken out, from outside: the oracle has to notice."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

from holdfast import clock
from holdfast.stores.store import Added, Job, NewJob, Store

EXPECTED: Final[Mapping[str, frozenset[str]]] = {
    "fence": frozenset({"I4"}),
    "dedup": frozenset({"I9"}),
    "handled": frozenset({"I3"}),
    "heartbeat": frozenset({"I3", "I5"}),
    "commit-order": frozenset({"I1", "I10"}),
    "takeover": frozenset({"I1", "I7"}),
    "order": frozenset({"I5"}),
}
"""By what is taken out: the invariants of which at least one must be found broken."""

WITHOUT_PROOF: Final = "handled"
LATER: Final = 0.3
"""Seconds between an answer that was given too soon and what it speaks of."""

_numbers = count()
_left_alone: set[asyncio.Task[Any]] = set()


def apply(name: str, store: Store) -> None:
    """Change this process; the handler itself leaves its proof out."""
    if name not in ("", WITHOUT_PROOF):
        {
            "fence": _without_fence,
            "dedup": _without_dedup,
            "heartbeat": _without_heartbeat,
            "commit-order": _acknowledges_first,
            "takeover": _never_takes_over,
            "order": _without_order,
        }[name](type(store.jobs))


def follow(wall: Path) -> None:
    """The wall clock of this process is wrong by as many seconds as a file says; what is monotonic stays."""
    now = clock.SystemClock.now
    file = os.open(wall, os.O_RDONLY)

    def wrong(self: clock.SystemClock) -> datetime:
        return now(self) + timedelta(seconds=float(os.pread(file, 32, 0)))

    clock.SystemClock.now = wrong  # type: ignore[method-assign]


def _without_fence(jobs: Any) -> None:
    """Whoever ends a job ends it, whatever its token."""
    heartbeat = jobs.heartbeat

    def ends(end: Any) -> Any:
        async def wrapped(self: Any, job: Job, **options: Any) -> None:
            await end(self, replace(job, token=(await self.get(job.id)).token), **options)

        return wrapped

    for verb in ("complete", "ignore", "bury", "retry", "snooze"):
        setattr(jobs, verb, ends(getattr(jobs, verb)))

    async def keeps(self: Any, claimed: Any, *, lease: float) -> set[str]:
        await heartbeat(self, claimed, lease=lease)
        return set()

    jobs.heartbeat = keeps


def _without_dedup(jobs: Any) -> None:
    """Every delivery is a new one."""
    add = jobs.add

    async def adds(self: Any, new: Any) -> Any:
        return await add(self, [replace(each, key=f"{each.key}/{next(_numbers)}") for each in new])

    jobs.add = adds


def _without_heartbeat(jobs: Any) -> None:
    """Leases are not kept."""

    async def keeps(self: Any, claimed: Any, *, lease: float) -> set[str]:
        return set()

    jobs.heartbeat = keeps


def _acknowledges_first(jobs: Any) -> None:
    """The vendor hears 2xx before anything is on the disk."""
    add = jobs.add

    async def adds(self: Any, new: list[NewJob]) -> list[Added]:
        async def later() -> None:
            await asyncio.sleep(LATER)
            await add(self, new)

        task = asyncio.get_running_loop().create_task(later())
        _left_alone.add(task)
        task.add_done_callback(_left_alone.discard)
        return [Added.NEW] * len(new)

    jobs.add = adds


def _never_takes_over(jobs: Any) -> None:
    """What a dead process leased stays leased."""
    claim = jobs.claim

    async def claims(self: Any, queues: Any, *, owner: str, limit: int, lease: float) -> Any:
        return await claim(self, queues, owner=owner, limit=limit, lease=lease + 1800)

    async def releases(self: Any, owner: str) -> int:
        return 0

    jobs.claim, jobs.release = claims, releases


def _without_order(jobs: Any) -> None:
    """Ordering keys are forgotten."""
    add = jobs.add

    async def adds(self: Any, new: Any) -> Any:
        return await add(self, [replace(each, ordering_key="") for each in new])

    jobs.add = adds
