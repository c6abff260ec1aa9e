"""The stores the demo can run on; a server, where it takes one, is started on loopback and ends with the demo."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

STORES: Final = ("sqlite", "postgresql", "redis")


@contextmanager
def started(kind: str, directory: Path) -> Generator[str]:
    """The URL of an empty store of that kind."""
    if kind == "postgresql":
        from tests.servers.postgres import PostgresServer

        with PostgresServer() as postgres:
            yield postgres.url
    elif kind == "redis":
        from tests.servers.redis import RedisServer

        shutil.rmtree(directory / "redis", ignore_errors=True)  # of a run before this one
        with RedisServer(directory / "redis") as redis:
            yield redis.url
    else:
        yield f"sqlite:///{directory / 'holdfast.db'}"
