"""What the five parts of the Redis store share: its servers, its time, its scripts, and who waits."""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any, NoReturn, TypeVar, cast

from redis.crc import key_slot
from redis.exceptions import NoScriptError, ResponseError

from holdfast.clock import Clock, SystemClock
from holdfast.errors import ConfigurationError, SchemaTooNew, StoreUnavailable
from holdfast.stores import redis_scripts as scripts
from holdfast.stores.lifetime import Lifetime
from holdfast.stores.listeners import Listeners
from holdfast.stores.readiness import Readiness
from holdfast.stores.redis_address import Address, Durability
from holdfast.stores.redis_doctor import Settings, settings
from holdfast.stores.redis_errors import translate
from holdfast.stores.redis_facts import Facts
from holdfast.stores.redis_gathering import Gathering
from holdfast.stores.redis_lane import Command
from holdfast.stores.redis_migrations import SCHEMA, migrate
from holdfast.stores.redis_rows import KEYS
from holdfast.stores.redis_scripts import Script
from holdfast.stores.redis_servers import Servers
from holdfast.stores.store_time import StoreTime, micros, moment

T = TypeVar("T")


class ServerTime(StoreTime):
    """What the server's clock says, reckoned on from its last answer."""

    def __init__(self, clock: Clock, skew_ms: int) -> None:
        super().__init__(clock, skew_ms)
        self._monotonic = clock.monotonic
        self._answered = clock.now(), clock.monotonic()

    def answered(self, moment: datetime) -> None:
        self._answered = moment, self._monotonic()

    def now(self) -> datetime:
        moment, at = self._answered
        return moment + timedelta(seconds=self._monotonic() - at)


