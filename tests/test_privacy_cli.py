"""`holdfast forget` and `holdfast export`: what is stored about somebody goes, or is given out."""

import asyncio
import getpass
import json
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner, Result

from holdfast import Holdfast, KeyRing, Money
from holdfast.cli.app import app
from holdfast.cli.exit_codes import ExitCode, exit_code
from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.stores import NewJob, open_store
from holdfast.stores.encrypted import EncryptedStore
from holdfast.testing import FakePayments

T = TypeVar("T")

KEY = KeyRing.generate()
ADA = "ada@example.org"
SHOP = """
from holdfast import Holdfast, KeyRing, PaymentPaid
from holdfast.clock import SystemClock
from holdfast.testing import FakePayments


class Hurried(SystemClock):
    async def sleep(self, seconds):
        await super().sleep(0)


hub = Holdfast(store="sqlite:///{path}", payments=[FakePayments()], encryption=KeyRing("{key}"), clock=Hurried())
plain = Holdfast(store="sqlite:///{path}", payments=[FakePayments()])

@hub.on(PaymentPaid, name="confirm")
async def confirm(paid: PaymentPaid) -> None:
    raise AssertionError("no handler runs here")
"""
WHY = ("--reason", "she asked on 3 March")


class Shop:
    """A store that knows Ada, and the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "shop_of_people.py").write_text(SHOP.format(path=folder / "store.db", key=KEY))

    def __call__(self, command: str, *arguments: str, hub: str = "hub", **options: Any) -> Result:
        env: dict[str, str | None] = {"COLUMNS": "250", "NO_COLOR": None, "FORCE_COLOR": None, "HOLDFAST_BY": None}
        target = f"shop_of_people:{hub}"
        return CliRunner().invoke(app, [*command.split(), target, *arguments], env=env, **options)

    def json(self, command: str, *arguments: str) -> list[Any]:
        result = self(command, *arguments, "--json")
        return [json.loads(line) for line in result.stdout.splitlines()]

    def run(self, work: Callable[[Holdfast, FakePayments], Awaitable[T]]) -> T:
        async def run() -> T:
            wallet = FakePayments()
            store = f"sqlite:///{self.folder / 'store.db'}"
            async with Holdfast(store=store, payments=[wallet], encryption=KeyRing(KEY)) as hub:
                return await work(hub, wallet)

        return asyncio.run(run())

    def email(self) -> object:
        async def look(hub: Holdfast, wallet: FakePayments) -> object:
            return (await hub.payments.get("order-1")).metadata.get("email")

        return self.run(look)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    shop = Shop(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "shop_of_people", raising=False)

    async def sell(hub: Holdfast, wallet: FakePayments) -> None:
        await hub.payments.create("order-1", Money("120.00", "CHF"), metadata={"email": ADA})

    shop.run(sell)
    return shop


# Forgetting.


def test_it_says_what_it_would_be_and_forgets_when_the_reference_is_typed_again(shop: Shop) -> None:
    result = shop("forget", "order-1", "--by", "grace", *WHY, input="order-1\n")

    assert result.exit_code == 0, result.output
    words = "order-1: 1 records without the person, 0 jobs dropped, 0 jobs that never run\n"
    assert result.stderr.startswith(words)
    assert "Type the reference to forget it for good" in result.stderr
    assert result.stdout.endswith(f"forgot {words}")
    assert shop.email() is None
    [entry] = shop.json("dlq audit")
    assert (entry["what"], entry["by"], entry["reason"]) == ("forget", "grace", "she asked on 3 March")
    assert entry["facts"] == {"reference": "order-1", "records": 1, "dropped": 0, "pending": 0}


@pytest.mark.parametrize("typed", ["y\n", "order-2\n", ""])
def test_whatever_else_is_typed_forgets_nothing(shop: Shop, typed: str) -> None:
    result = shop("forget", "order-1", *WHY, input=typed)

    assert result.exit_code == ExitCode.PROBLEM
    assert shop.email() == ADA
    assert shop.json("dlq audit") == []


def test_a_script_says_yes_and_gets_one_json_object(shop: Shop) -> None:
    [told] = shop.json("forget", "order-1", "--yes", *WHY)

    assert told == {"reference": "order-1", "records": 1, "dropped": 0, "pending": 0}
    assert shop.email() is None
    assert shop.json("dlq audit")[0]["by"] == getpass.getuser()


def test_a_dry_run_only_says_what_it_would_be(shop: Shop) -> None:
    result = shop("forget", "order-1", "--dry-run")

    assert result.exit_code == 0
    assert result.stdout.startswith("would forget order-1: 1 records")
    assert shop.email() == ADA
    assert shop.json("dlq audit") == []


def test_a_reference_nobody_knows_ends_with_a_problem_before_it_asks(shop: Shop) -> None:
    result = shop("forget", "ordre-1", *WHY)

    assert (result.exit_code, result.stdout) == (ExitCode.PROBLEM, "")
    assert result.stderr == "nothing is stored about ordre-1\n"
    assert shop.json("dlq audit") == []


def test_a_store_that_is_not_encrypted_forgets_nobody(shop: Shop) -> None:
    result = shop("forget", "order-1", "--yes", *WHY, hub="plain")

    assert isinstance(result.exception, HoldfastError)
    assert (type(result.exception), exit_code(result.exception)) == (ConfigurationError, ExitCode.USAGE)


@pytest.mark.parametrize("command", [("forget", "--yes"), ("export",)])
def test_nothing_is_done_for_no_reason(shop: Shop, command: tuple[str, ...]) -> None:
    assert shop(command[0], "order-1", *command[1:]).exit_code == ExitCode.USAGE

    assert shop.email() == ADA
    assert shop.json("dlq audit") == []


# Giving out.


def test_all_that_is_stored_is_given_out_and_that_it_was_is_written_down(shop: Shop) -> None:
    result = shop("export", "order-1", "--by", "grace", *WHY)
    [told] = shop.json("export", "order-1", *WHY)

    exported = json.loads(result.stdout)
    assert exported["records"][0]["value"]["metadata"] == {"email": ADA}
    assert result.stdout.count("\n") > 10
    assert told["records"] == exported["records"]
    _, entry = shop.json("dlq audit")
    assert (entry["what"], entry["by"], entry["reason"]) == ("export", "grace", "she asked on 3 March")
    assert entry["facts"] == {"reference": "order-1", "records": 1, "jobs": 0}


def test_a_file_is_for_its_owner_and_replaces_none(shop: Shop) -> None:
    file = shop.folder / "ada.json"

    written = shop("export", "order-1", "--out", str(file), *WHY)
    again = shop("export", "order-1", "--out", str(file), *WHY)

    assert (written.exit_code, written.stdout) == (0, "")
    assert json.loads(file.read_text())["reference"] == "order-1"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert again.exit_code == ExitCode.USAGE
    assert "is there already" in again.stderr
    assert len(shop.json("dlq audit")) == 1


def test_half_a_character_that_a_vendor_sent_is_given_out_escaped(shop: Shop) -> None:
    async def receive() -> None:
        store = open_store(f"sqlite:///{shop.folder / 'store.db'}")
        async with EncryptedStore(store, KeyRing(KEY)) as sealed:
            body, headers = b'{"name": "\\ud83d"}', {"reference": "order-1"}
            await sealed.jobs.add(
                [NewJob(queue="deliveries", key="a", kind="a", body=body, headers=headers, subject="order-1")]
            )

    asyncio.run(receive())
    file = shop.folder / "ada.json"

    result = shop("export", "order-1", "--out", str(file), *WHY)

    assert result.exit_code == 0
    [job] = json.loads(file.read_bytes())["jobs"]
    assert job["body"] == {"name": "\ud83d"}


def test_nothing_to_give_out_is_a_problem(shop: Shop) -> None:
    result = shop("export", "ordre-1", *WHY)

    assert result.exit_code == ExitCode.PROBLEM
    assert json.loads(result.stdout)["records"] == []
    assert result.stderr == "nothing is stored about ordre-1\n"


def test_what_was_forgotten_is_not_given_out(shop: Shop) -> None:
    shop("forget", "order-1", "--yes", *WHY)

    assert ADA not in shop("export", "order-1", *WHY).stdout
