"""A store whose process is killed at a chosen command: everything after it fails, too."""

from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.stores import Store


class Killed(BaseException):
    """The process is gone."""


class CutStore:
    """Passes commands on until it is cut: `at` is done, or nearly so, and its answer never arrives."""

    def __init__(self, store: Store, at: int | None = None, *, done: bool = True) -> None:
        self.commands: list[str] = []
        self._store = store
        self._at = at
        self._done = done
        self.jobs: Any = _Part(self, store.jobs)
        self.records: Any = _Part(self, store.records)
        self.leases: Any = _Part(self, store.leases)

    async def now(self) -> Any:
        return await self._store.now()

    async def run(self, name: str, command: Callable[[], Awaitable[object]]) -> object:
        number = len(self.commands)
        self.commands.append(name)
        if self._at is not None and (number > self._at or (number == self._at and not self._done)):
            raise Killed
        answer = await command()
        if number == self._at:
            raise Killed
        return answer


class _Part:
    def __init__(self, whole: CutStore, part: object) -> None:
        self._whole = whole
        self._part = part

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        method = getattr(self._part, name)
        return lambda *args, **options: self._whole.run(name, lambda: method(*args, **options))
