"""Losing a SQLite store of 100,000 jobs, and going on from its backup."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import _restore


@contextmanager
def started(directory: Path) -> Generator[tuple[str, str]]:
    yield f"sqlite:///{directory / 'here.db'}", f"sqlite:///{directory / 'there.db'}"


if __name__ == "__main__":
    _restore.main("restore_sqlite", __doc__, started)
