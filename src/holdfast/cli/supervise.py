"""Several processes of one kind, kept running."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from holdfast.cli.exit_codes import ExitCode
from holdfast.clock import Clock, SystemClock

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
HEALTHY = 10.0
"""Seconds after which a process counts as well: should it die later, it is started again without a long pause."""


class Tell(Protocol):
    """Where the supervisor says what happens."""

    def __call__(self, happening: str, **facts: object) -> None: ...


class Supervisor:
    """Starts the commands, starts again what dies, and stops all of them on SIGTERM or SIGINT."""

    def __init__(
        self, commands: Sequence[Sequence[str]], *, tell: Tell, grace: float = 60.0, clock: Clock | None = None
    ) -> None:
        """`grace` are the seconds processes have to stop before they are killed."""
        self._commands = commands
        self._tell = tell
        self._grace = grace
        self._clock = clock or SystemClock()
        self._running: set[asyncio.subprocess.Process] = set()
        self._stopping = asyncio.Event()
        self._code = ExitCode.OK

    async def run(self) -> ExitCode:
        """Supervise until told to stop; how it ended: a wrong set-up ends all, and so does no store at the start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            async with asyncio.TaskGroup() as group:
                for command in self._commands:
                    group.create_task(self._keep(command))
                group.create_task(self._stop_all())
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        return self._code

    def stop(self) -> None:
        """Stop them all; a second time: at once."""
        if self._stopping.is_set():
            self._send(signal.SIGKILL)
        self._stopping.set()

    async def _keep(self, command: Sequence[str]) -> None:
        pause, lives = FIRST_PAUSE, 0
        while not self._stopping.is_set():
            began = self._clock.monotonic()
            code = await self._live(command)
            lives += 1
            if self._stopping.is_set():
                return
            if code == ExitCode.USAGE or (code == ExitCode.UNREACHABLE and lives == 1):
                self._code = max(self._code, ExitCode(code))
                self._stopping.set()
                return
            pause = FIRST_PAUSE if self._clock.monotonic() - began >= HEALTHY else min(LONGEST_PAUSE, 2 * pause)
            self._tell("holdfast.process.restarts", exit_code=code, after=pause)
            with suppress(TimeoutError):
                async with self._clock.timeout(pause):
                    await self._stopping.wait()

    async def _live(self, command: Sequence[str]) -> int:
        """One life of a process; its exit code, negative where a signal ended it."""
        # In a session of its own, so that Ctrl-C reaches it once, through us.
        # Its input ends with us, even if we are killed; it then stops.
        process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, start_new_session=True)
        self._running.add(process)
        self._tell("holdfast.process.started", child=process.pid, parent=os.getpid())
        if self._stopping.is_set():
            process.terminate()
        try:
            return await process.wait()
        finally:
            self._running.discard(process)

    async def _stop_all(self) -> None:
        await self._stopping.wait()
        self._send(signal.SIGTERM)
        try:
            async with self._clock.timeout(self._grace):
                await asyncio.gather(*(process.wait() for process in set(self._running)))
        except TimeoutError:
            self._tell("holdfast.process.killed", children=len(self._running))
            self._code = max(self._code, ExitCode.PROBLEM)
            self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        for process in self._running:
            with suppress(ProcessLookupError):
                process.send_signal(number)