class Engine:
    """One keyspace, opened."""

    def __init__(self, address: Address, clock: Clock, skew_ms: int) -> None:
        self.address = address
        self.partitions = address.partitions
        self.lifetime = Lifetime(str(address))
        # The servers tell the time; only a clock that a test holds in its hands replaces theirs.
        self._server_time = ServerTime(clock, skew_ms) if isinstance(clock, SystemClock) else None
        self.time = self._server_time or StoreTime(clock, skew_ms)
        self.readiness = Readiness(clock, self.time)
        self.listeners = Listeners()
        self.servers = Servers(address)
        self.origin = secrets.token_hex(8)
        """Who said that jobs are ready: this opened store."""
        self.gatherings: list[Gathering[Any, Any]] = []
        """What callers ask for together, and is to be answered before this is closed."""
        self.take: Callable[[bytes], None] | None = None
        """Told of every job that was handed over to this opened store."""
        self._clock = clock
        self._partition_keys: dict[tuple[int, tuple[str, ...]], Sequence[bytes]] = {}
        self._confirm: Command | None = None

    async def open(self) -> None:
        self.lifetime.open()
        self.servers = Servers(self.address)
        channels = {self.key("facts"): self._told, self.key("ready"): self._woken}
        channels[self.key("ready", self.origin)] = self._handed
        self.facts = Facts(self.servers, self._clock, channels=channels, missed=self.readiness.changed)
        try:
            await self._migrate()
            self._confirm = await self._confirmation()
            await self.now()
        except BaseException:
            self.lifetime.close()
            await self.servers.close()
            raise

    async def close(self) -> None:
        if self.lifetime.is_open:
            self.lifetime.close()
            for gathering in self.gatherings:
                await gathering.close()
            await self.facts.close()
            await self.servers.close()

    async def now(self) -> datetime:
        self.lifetime.check()
        if self._server_time is None:
            return self.time.now()
        self.answered(await self.call(scripts.TIME, [self.key("schema")]))
        return self.time.now()

    def answered(self, time: bytes) -> None:
        """A script said what time it is."""
        if self._server_time is not None:
            self._server_time.answered(moment(int(time)))

    def key(self, *names: str) -> str:
        return ":".join((self.address.namespace, *names))

    def partition(self, identity: bytes) -> int:
        """Where something lives; never changes for a keyspace."""
        if self.partitions == 1:
            return 0
        return int.from_bytes(blake2b(identity, digest_size=4).digest()) % self.partitions

    def partition_keys(self, partition: int, names: tuple[str, ...]) -> Sequence[bytes]:
        """Keys of one slot."""
        keys = self._partition_keys.get((partition, names))
        if keys is None:
            tag = f"{{{self.address.namespace}:{partition}}}"
            keys = self._partition_keys[partition, names] = [f"{tag}:{name}".encode() for name in names]
        return keys

    async def call(
        self, script: Script, keys: Sequence[str | bytes], *arguments: str | int | bytes, confirm: bool = False
    ) -> Any:
        """Run a script once; `confirm` waits until its changes are as durable as the URL asks.

        Raises:
            StoreUnavailable: Its answer is missing. It may have run: no script of ours does harm by that.
        """
        self.lifetime.check()
        return await self.run(script, keys, *arguments, confirm=confirm)

    async def run(
        self, script: Script, keys: Sequence[str | bytes], *arguments: str | int | bytes, confirm: bool = False
    ) -> Any:
        """As `call`, for what was asked for before the store was closed."""
        first = keys[0] if isinstance(keys[0], bytes) else keys[0].encode()
        slot, behind = _slot(first), self._confirm if confirm else None
        rest = (len(keys), *keys, *self._time_arguments(), *arguments)
        try:
            try:
                answer, confirmed = await self.servers.run(slot, ("EVALSHA", script.hash, *rest), behind)
            except NoScriptError:
                answer, confirmed = await self.servers.run(slot, ("EVAL", script.source, *rest), behind)
        except Exception as error:  # a border: the table of errors tells them apart
            self.refuse(error)
        if behind is not None:
            _require_copies(confirmed)
        return answer

    @property
    def confirms(self) -> bool:
        """Changes are waited for, until they are as durable as the URL asks."""
        return self._confirm is not None

    async def settings(self) -> list[Settings]:
        """What each server says about itself."""
        self.lifetime.check()
        try:
            infos = await self.servers.ask_all(("INFO",))
            try:
                fsyncs = await self.servers.ask_all(("CONFIG", "GET", "appendfsync"))
            except ResponseError:
                fsyncs = [None] * len(infos)
        except Exception as error:  # a border: the table of errors tells them apart
            self.refuse(error)
        return [settings(*answers) for answers in zip(infos, fsyncs, strict=True)]

    async def publish(self, topic: str, fact: str) -> None:
        """Tell every process that listens, in the order of the calls."""
        self.lifetime.check()
        try:
            await self.servers.run(0, ("PUBLISH", self.key("facts"), json.dumps([topic, fact])))
        except Exception as error:  # a border: the table of errors tells them apart
            self.refuse(error)

    async def listening(self) -> None:
        """Return when facts published from now on will be told, and none from before."""
        self.lifetime.check()
        try:
            await self.facts.caught_up()
        except Exception as error:  # a border: the table of errors tells them apart
            self.refuse(error)

    def refuse(self, error: Exception) -> NoReturn:
        """Raise it as holdfast says it; what is no error of Redis is raised as it is."""
        ours = translate(error, secret=self.address.password)
        if ours is error:
            raise error
        raise ours from ours.__cause__

    def _time_arguments(self) -> tuple[str | int, int]:
        if self._server_time is None:
            return micros(self.time.now()), 0
        return "", self.time.skew_ms * 1000

    async def _migrate(self) -> None:
        version = await self._schema()
        if version > SCHEMA:
            raise SchemaTooNew(version, SCHEMA)
        if version < SCHEMA:
            for partition in range(self.partitions):
                keys = self.partition_keys(partition, KEYS)
                await migrate(partial(self.call, scripts.MIGRATE, keys, self.key("ready"), self.origin))
            await self._schema(migrated=True)

    async def _schema(self, *, migrated: bool = False) -> int:
        found = await self.call(scripts.SCHEMA, [self.key("schema")], SCHEMA, self.address.partitions, int(migrated))
        version, self.partitions = (int(number) for number in found)
        return version

    async def _confirmation(self) -> Command | None:
        """What is asked after a change, over the same connection."""
        patience = round(self.address.timeout * 500)
        if self.address.durability is Durability.REPLICATED:
            return ("WAIT", 1, patience)
        if self.address.durability is Durability.FSYNC:
            found = await self.settings()
            if not all(each.append_only for each in found):
                raise ConfigurationError(f"{self.address}: durability=fsync needs a server with appendonly yes")
            if not all(each.fsync == "always" for each in found):
                if any(each.version < (7, 2) for each in found):
                    raise ConfigurationError(
                        f"{self.address}: durability=fsync needs appendfsync always, or Redis 7.2 or newer"
                    )
                return ("WAITAOF", 1, 0, patience)
        return None

    def _told(self, data: bytes) -> None:
        with suppress(ValueError, TypeError):  # not ours
            topic, fact = json.loads(data)
            self.listeners.tell(topic, fact)

    def _woken(self, origin: bytes) -> None:
        if origin != self.origin.encode():
            self.readiness.changed()

    def _handed(self, data: bytes) -> None:
        if self.take is not None:
            self.take(data)


_slot = lru_cache(4096)(key_slot)


async def together(calls: Iterable[Awaitable[T]]) -> list[T]:
    """What each answered; the first error is raised when all are through."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return cast("list[T]", answers)


def _require_copies(answer: int | list[int]) -> None:
    """`WAIT` answers how many replicas have it, `WAITAOF` how many disks, this server's first."""
    copies = answer[0] if isinstance(answer, list) else answer
    if copies < 1:
        raise StoreUnavailable("redis: the server has it, but no replica or disk confirmed it in time; try again")
