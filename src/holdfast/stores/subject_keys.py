"""A key for each subject, kept wrapped in a record; destroying it makes all that rests under it unreadable."""

import asyncio
import base64
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from holdfast.errors import Forgotten, UnknownKey, Unreadable, VersionConflict
from holdfast.stores.key_ring import KEY_LENGTH, SUBJECT, Cipher, Envelope, KeyRing, disclose, enclose, place
from holdfast.stores.store import Draft, Json, Record, Records

KIND: Final = "subject-key"
EPOCH: Final = ("subject-keys", "epoch")
"""Its version grows with every key that is retired or destroyed: who finds it unchanged may use what is at hand."""
MOST_AT_HAND: Final = 10_000
AT_ONCE: Final = 16
"""Keys that are read side by side."""


@dataclass(frozen=True, slots=True)
class _Keys:
    """A subject's keys, as last read."""

    generation: int
    """Of the key that seals."""
    ciphers: Mapping[int, Cipher]
    problems: Mapping[int, str] = field(default_factory=dict[int, str])
    """Generations whose key is wrapped under a key that is not in the ring, and that key's id."""
    forgotten: bool = False


class SubjectKeys:
    """Finds, makes and destroys them."""

    def __init__(self, records: Callable[[], Records], ring: KeyRing) -> None:
        self._records = records
        self._ring = ring
        self._at_hand: dict[str, _Keys] = {}
        self._epoch = 0

    async def for_sealing(self, subjects: Iterable[str]) -> dict[str, tuple[int, Cipher]]:
        """Each subject's current key, made where there is none."""
        found: dict[str, tuple[int, Cipher]] = {}
        for subject, keys in (await self._find(set(subjects))).items():
            if keys is None or keys.generation not in keys.ciphers:
                keys = await self._make(subject, new=keys is None)
            found[subject] = keys.generation, keys.ciphers[keys.generation]
        return found

    async def for_opening(self, subjects: Iterable[str]) -> "Openers":
        """What opens the envelopes of these subjects."""
        return Openers(await self._find(set(subjects)))

    async def retire(self, subject: str) -> bool:
        """Seal under another key from now on; what rests under the old one stays readable. False: there was none."""
        return await self._change(subject, _retired)

    async def destroy(self, subject: str, told: Mapping[str, Json]) -> bool:
        """Destroy the keys that were retired, and keep what is `told` of it; also where there was none, for what rests
        as if under one."""
        return await self._change(subject, lambda value: _destroyed(value or {"generation": 1}, told))

    async def rewrap(self, record: Record) -> bool:
        """Wrap the keys of this record under the ring's current key; False: they are already, or it changed.

        Raises:
            UnknownKey, Unreadable: A key of it cannot be unwrapped.
        """
        wrapped = _wrapped(record.value)
        renewed: dict[str, Json] = {}
        for generation, text in wrapped.items():
            envelope = _unpack(text, record.key)
            if envelope.name == self._ring.current:
                renewed[generation] = text
            else:
                renewed[generation] = self._wrap(
                    record.key, int(generation), self._unwrap(record.key, generation, text)
                )
        if renewed == wrapped:
            return False
        return await self._records().rewrite(record, {**record.value, "keys": renewed})

    async def _find(self, subjects: set[str]) -> dict[str, _Keys | None]:
        if self._at_hand.keys() & subjects or len(self._at_hand) > MOST_AT_HAND:
            epoch = await self._records().get(*EPOCH)
            version = epoch.version if epoch else 0
            if version != self._epoch or len(self._at_hand) > MOST_AT_HAND:
                self._at_hand, self._epoch = {}, version
        found: dict[str, _Keys | None] = {name: self._at_hand[name] for name in subjects if name in self._at_hand}
        for some in _batched(sorted(subjects - found.keys()), AT_ONCE):
            read = await asyncio.gather(*map(self._read, some), return_exceptions=True)
            for name, keys in zip(some, read, strict=True):
                if isinstance(keys, BaseException):
                    raise keys
                found[name] = keys
        return found

    async def _read(self, subject: str) -> _Keys | None:
        at_hand = self._at_hand
        record = await self._records().get(KIND, subject)
        return self._remember(record, at_hand) if record else None

    def _remember(self, record: Record, at_hand: dict[str, _Keys]) -> _Keys:
        """Keep it among those of the epoch in which it was asked for: of a later one it may know nothing."""
        ciphers: dict[int, Cipher] = {}
        problems: dict[int, str] = {}
        for generation, text in _wrapped(record.value).items():
            try:
                ciphers[int(generation)] = Cipher(self._unwrap(record.key, generation, text))
            except UnknownKey as error:
                problems[int(generation)] = error.key_id
        keys = _Keys(_generation(record.value), ciphers, problems, bool(record.value.get("forgotten")))
        at_hand[record.key] = keys
        return keys

    async def _make(self, subject: str, *, new: bool) -> _Keys:
        """Make the current key; `new`: nobody has heard of the subject.

        Raises:
            UnknownKey: There is one, under a key that is not in the ring.
        """
        while True:
            at_hand = self._at_hand
            record = None if new else await self._records().get(KIND, subject)
            new = False
            value = dict(record.value) if record else {}
            generation = _generation(value) or 1
            if str(generation) in _wrapped(value):
                assert record is not None
                keys = self._remember(record, at_hand)
                if generation in keys.problems:
                    raise UnknownKey(f"the key of {subject}", keys.problems[generation])
                return keys
            wrapped = _wrapped(value) | {str(generation): self._wrap(subject, generation, os.urandom(KEY_LENGTH))}
            draft = Draft(value={**value, "generation": generation, "keys": cast("dict[str, Json]", wrapped)})
            try:
                made = await self._records().apply(KIND, subject, record.version if record else 0, draft)
            except VersionConflict:
                continue
            return self._remember(made, at_hand)

    async def _change(
        self, subject: str, change: Callable[[Mapping[str, Json] | None], dict[str, Json] | None]
    ) -> bool:
        while True:
            record = await self._records().get(KIND, subject)
            value = change(record.value if record else None)
            if value is None:
                return False
            try:
                await self._records().apply(KIND, subject, record.version if record else 0, Draft(value=value))
            except VersionConflict:
                continue
            await self._begin_epoch()
            return True

    async def _begin_epoch(self) -> None:
        while True:
            present = await self._records().get(*EPOCH)
            try:
                await self._records().apply(*EPOCH, present.version if present else 0, Draft(value={}))
            except VersionConflict:
                continue
            return

    def _wrap(self, subject: str, generation: int, key: bytes) -> str:
        return base64.b64encode(self._ring.seal(key, _where(subject, generation))).decode()

    def _unwrap(self, subject: str, generation: str, text: str) -> bytes:
        what = f"the key of {subject}"
        return self._ring.open(_unpack(text, subject), _where(subject, int(generation)), what)


