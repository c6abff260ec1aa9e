"""What people did to the queue: who, why and when, written down before it is done."""

import secrets as entropy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from holdfast.errors import InvalidInput, VersionConflict
from holdfast.stores.store import Draft, Json, Records
from holdfast.stores.store_time import micros

KIND: Final = "audit"
_END_OF_TIME: Final = 10**17


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """One thing somebody did."""

    key: str
    """Greater for what happened earlier."""
    at: datetime
    by: str
    reason: str
    what: str
    """`replay`, `redrive`, `drop`, `reveal`, `forget` or `export`."""
    facts: Mapping[str, Json]
    """What it was done to, and what came of it."""


class AuditLog:
    """The audit entries of one store; they are kept for good."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def write(self, entry: Audit) -> bool:
        """Keep the entry, in place of an earlier version of itself; False: it is there as it is."""
        value: dict[str, Json] = {
            "at": entry.at.isoformat(),
            "by": entry.by,
            "reason": entry.reason,
            "what": entry.what,
            "facts": dict(entry.facts),
        }
        while True:
            found = await self._records.get(KIND, entry.key)
            if found is not None and found.value == value:
                return False
            with suppress(VersionConflict):
                await self._records.apply(KIND, entry.key, found.version if found else 0, Draft(value=value))
                return True

    async def list(self, *, after: str = "", limit: int = 100) -> Sequence[Audit]:
        """Newest first; `after` is the key of the last entry of the page before."""
        return [_entry(found.key, found.value) for found in await self._records.list(KIND, after=after, limit=limit)]


def accountable(by: str, reason: str) -> None:
    """Raises InvalidInput: nobody, or for no reason."""
    if not by.strip() or not reason.strip():
        raise InvalidInput("say who does this and why: by= and reason= are written down")


def audit_key(at: datetime, name: str = "") -> str:
    """Keys are listed in their order, so time is counted down; `name` makes it the same key again and again."""
    return f"{_END_OF_TIME - micros(at):018d}-{name or entropy.token_hex(8)}"


def _entry(key: str, value: Mapping[str, Json]) -> Audit:
    texts = {name: str(value[name]) for name in ("by", "reason", "what")}
    facts = cast("Mapping[str, Json]", value["facts"])
    return Audit(key=key, at=datetime.fromisoformat(str(value["at"])), facts=facts, **texts)
