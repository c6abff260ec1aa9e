"""Jobs that come to a worker that waits straight from whoever added them, without a claim in between."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count

from holdfast.errors import HoldfastError
from holdfast.stores.documents import utf8
from holdfast.stores.redis_rows import Argument, queue_id, read_jobs
from holdfast.stores.store import Job


@dataclass(frozen=True, slots=True)
class Handover:
    """What comes to one who waits."""

    number: int
    waiter: asyncio.Future[None]
    """Wakes who waits."""
    jobs: list[Job] = field(default_factory=list[Job])

    def take(self, job: Job) -> None:
        self.jobs.append(job)
        if not self.waiter.done():
            self.waiter.set_result(None)


class Handovers:
    """Who waits in this process for the next job that comes, and what came."""

    def __init__(self, give_back: Callable[[Job], Awaitable[None]]) -> None:
        self._give_back = give_back
        self._numbers = count(1)
        self._waiting: dict[int, Handover] = {}
        self._last: dict[bytes, str] = {}
        """Of each queue, the number of the job that came last."""
        self._returning: set[asyncio.Task[None]] = set()

    @contextmanager
    def expected(self) -> Generator[Handover]:
        """Take what comes, as long as this is open."""
        handover = Handover(next(self._numbers), asyncio.get_running_loop().create_future())
        self._waiting[handover.number] = handover
        try:
            yield handover
        except BaseException:
            for job in handover.jobs:
                self._return(job)
            raise
        finally:
            del self._waiting[handover.number]

    def offer(
        self, handover: Handover, queues: Sequence[str], *, owner: str, lease: float, timeout: float
    ) -> Sequence[Argument]:
        """What the server is told of one who waits."""
        lengths = round(timeout * 1_000_000), round(lease * 1_000_000)
        offer: list[Argument] = [handover.number, min(self._waiting), lengths[0], utf8(owner), lengths[1]]
        for queue in map(queue_id, dict.fromkeys(queues)):
            offer += queue, self._last.get(queue, "")
        return offer

    def came(self, data: bytes) -> None:
        """A job that was just added is leased to one who waits here, or did until now."""
        with suppress(ValueError, LookupError, struct.error):  # not ours
            number, _, shown = data.partition(b" ")
            [job] = read_jobs(0, shown)
            self._last[queue_id(job.queue)] = job.id.partition("-")[0]
            handover = self._waiting.get(int(number))
            if handover is not None:
                handover.take(job)
            else:
                self._return(job)

    def _return(self, job: Job) -> None:
        """It came too late, and nobody began it: that is no loss."""

        async def give_back() -> None:
            with suppress(HoldfastError):  # somebody else has it, or its lease runs out
                await self._give_back(job)

        returning = asyncio.get_running_loop().create_task(give_back())
        self._returning.add(returning)
        returning.add_done_callback(self._returning.discard)
