"""Many calls in one exchange with a server.

While one exchange is under way, the calls that come meanwhile gather, and go together in the next one: a round trip,
and where the URL asks for it a wait for a disk or a replica, is paid once for all of them.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

Command = tuple[Any, ...]

CALLS: Final = 256
"""In one exchange, at most."""
BYTES: Final = 1_000_000
"""In one exchange, about."""


class Client(Protocol):
    """What is used of redis-py, which leaves its own types open."""

    def pipeline(self, transaction: bool) -> Any: ...
    def pubsub(self) -> Any: ...
    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Call:
    commands: Sequence[Command]
    confirm: Command | None
    answer: asyncio.Future[tuple[Any, Any]]

    @property
    def size(self) -> int:
        return sum(len(part) if isinstance(part, str | bytes) else 8 for command in self.commands for part in command)


class Lane:
    """The calls to one server."""

    def __init__(self, client: Client, timeout: float) -> None:
        self.client = client
        self._timeout = timeout
        self._waiting: deque[_Call] = deque()
        self._exchanges: asyncio.Task[None] | None = None

    async def run(self, commands: Sequence[Command], confirm: Command | None = None) -> tuple[Any, Any]:
        """What the last of the commands answered, and what `confirm` did after all of them."""
        loop = asyncio.get_running_loop()
        call = _Call(commands, confirm, loop.create_future())
        self._waiting.append(call)
        if self._exchanges is None or self._exchanges.done():
            self._exchanges = loop.create_task(self._exchange_all())
        return await call.answer

    async def close(self) -> None:
        """Let what was begun end."""
        if self._exchanges is not None:
            await asyncio.wait([self._exchanges])
        await self.client.aclose()

    async def _exchange_all(self) -> None:
        while calls := self._next_calls():
            try:
                # The machine's own time: no clock of a test moves a socket.
                async with asyncio.timeout(self._timeout):
                    await self._exchange(calls)
            except Exception as error:  # a border: whoever called translates it
                for call in calls:
                    if not call.answer.done():
                        call.answer.set_exception(error)
            finally:
                for call in calls:
                    call.answer.cancel()  # where it has no answer yet, this was cancelled

    def _next_calls(self) -> list[_Call]:
        calls: list[_Call] = []
        size = 0
        while self._waiting and len(calls) < CALLS and size < BYTES:
            call = self._waiting.popleft()
            if not call.answer.done():
                calls.append(call)
                size += call.size
        return calls

    async def _exchange(self, calls: Sequence[_Call]) -> None:
        confirm = next((call.confirm for call in calls if call.confirm), None)
        commands = [command for call in calls for command in call.commands]
        answers = await self._send(commands if confirm is None else [*commands, confirm])
        confirmed = None if confirm is None else answers[-1]
        behind = 0
        for call in calls:
            behind += len(call.commands)
            answer = answers[behind - 1]
            if call.confirm and isinstance(confirmed, Exception) and not isinstance(answer, Exception):
                answer = confirmed
            if not call.answer.done():
                if isinstance(answer, Exception):
                    call.answer.set_exception(answer)
                else:
                    call.answer.set_result((answer, confirmed if call.confirm else None))

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        """One answer each, over one connection; an error of the server is an answer."""
        async with self.client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)  # to raise, it repeats the arguments
            return answers
