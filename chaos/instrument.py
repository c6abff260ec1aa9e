"""Wraps stores, worker and receiver from outside: named places to die at, and a line for every change of a job."""

import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

from psycopg import AsyncTransaction
from redis.asyncio.connection import AbstractConnection

from chaos.journal import Journal
from chaos.points import Points
from holdfast.errors import LeaseLost
from holdfast.stores import sqlite_engine
from holdfast.stores.store import Change, HandsOver, Job, Store, SupportsTransactions

ENDS: Final = ("complete", "ignore", "bury")
GIVES_BACK: Final = ("retry", "snooze")

App = Callable[[Any, Any, Any], Awaitable[None]]
Message = MutableMapping[str, Any]


def store(opened: Store, journal: Journal, points: Points) -> None:
    """The verbs of this engine, for every store of it in this process."""
    jobs: Any = type(opened.jobs)
    for verb in (*ENDS, *GIVES_BACK):
        setattr(jobs, verb, _change(verb, getattr(jobs, verb), journal, points))
    if isinstance(opened.jobs, SupportsTransactions):
        jobs.complete_with = _complete_with(jobs.complete_with, journal, points)
    jobs.add = _around("append", jobs.add, points)
    jobs.purge = _around("prune", jobs.purge, points)
    jobs.claim = _claim(jobs.claim, journal, points)
    if isinstance(opened.jobs, HandsOver):
        jobs.take_next = _claim(jobs.take_next, journal, points)


def sqlite(points: Points) -> None:
    """Commits and checkpoints of every connection that is opened from now on."""

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            place = "commit" if statement == "COMMIT" else "checkpoint" if "wal_checkpoint" in statement else ""
            if not place:
                return super().execute(statement, *parameters)
            points.reach(f"{place}.before")
            answer = super().execute(statement, *parameters)
            points.reach(f"{place}.after")
            return answer

    module: Any = sqlite3
    connect = sqlite3.connect

    def connect_ours(*arguments: Any, **options: Any) -> Any:
        return connect(*arguments, **({"factory": Connection} | options))

    module.connect = connect_ours
    sqlite_engine.CHECKPOINT_EVERY = 50  # a life is too short for as many rows as usual


def redis(points: Points) -> None:
    """Exchanges with a server: before it is asked, and before anybody hears its answer."""
    connection: Any = AbstractConnection
    send, read = connection.send_packed_command, connection.read_response

    async def sends(*arguments: Any, **options: Any) -> None:
        points.reach("commit.before")
        await send(*arguments, **options)

    async def reads(*arguments: Any, **options: Any) -> Any:
        answer = await read(*arguments, **options)
        points.reach("commit.after")
        return answer

    connection.send_packed_command, connection.read_response = sends, reads


def postgres(points: Points) -> None:
    """Ends of transactions."""
    transaction: Any = AsyncTransaction
    transaction.__aexit__ = _around("commit", transaction.__aexit__, points)


def receiver(app: App, points: Points) -> App:
    """Before a 2xx is written, and after it."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        acknowledges = False

        async def sending(message: Message) -> None:
            nonlocal acknowledges
            if message["type"] == "http.response.start":
                acknowledges = 200 <= message["status"] < 300
            if acknowledges and message["type"] == "http.response.start":
                points.reach("ack.before")
            await send(message)
            if acknowledges and message["type"] == "http.response.body":
                points.reach("ack.after")

        await app(scope, receive, sending)

    return wrapped


def _around(place: str, function: Any, points: Points) -> Any:
    async def wrapped(*arguments: Any, **options: Any) -> Any:
        points.reach(f"{place}.before")
        answer = await function(*arguments, **options)
        points.reach(f"{place}.after")
        return answer

    return wrapped


def _claim(function: Any, journal: Journal, points: Points) -> Any:
    async def wrapped(*arguments: Any, **options: Any) -> Any:
        points.reach("claim.before")
        asked = time.monotonic()
        claimed = await function(*arguments, **options)
        for job in claimed:
            journal.write("claim", asked=asked, at=time.monotonic(), pid=os.getpid(), job=job.id, token=job.token)
        if claimed:
            points.reach("claim.after")
        return claimed

    return wrapped


def _complete_with(function: Any, journal: Journal, points: Points) -> Any:
    async def wrapped(self: Any, changes: Sequence[tuple[Job, Change]]) -> Any:
        points.reach("mark.before")
        asked = time.monotonic()
        results = await function(self, changes)
        for (job, _), result in zip(changes, results, strict=False):
            if result is None or isinstance(result, LeaseLost):
                about = {"job": job.id, "token": job.token, "pid": os.getpid(), "verb": "complete_with"}
                what = "change" if result is None else "fenced"
                journal.write(what, asked=asked, at=time.monotonic(), **about)
        points.reach("mark.after")
        return results

    return wrapped


def _change(verb: str, function: Any, journal: Journal, points: Points) -> Any:
    async def wrapped(self: Any, job: Job, **options: Any) -> None:
        def note(what: str) -> None:
            journal.write(
                what, verb=verb, asked=asked, at=time.monotonic(), pid=os.getpid(), job=job.id, token=job.token
            )

        points.reach("mark.before")
        asked = time.monotonic()
        try:
            await function(self, job, **options)
        except LeaseLost:
            note("fenced")
            raise
        note("change")
        points.reach("mark.after")

    return wrapped
