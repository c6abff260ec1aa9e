"""Plain functions, run beside the event loop."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TypeVar

T = TypeVar("T")

MOST = 64


class Threads:
    """Threads of our own: handlers that hang in those of the event loop would stop everybody else's."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(MOST, thread_name_prefix="holdfast-handler")

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Its result. It cannot be cancelled: who no longer waits for it leaves it running."""
        work = partial(copy_context().run, _with_fresh_connections, function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _with_fresh_connections(function: Callable[..., T], *arguments: object) -> T:
    """As Django does around a request: a connection that is broken or too old is closed before and after."""
    _close_old_connections()
    try:
        return function(*arguments)
    finally:
        _close_old_connections()


def _close_old_connections() -> None:
    # Looked up, not imported: a program that never loaded it has no connections of it either.
    conf, db = sys.modules.get("django.conf"), sys.modules.get("django.db")
    if conf is not None and db is not None and conf.settings.configured:
        db.close_old_connections()
