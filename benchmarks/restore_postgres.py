"""Losing a PostgreSQL store of 100,000 jobs, and going on from its backup."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import _restore
from tests.servers.postgres import PostgresServer


@contextmanager
def started(directory: Path) -> Generator[tuple[str, str]]:
    """One server, two schemas."""
    with PostgresServer() as server:
        yield f"{server.url}?schema=here", f"{server.url}?schema=there"


if __name__ == "__main__":
    _restore.main("restore_postgres", __doc__, started)
