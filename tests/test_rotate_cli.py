"""`holdfast store rotate` seals anew, says what it did, and whether an older key is still needed."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from holdfast import KeyRing
from holdfast.cli.app import app
from holdfast.errors import ConfigurationError
from holdfast.stores import NewJob, open_store
from holdfast.stores.encrypted import EncryptedStore

OLD, NEW, OTHER = KeyRing.generate(), KeyRing.generate(), KeyRing.generate()

SHOP = """
from holdfast import Holdfast, KeyRing

hub = Holdfast(store="sqlite:///{path}", encryption=KeyRing("{new}", "{old}"))
plain = Holdfast(store="sqlite:///{path}")
"""


async def _fill(path: Path, *keys: str) -> None:
    for key in keys:
        async with EncryptedStore(open_store(f"sqlite:///{path}"), KeyRing(key)) as store:
            await store.jobs.add([NewJob(queue="events", key=key, kind="x", body=b"{}")])


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "holdfast.db"
    # A module of its own name for each test: Python keeps those it has seen.
    module = f"shop_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{module}.py").write_text(SHOP.format(path=path, new=NEW, old=OLD))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP", module)
    return path


def rotate(name: str, *options: str) -> tuple[int, str]:
    target = f"{os.environ['SHOP']}:{name}"
    result = CliRunner().invoke(app, ["store", "rotate", target, *options], catch_exceptions=False)
    return result.exit_code, result.stdout


def test_what_rests_under_an_older_key_is_sealed_anew(path: Path) -> None:
    asyncio.run(_fill(path, OLD))

    code, said = rotate("hub")

    assert code == 0
    assert "1 jobs sealed anew" in said
    assert "no older key is needed any more" in said


def test_json_is_one_object(path: Path) -> None:
    asyncio.run(_fill(path, OLD, NEW))

    code, said = rotate("hub", "--json")

    assert code == 0
    told = json.loads(said)
    assert (told["complete"], told["jobs"], told["old_keys"]) == (True, 1, {})


def test_a_key_that_is_missing_is_named_and_ends_with_1(path: Path) -> None:
    asyncio.run(_fill(path, OTHER))

    code, said = rotate("hub")

    assert code == 1
    assert f"key {KeyRing(OTHER).current} is still needed by 1 rows" in said
    assert OTHER not in said


@pytest.mark.usefixtures("path")
def test_a_store_without_keys_has_nothing_to_rotate() -> None:
    with pytest.raises(ConfigurationError, match="not encrypted"):
        rotate("plain")
