"""The queue in Redis."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from heapq import nsmallest
from itertools import islice
from typing import Any, Final

from holdfast.errors import AlreadyReplayed, LeaseLost, NotFound, StoreError
from holdfast.stores import poison
from holdfast.stores import redis_scripts as scripts
from holdfast.stores.documents import utf8
from holdfast.stores.readiness import Outlook
from holdfast.stores.redis_engine import Engine, together
from holdfast.stores.redis_gathering import Gathering
from holdfast.stores.redis_handovers import Handovers
from holdfast.stores.redis_rows import (
    ARGUMENTS,
    KEYS,
    LETTERS,
    STATES,
    Argument,
    describe,
    ending,
    first_payload,
    job_id,
    payload,
    queue_id,
    read_jobs,
)
from holdfast.stores.redis_scripts import Script
from holdfast.stores.store import ALL_JOBS, Added, Job, JobFilter, JobState, NewJob
from holdfast.stores.store_time import micros, moment

ENDED: Final = {JobState.DONE, JobState.IGNORED, JobState.DEAD}
ANSWERS: Final = {b"0": Added.NEW, b"1": Added.DUPLICATE, b"2": Added.CONFLICT}
OF_EACH: Final = {scripts.ADD: ARGUMENTS, scripts.FINISH: 1, scripts.GIVE_BACK: 5}
"""Arguments of each job, in the scripts that many callers share."""
DUE: Final = 32
"""Digits that say when a job is due, and its number."""
PAGE: Final = 200
CARRIED: Final = 100
CLAIMED: Final = 100
"""In one script, at most: between two of them the server does what others ask, such as to note that a job is done."""
ID: Final = re.compile(r"([0-9]{16})-([0-9]{1,4})")
ANSWER: Final = re.compile(rb"[0-9]|@[0-9]{16}")

Place = tuple[int, str]
"""A partition, and a number in it."""


class RedisJobs:
    """The queue."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._gatherings: dict[tuple[Script, int], Gathering[Sequence[Argument], Sequence[bytes]]] = {}
        self._handovers = Handovers(lambda job: self.snooze(job, after=0.0))
        engine.take = self._handovers.came

    async def add(self, jobs: Sequence[NewJob]) -> list[Added]:
        self._engine.lifetime.check()
        arguments = self.arguments(jobs)
        if not jobs:
            return []
        here = int(arguments[0])
        size = len(jobs[0].body) if len(jobs) == 1 else sum(len(new.body) for new in jobs)
        answers = await self._gathering(scripts.ADD, here).ask(arguments, size)
        return await self.settle(here, arguments, answers)

    def arguments(self, jobs: Sequence[NewJob]) -> Sequence[Argument]:
        """What the scripts that add jobs take."""
        if len(jobs) == 1:
            return describe(jobs[0], self._engine.partition)
        return [argument for new in jobs for argument in describe(new, self._engine.partition)]

    async def settle(self, here: int, arguments: Sequence[Argument], answers: Sequence[bytes]) -> list[Added]:
        """Bring the jobs that were kept in partition `here` to where they belong; what became of each job."""
        self._engine.readiness.changed()
        if len(answers) == 1 and answers[0] in ANSWERS:
            return [ANSWERS[answers[0]]]
        kept = [number for number, answer in enumerate(answers) if answer not in ANSWERS]
        homes = {int(arguments[number * ARGUMENTS]) for number in kept}
        brought = dict(ANSWERS)
        for found in await together(self._carry(here, f"{home:04d}") for home in homes):
            brought |= found
        return [brought[answer] for answer in answers]

    async def claim(self, queues: Sequence[str], *, owner: str, limit: int, lease: float) -> list[Job]:
        self._engine.lifetime.check()
        await self._engine.facts.settled()  # what is added after this claim is heard of
        self._engine.readiness.claiming()
        limit, wanted = max(0, limit), [queue_id(queue) for queue in dict.fromkeys(queues)]
        limits = dict.fromkeys(self._partitions, limit)
        if len(limits) > 1:
            limits = await self._oldest(wanted, limit)
        duration = round(lease * 1_000_000)
        claimed = await together(
            self._claim(partition, owner, duration, limit, wanted) for partition, limit in limits.items()
        )
        jobs = [job for found in claimed for job in found]
        return sorted(jobs, key=lambda job: (job.due_at, job.id))

    async def heartbeat(self, claimed: Sequence[Job], *, lease: float) -> set[str]:
        self._engine.lifetime.check()
        held: defaultdict[int, list[Argument]] = defaultdict(list)
        lost: set[str] = set()
        for job in claimed:
            if (place := self._place(job.id)) is None:
                lost.add(job.id)
            else:
                held[place[0]] += (place[1], job.token)
        duration = round(lease * 1_000_000)
        answers = await together(
            self._call(scripts.HEARTBEAT, partition, duration, *pairs, confirm=True)
            for partition, pairs in held.items()
        )
        gone = zip(held, answers, strict=True)
        return lost | {job_id(partition, number) for partition, numbers in gone for number in numbers}

    async def complete(self, job: Job) -> None:
        await self._finish(job, JobState.DONE)

    async def ignore(self, job: Job) -> None:
        await self._finish(job, JobState.IGNORED)

    async def retry(self, job: Job, *, after: float, error: str) -> None:
        await self._give_back(job, after, attempts=1, error=error)

    async def snooze(self, job: Job, *, after: float) -> None:
        await self._give_back(job, after)

    async def bury(self, job: Job, *, reason: str, error: str) -> None:
        await self._finish(job, JobState.DEAD, reason, error)

    async def release(self, owner: str) -> int:
        self._engine.lifetime.check()
        released = await together(
            self._call(scripts.RELEASE, partition, utf8(owner), confirm=True) for partition in self._partitions
        )
        self._engine.readiness.changed()
        return sum(released)

    async def replay(self, job_id: str, *, generation: int | None = None) -> Job:
        row = await self._on(job_id, scripts.REPLAY, "" if generation is None else generation, confirm=True)
        self._engine.readiness.changed()
        return _job(self._home(job_id), row)

    async def drop(self, job_id: str, *, generation: int | None = None) -> bool:
        dropped = await self._on(job_id, scripts.DROP, "" if generation is None else generation, confirm=True)
        return bool(dropped)

    async def get(self, job_id: str) -> Job:
        return _job(self._home(job_id), await self._on(job_id, scripts.JOB_GET))

    async def list(
        self, where: JobFilter = ALL_JOBS, *, after: str = "", limit: int = 100, newest: bool = True
    ) -> Sequence[Job]:
        self._engine.lifetime.check()
        if after:
            self._home(after)
        found = await together(
            self._list(partition, where, after, max(0, limit), newest) for partition in self._partitions
        )
        jobs = sorted((job for jobs in found for job in jobs), key=lambda job: job.id, reverse=newest)
        return jobs[: max(0, limit)]

    async def count(self) -> Mapping[tuple[str, JobState], int]:
        self._engine.lifetime.check()
        total: Counter[tuple[str, JobState]] = Counter()
        for fields in await together(self._call(scripts.JOB_COUNT, partition) for partition in self._partitions):
            for field, rows in zip(fields[::2], fields[1::2], strict=True):
                total[field[9:].decode(), STATES[field[:1]]] += int(rows)
        return total

    async def oldest(self) -> Mapping[str, datetime]:
        self._engine.lifetime.check()
        oldest: dict[str, datetime] = {}
        for found in await together(self._call(scripts.OLDEST, partition) for partition in self._partitions):
            for name, due_at in zip(found[::2], found[1::2], strict=True):
                queue, due = name.decode(), moment(int(due_at))
                oldest[queue] = min(due, oldest.get(queue, due))
        return oldest

    async def purge(
        self, *, older_than: float, states: Sequence[JobState] = (JobState.DONE, JobState.IGNORED), limit: int = 1000
    ) -> int:
        self._engine.lifetime.check()
        letters = [LETTERS[state] for state in {*states} & ENDED]
        age = round(older_than * 1_000_000)
        limits = dict.fromkeys(self._partitions, limit)
        keys = limit
        if len(limits) > 1:
            ended = await together(
                self._call(scripts.PURGE, partition, age, limit, "", *letters) for partition in self._partitions
            )
            moments = ((at, partition) for partition, found in enumerate(ended) for at in found)
            limits, keys = Counter(partition for _, partition in nsmallest(limit, moments)), 0
        dropped = await together(
            self._call(scripts.PURGE, partition, age, keys, jobs, *letters, confirm=True)
            for partition, jobs in limits.items()
        )
        return sum(dropped)

    async def rewrite(self, job: Job, *, body: bytes, headers: Mapping[str, str]) -> bool:
        self._engine.lifetime.check()
        place = self._place(job.id)
        if place is None:
            return False
        wanted = payload(replace(job, body=body, headers=headers))
        present = payload(job), first_payload(job)
        return bool(await self._call(scripts.JOB_REWRITE, *place, wanted, *present, confirm=True))

    async def wait(self, timeout: float) -> None:
        self._engine.lifetime.check()
        await self._engine.readiness.wait(timeout, self._outlook)

    async def take_next(self, queues: Sequence[str], *, owner: str, lease: float, timeout: float) -> Sequence[Job]:
        if self._engine.partitions > 1 or self._engine.confirms:
            # One may come from every partition; and what was not confirmed yet must not begin.
            await self.wait(timeout)
            return []
        self._engine.lifetime.check()
        with self._handovers.expected() as handover:
            offer = self._handovers.offer(handover, queues, owner=owner, lease=lease, timeout=timeout)
            await self._engine.readiness.wait(timeout, partial(self._outlook, offer=offer), handover.waiter)
        return handover.jobs

    async def _outlook(self, claimed_at: datetime, offer: Sequence[Argument] = ()) -> Outlook:
        since = micros(claimed_at)
        first: list[int] = []
        following: list[int] = []
        for partition, found in enumerate(
            await together(self._call(scripts.OUTLOOK, partition, since, *offer) for partition in self._partitions)
        ):
            now, earliest, later, kept = found
            self._engine.answered(now)
            first += [int(earliest)] if earliest else []
            following += [int(later)] if later else []
            if kept:
                await self._carry_all(partition)
        due = moment(min(following)) if following else None
        return Outlook(overdue=bool(first) and min(first) <= since, next=due)

    async def _oldest(self, queues: Sequence[bytes], limit: int) -> dict[int, int]:
        """How many of the jobs that are due longest lie in which partition."""
        due: list[tuple[bytes, int]] = []
        for partition, (now, kept, found) in enumerate(
            await together(self._look(partition, limit, queues) for partition in self._partitions)
        ):
            self._engine.answered(now)
            due += ((found[at : at + DUE], partition) for at in range(0, len(found), DUE))
            if kept:
                # Whoever added them died on the way, or is just bringing them.
                await self._carry_all(partition)
        return Counter(partition for _, partition in nsmallest(limit, due))

    async def _look(self, partition: int, limit: int, queues: Sequence[bytes]) -> Any:
        poisoned = poison.MAX_LOSSES, poison.REASON, poison.ERROR
        return await self._call(scripts.CLAIM, partition, "", "", limit, *poisoned, *queues)

    async def _claim(
        self, partition: int, owner: str, duration: int, limit: int, queues: Sequence[bytes]
    ) -> Sequence[Job]:
        jobs: list[Job] = []
        while True:
            some = min(limit - len(jobs), CLAIMED)
            try:
                found = await self._claim_some(partition, owner, duration, some, queues)
            except StoreError:
                if not jobs:
                    raise
                return jobs  # they are held
            jobs += found
            if len(found) < some or len(jobs) >= limit:
                return jobs

    async def _claim_some(
        self, partition: int, owner: str, duration: int, limit: int, queues: Sequence[bytes]
    ) -> Sequence[Job]:
        poisoned = poison.MAX_LOSSES, poison.REASON, poison.ERROR
        now, _, shown = await self._call(
            scripts.CLAIM, partition, utf8(owner), duration, limit, *poisoned, *queues, confirm=True
        )
        self._engine.answered(now)
        return read_jobs(partition, shown)

    async def _finish(self, job: Job, state: JobState, reason: str = "", error: str | None = None) -> None:
        partition, number = self._place_held(job)
        ended = ending(number, job.token, LETTERS[state], reason, _maybe(error))
        await self._held(job, scripts.FINISH, partition, (ended,))
        if job.ordering_key:
            self._engine.readiness.changed()

    async def _give_back(self, job: Job, after: float, *, attempts: int = 0, error: str | None = None) -> None:
        partition, number = self._place_held(job)
        given = number, job.token, round(after * 1_000_000), attempts, _maybe(error)
        await self._held(job, scripts.GIVE_BACK, partition, given)
        self._engine.readiness.changed()

    def _place_held(self, job: Job) -> Place:
        """Where the store keeps a job that was claimed."""
        self._engine.lifetime.check()
        place = self._place(job.id)
        if place is None:
            raise LeaseLost(f"job {job.id}")
        return place

    async def _held(self, job: Job, script: Script, partition: int, arguments: Sequence[Argument]) -> None:
        [held] = await self._gathering(script, partition).ask(arguments)
        if held == b"0":
            raise LeaseLost(f"job {job.id}")

    async def _on(self, job_id: str, script: Script, *arguments: Argument, confirm: bool = False) -> Any:
        """What the script answers. Raises NotFound, AlreadyReplayed."""
        self._engine.lifetime.check()
        place = self._place(job_id)
        answer = await self._call(script, place[0], place[1], *arguments, confirm=confirm) if place else None
        if answer is None:
            raise NotFound("job", job_id)
        if isinstance(answer, bytes):
            raise AlreadyReplayed(job_id, int(answer))
        return answer

    async def _list(self, partition: int, where: JobFilter, after: str, limit: int, newest: bool) -> Sequence[Job]:
        """Page by page, so that the server never works long on one."""
        queue = b"" if where.queue is None else queue_id(where.queue)
        state = b"" if where.state is None else LETTERS[where.state]
        some = replace(where, queue=None, state=None) != ALL_JOBS
        fits = _fits(where)
        bound = self._bound(partition, after, newest)
        jobs: list[Job] = []
        while len(jobs) < limit:
            page = PAGE if some else min(PAGE, limit - len(jobs))
            looked, last, *rows = await self._call(
                scripts.JOB_LIST, partition, queue, state, bound, page, int(newest), *fits
            )
            jobs += (job for row in rows if where.matches(job := _job(partition, row)))
            if looked < page:
                break
            bound = b"(" + last
        return jobs[:limit]

    def _bound(self, partition: int, after: str, newest: bool) -> bytes:
        """Where a list begins in this partition: ids are compared as text, numbers first, then partitions."""
        if not after:
            return b""
        home, number = self._place(after) or (0, "")
        behind = str(partition) < str(home) if newest else str(partition) > str(home)
        return (b"[" if behind else b"(") + number.encode()

    async def _carry_all(self, partition: int) -> None:
        while await self._carry(partition, ""):
            self._engine.readiness.changed()

    async def _carry(self, source: int, home: str) -> dict[bytes, Added]:
        """Bring jobs from the partition that kept them to the one they belong to, and forget them there.

        With a home all that belongs there, else some; what became of each.
        """
        answers: dict[bytes, Added] = {}
        while True:
            found = await self._call(scripts.CARRY_OUT, source, home, CARRIED)
            if not found:
                return answers
            target = found[0][0]
            brought = [part for _, place, packed in found for part in (place, packed)]
            added = await self._call(scripts.CARRY_IN, int(target), source, *brought, confirm=True)
            await self._call(scripts.CARRY_OFF, source, target, brought[-2])
            answers |= {b"@" + place: ANSWERS[b"%d" % each] for place, each in zip(brought[::2], added, strict=True)}
            if not home:
                return answers

    def _gathering(self, script: Script, partition: int) -> Gathering[Sequence[Argument], Sequence[bytes]]:
        found = self._gatherings.get((script, partition))
        if found is None:
            found = self._gatherings[script, partition] = Gathering(partial(self._call_for_all, script, partition))
            self._engine.gatherings.append(found)
        return found

    async def _call_for_all(
        self, script: Script, partition: int, asked: Sequence[Sequence[Argument]]
    ) -> Sequence[Sequence[bytes]]:
        """What a script that many share says to each of those who ask."""
        here = (partition,) if script is scripts.ADD else ()
        arguments = [argument for each in asked for argument in each]
        answers = iter(split(await self._call(script, partition, *here, *arguments, confirm=True)))
        return [[*islice(answers, len(each) // OF_EACH[script])] for each in asked]

    async def _call(self, script: Script, partition: int, *arguments: Argument, confirm: bool = False) -> Any:
        keys = self._engine.partition_keys(partition, KEYS)
        waking = self._engine.key("ready"), self._engine.origin
        return await self._engine.run(script, keys, *waking, *arguments, confirm=confirm)

    @property
    def _partitions(self) -> range:
        return range(self._engine.partitions)

    def _home(self, job_id: str) -> int:
        """The partition it lies in. Raises NotFound: it cannot be one of ours."""
        if (place := self._place(job_id)) is None:
            raise NotFound("job", job_id)
        return place[0]

    def _place(self, job_id: str) -> Place | None:
        found = ID.fullmatch(job_id)
        partition = int(found[2]) if found else -1
        return (partition, found[1]) if found and partition < self._engine.partitions else None


def split(answers: bytes) -> Sequence[bytes]:
    """What a script says about each of its jobs: a digit, or the place where one is kept for another partition."""
    return ANSWER.findall(answers)


def _job(partition: int, shown: Sequence[bytes]) -> Job:
    [job] = read_jobs(partition, shown[0])
    return job


def _fits(where: JobFilter) -> tuple[Argument, ...]:
    """What the server itself can tell."""
    return (
        _maybe(where.reason),
        _maybe(where.error),
        b"" if where.since is None else micros(where.since),
        b"" if where.until is None else micros(where.until),
    )


def _maybe(text: str | None) -> bytes:
    """A mark before a text sets an empty one apart from none."""
    return b"" if text is None else b"=" + utf8(text)
