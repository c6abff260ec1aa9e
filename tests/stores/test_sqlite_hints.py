"""What is wrong with the file is said with what to do about it."""

import sqlite3
from pathlib import Path

import pytest

from holdfast.errors import StoreUnavailable
from holdfast.stores.sqlite import SqliteStore
from holdfast.stores.sqlite_schema import translate


async def test_a_file_in_a_directory_that_is_not_there_is_told_with_what_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="unable to open database file; is its directory there"):
        await SqliteStore(str(tmp_path / "missing" / "store.db")).__aenter__()


async def test_a_file_of_something_else_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"a letter to somebody" * 1_000)

    with pytest.raises(StoreUnavailable, match="not a database; nothing was changed"):
        await SqliteStore(str(path)).__aenter__()

    assert path.read_bytes().startswith(b"a letter")


def test_a_locked_file_is_told_with_who_holds_it() -> None:
    told = translate(sqlite3.OperationalError("database is locked"))

    assert isinstance(told, StoreUnavailable)
    assert str(told) == (
        "sqlite: database is locked; another connection has been writing for over 5 s: end its transaction"
    )
