"""Starting and ending processes quickly: they fork from a parent that has everything loaded."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Final

from chaos import roles
from chaos.journal import Journal
from chaos.roles import Role

STARTS_WITHIN: Final = 120.0

_context = get_context("forkserver")
_context.set_forkserver_preload(["chaos.roles"])


class Life:
    """One process, from its start to its end."""

    def __init__(self, role: Role, faults: Journal) -> None:
        self.role = role
        self._faults = faults
        mine, its = _context.Pipe(duplex=False)
        self._said: Connection = mine
        self._process = _context.Process(target=roles.begin, args=(role, its), daemon=True)
        self._process.start()
        its.close()
        pid = self._process.pid
        assert pid is not None
        self.pid = pid

    @property
    def is_over(self) -> bool:
        return not self._process.is_alive()

    async def ready(self) -> bool:
        """True when it does what it is for; False when it ended before."""
        until = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < until:
            if self._said.poll():
                with suppress(EOFError):
                    self._said.recv()
                    return True
                return False
            await asyncio.sleep(0.005)
        raise RuntimeError(f"a {self.role.kind} did not start; see {self.role.directory}/{self.role.kind}.log")

    async def ended(self, within: float) -> bool:
        """Whether it ended by itself in that time."""
        until = time.monotonic() + within
        while not self.is_over:
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(0.005)
        return True

    async def kill(self) -> None:
        """kill -9."""
        self._faults.write("died", pid=self.pid, at=time.monotonic(), how="killed")
        self._signal(signal.SIGKILL)
        await self.ended(10)
        self.close()

    async def stop(self) -> None:
        """As a deploy does."""
        self._faults.write("stopped", pid=self.pid, at=time.monotonic())
        self._signal(signal.SIGTERM)
        if not await self.ended(10):
            await self.kill()
        self.close()

    def freeze(self) -> None:
        """Stand still, as a machine does that swaps."""
        self._faults.write("frozen", pid=self.pid, at=time.monotonic())
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on as if nothing had happened."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Nothing is heard of it any more."""
        self._said.close()

    def _signal(self, number: signal.Signals) -> None:
        if not self.is_over:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
