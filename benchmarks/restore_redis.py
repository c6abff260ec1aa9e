"""Losing a Redis store of 100,000 jobs, and going on from its backup."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import _restore
from tests.servers.redis import RedisServer


@contextmanager
def started(directory: Path) -> Generator[tuple[str, str]]:
    """One server, two namespaces."""
    with RedisServer(directory / "redis") as server:
        yield f"{server.url}?namespace=here", f"{server.url}?namespace=there"


if __name__ == "__main__":
    _restore.main("restore_redis", __doc__, started)