class Openers:
    """The keys of some subjects."""

    def __init__(self, keys: Mapping[str, _Keys | None]) -> None:
        self._keys = keys

    def open(self, envelope: Envelope, bound_to: bytes, what: str) -> bytes:
        """What is in it.

        Raises:
            Forgotten: The subject's key was destroyed.
            UnknownKey: The key is not there, or cannot be unwrapped.
            Unreadable: It was altered, or belongs elsewhere.
        """
        keys = self._keys.get(envelope.name)
        cipher = keys.ciphers.get(envelope.generation) if keys else None
        if cipher is not None:
            return disclose(cipher, envelope, bound_to, what)
        if keys is not None and envelope.generation in keys.problems:
            raise UnknownKey(what, keys.problems[envelope.generation])
        if keys is not None and keys.forgotten and envelope.generation < keys.generation:
            raise Forgotten(what, envelope.name)
        raise UnknownKey(what, f"{envelope.name}/{envelope.generation}")


def _batched(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """These in portions."""
    return (names[start : start + size] for start in range(0, len(names), size))


def seal(subject: str, key: tuple[int, Cipher], plain: bytes, bound_to: bytes) -> bytes:
    """An envelope under a subject's key."""
    generation, cipher = key
    return enclose(cipher, SUBJECT, subject, generation, plain, bound_to)


def _retired(value: Mapping[str, Json] | None) -> dict[str, Json] | None:
    return None if value is None else {**value, "generation": _generation(value) + 1}


def _destroyed(value: Mapping[str, Json], told: Mapping[str, Json]) -> dict[str, Json]:
    current = str(_generation(value))
    kept: dict[str, Json] = {generation: text for generation, text in _wrapped(value).items() if generation == current}
    before = value.get("forgotten")
    return {**value, "keys": kept, "forgotten": [*(before if isinstance(before, list) else []), dict(told)]}


def _generation(value: Mapping[str, Json]) -> int:
    generation = value.get("generation", 0)
    return generation if isinstance(generation, int) else 0


def _wrapped(value: Mapping[str, Json]) -> dict[str, str]:
    keys = value.get("keys")
    return {name: text for name, text in keys.items() if isinstance(text, str)} if isinstance(keys, dict) else {}


def _unpack(text: str, subject: str) -> Envelope:
    try:
        envelope = Envelope.unpack(base64.b64decode(text, validate=True))
    except ValueError:
        envelope = None
    if envelope is None:
        raise Unreadable(f"the key of {subject}")
    return envelope


def _where(subject: str, generation: int) -> bytes:
    return place("subject key", subject, str(generation))
