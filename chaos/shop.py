"""The user's program under test: a vendor that signs, a handler with an effect, and a database for that."""

import asyncio
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from hmac import digest
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from chaos.journal import Journal
from chaos.points import Points
from holdfast import Event, Holdfast, Secrets, WorkerOptions, handled_ddl
from holdfast.errors import VersionConflict
from holdfast.http.session import Http
from holdfast.http.vendor import HttpDefaults
from holdfast.payments.provider import Capabilities, OfferRequest, PaymentSnapshot
from holdfast.queue import events
from holdfast.queue.backlog import BacklogLimits
from holdfast.queue.inbox import Arrived
from holdfast.queue.worker import Result
from holdfast.stores.store import Draft, Job, NewJob
from holdfast.telemetry import Telemetry
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacBody, Scheme

NAME: Final = "chaos"
HANDLER: Final = "count"
SECRET: Final = "the-vendors-webhook-secret"
SIGNATURE: Final = "x-chaos-signature"
SECONDS: Final = {"plain": 0.002, "slow": 0.15, "fails": 0.002, "long": 2.0, "held": 2.5}
"""What a handler of that kind takes."""
BLOCKED: Final = 2.0

current: ContextVar[Job | None] = ContextVar("current", default=None)


def sign(body: bytes) -> str:
    """As the vendor does."""
    return digest(SECRET.encode(), body, "sha256").hex()


@dataclass(kw_only=True, eq=False)
class Vendor(HttpDefaults):
    """It sends `{"id", "order", "seq", "mode"}`, and can be asked nothing."""

    name: str = NAME
    base_url: str = "http://127.0.0.1:9"
    capabilities: Capabilities = field(default_factory=lambda: Capabilities(currencies=None))
    scheme: Scheme | None = field(default_factory=lambda: HmacBody(SIGNATURE))
    webhook_secrets: Secrets | None = field(default_factory=lambda: Secrets(SECRET))

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        raise NotImplementedError

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        raise NotImplementedError

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        fact = json.loads(request.body)
        return [Delivery(type="happened", dedup_key=fact["id"], vendor_id=fact["order"], recognised=False)]


@dataclass(frozen=True, kw_only=True)
class Happened(Event):
    """What the vendor told."""

    type: ClassVar[str] = "chaos.happened"
    mode: str = "plain"
    variant: str = ""


class Effects(Protocol):
    """The user's database."""

    def add(self, event: Happened, job: Job, points: Points) -> None:
        """The effect, and the proof that it happened, in one transaction."""
        ...


INSERT: Final = "INSERT INTO effects VALUES (:event, :handler, :generation, :token, :pid, :variant)"
TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS effects (event text, handler text, generation int, token int, pid int, variant text)"
)


def _row(event: Happened, job: Job) -> dict[str, Any]:
    return {
        "event": event.id,
        "handler": HANDLER,
        "generation": job.generation,
        "token": job.token,
        "pid": os.getpid(),
        "variant": event.variant,
    }


class InFile:
    """A SQLite file of the user's."""

    def __init__(self, path: Path, *, proof: bool = True) -> None:
        self._proof = proof
        self._database = sqlite3.connect(path, timeout=20, isolation_level=None, check_same_thread=False)

    @staticmethod
    def create(path: Path) -> None:
        """Before anybody uses it."""
        database = sqlite3.connect(path)
        with contextlib.closing(database):
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(TABLE)
            database.execute(handled_ddl("sqlite"))
            database.commit()

    def add(self, event: Happened, job: Job, points: Points) -> None:
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            with event.handled_in(database) if self._proof else contextlib.nullcontext():
                database.execute(INSERT, _row(event, job))
            points.reach("effect.before")
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        points.reach("effect.after")


class InStore:
    """A table of the user's in the store's own file."""

    @staticmethod
    def create(path: Path) -> None:
        """Before anybody uses it, and after the store made its own."""
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute(TABLE.replace("effects", "shop_effects"))
            database.commit()


