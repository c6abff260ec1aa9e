"""Answers that the processes of one store share."""

import base64
import hashlib
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Generic, TypeVar

from holdfast.errors import InvalidInput, VersionConflict
from holdfast.resilience.cache import SharedAnswer
from holdfast.stores.store import Draft, Json, Record, Store
from holdfast.stores.store_time import MICROSECOND, micros, moment

T = TypeVar("T")

MAX_SIZE = 256 * 1024
"""Bytes of an encoded answer; a larger one is not shared."""


class SharedCache(Generic[T]):
    """Keeps encoded answers in a store, for every process that names the same cache.

    `SharedCache(store, "rates", encode=to_json, decode=from_json)`; what `encode` returns rests in the store as it is.
    Records are never deleted, so there are `slots` of them: two keys that meet in one slot take turns, which costs a
    fetch, and all processes must name the same number.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
        slots: int = 4096,
    ) -> None:
        if not name or not 1 <= slots <= 1_000_000:
            raise InvalidInput(f"a shared cache has a name and 1 to 1000000 slots, not {name!r} and {slots}")
        self._store = store
        self._kind = f"cache:{name}"
        self._encode = encode
        self._decode = decode
        self._slots = slots

    def encode(self, answer: T, /) -> bytes:
        """The answer as bytes."""
        return self._encode(answer)

    def decode(self, data: bytes, /) -> T:
        """The inverse of `encode`."""
        return self._decode(data)

    async def get(self, key: str, /) -> SharedAnswer | None:
        """What was put last under the key, unless its time is over. Raises StoreUnavailable."""
        slot, digest = self._place(key)
        record = await self._store.records.get(self._kind, slot)
        if record is None or record.due_at is None or record.value.get("key") != digest:
            return None
        now = await self._store.now()
        if record.due_at <= now:
            return None
        age = now - moment(int(str(record.value["at"])))
        return SharedAnswer(base64.b64decode(str(record.value["data"])), age / timedelta(seconds=1))

    async def put(self, key: str, data: bytes, /, *, ttl: float) -> None:
        """Keep it for `ttl` seconds of the store's time, unless another process puts one at this moment.

        Raises:
            StoreUnavailable: The store is down; nothing was kept.
        """
        if len(data) > MAX_SIZE:
            return
        slot, digest = self._place(key)
        record = await self._store.records.get(self._kind, slot)
        now = await self._store.now()
        value: dict[str, Json] = {"key": digest, "at": micros(now), "data": base64.b64encode(data).decode()}
        await self._apply(record, slot, Draft(value=value, due_at=now + max(MICROSECOND, timedelta(seconds=ttl))))

    async def purge(self, *, limit: int = 1000) -> int:
        """Empty the records whose time is over; how many there were. Raises StoreUnavailable."""
        old = await self._store.records.due(self._kind, limit=limit)
        for record in old:
            await self._apply(record, record.key, Draft(value={}))
        return len(old)

    async def _apply(self, record: Record | None, slot: str, new: Draft) -> None:
        with suppress(VersionConflict):  # another process was quicker, and its answer is as new as ours
            await self._store.records.apply(self._kind, slot, record.version if record else 0, new)

    def _place(self, key: str) -> tuple[str, str]:
        """The record for the key, and the key's digest: the key itself may name people."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        return str(int(digest, 16) % self._slots), digest