class InPostgres:
    """Tables of the user's beside ours, in the same server."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"), pool_pre_ping=True)

    @classmethod
    def create(cls, url: str) -> None:
        """Before anybody uses it."""
        with cls(url)._engine.begin() as connection:
            connection.execute(text(TABLE))
            connection.execute(text(handled_ddl("postgresql")))

    def add(self, event: Happened, job: Job, points: Points) -> None:
        with Session(self._engine) as session, session.begin():
            with event.handled_in(session):
                session.execute(text(INSERT), _row(event, job))
            points.reach("effect.before")
        points.reach("effect.after")


class Shop(Holdfast):
    """A hub that writes down what it is about to run, and how that ended."""

    def __init__(
        self,
        url: str,
        *,
        options: WorkerOptions,
        journal: Journal,
        points: Points,
        effects: Effects | None,
        backlog: BacklogLimits | None = None,
    ) -> None:
        super().__init__(
            store=url,
            secret=Secrets("the-hubs-own-secret"),
            public_url="https://shop.example/webhooks",
            payments=[Vendor()],
            worker=options,
            backlog=backlog,
            telemetry=Telemetry([]),
        )
        self._journal = journal
        self._points = points
        self._effects = effects
        self.on_delivery(NAME)(self._look)
        if effects is None:
            self.on(Happened, name=HANDLER, transactional=True)(self._count_inside)
        else:
            self.on(Happened, name=HANDLER)(self._count)

    async def _look(self, arrived: Arrived) -> None:
        """As a family does: a change of a record, and the event it means, are one."""
        if arrived.type != "happened":
            return  # authentic, and nobody can read it
        fact = json.loads(arrived.body)
        event = Happened(
            id=f"{NAME}/{fact['id']}",
            reference=fact["order"] or fact["id"],
            at=datetime.now(UTC),
            mode=fact["mode"],
            variant=fact.get("variant", ""),
        )
        job = NewJob(
            queue=events.QUEUE,
            key=f"{event.id}/{HANDLER}",
            kind=Happened.type,
            handler=HANDLER,
            body=events.encode(event),
            digest=sha256(fact["id"].encode()).hexdigest(),
            ordering_key=f"{NAME}/{fact['order']}" if fact["order"] else "",
        )
        with contextlib.suppress(VersionConflict):  # it was looked at before
            await self.store.records.apply(NAME, fact["id"], 0, Draft(value={}), jobs=[job])

    async def _count(self, event: Happened) -> None:
        job = current.get()
        assert job is not None
        if event.mode == "deadly":
            self._journal.write("died", pid=os.getpid(), at=time.monotonic(), how="deadly")
            os._exit(9)
        if event.mode == "blocks" and job.attempts == 0:
            time.sleep(BLOCKED)  # noqa: ASYNC251  # the very thing that must cost no lease
        await asyncio.sleep(SECONDS.get(event.mode, 0.002))
        if event.mode == "hopeless" or (event.mode == "fails" and job.attempts == 0):
            raise ValueError("not this time")
        assert self._effects is not None
        if isinstance(self._effects, InPostgres):
            await asyncio.to_thread(self._effects.add, event, job, self._points)
        else:
            self._effects.add(event, job, self._points)

    def _count_inside(self, event: Happened, connection: sqlite3.Connection) -> None:
        """In the thread that writes, in the transaction that ends the job."""
        if event.mode == "fails" and event.fencing_token == 1:
            raise ValueError("not this time")
        row = {"event": event.id, "handler": HANDLER, "generation": 0, "pid": os.getpid(), "variant": event.variant}
        connection.execute(INSERT.replace("effects", "shop_effects"), row | {"token": event.fencing_token})
        self._points.reach("effect.before")

    async def _perform(self, job: Job) -> Result:
        current.set(job)
        self._write("start", job)
        try:
            result = await super()._perform(job)
        except BaseException as error:
            self._write("end", job, outcome=type(error).__name__)
            raise
        self._write("end", job, outcome=result)
        return result

    def _write(self, what: str, job: Job, **more: str) -> None:
        self._journal.write(
            what,
            at=time.monotonic(),
            pid=os.getpid(),
            queue=job.queue,
            job=job.id,
            key=job.key,
            generation=job.generation,
            token=job.token,
            attempts=job.attempts,
            losses=job.losses,
            **more,
        )
