"""Which environment variables are missing is said once, of all of them, with what each is for."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from holdfast.cli.app import app
from holdfast.errors import ConfigurationError, HoldfastError, MissingCredential

SHOP = """
from holdfast import Holdfast, KeyRing, Secrets, providers
from holdfast.providers import SwissBitcoinPay, Zoom


class Mine:
    @classmethod
    def from_env(cls):
        raise AssertionError("what is the user's own is not called a second time")


hub = Holdfast(
    store="sqlite:///store.db",
    payments=[SwissBitcoinPay.from_env(), providers.LNbits.from_env()],
    meetings=[Zoom.from_env()],
    secret=Secrets.from_env("SHOP_SECRET"),
    encryption=KeyRing.from_env("SHOP_KEYS", require=True),
    notifications=[Mine.from_env(), Secrets.from_env(NAME)],
)
"""
VARIABLES = (
    *("SBP_API_KEY", "SBP_WEBHOOK_SECRET", "LNBITS_URL", "LNBITS_INVOICE_KEY"),
    *("ZOOM_ACCOUNT_ID", "ZOOM_CLIENT_ID", "ZOOM_CLIENT_SECRET", "ZOOM_HOST", "SHOP_SECRET", "SHOP_KEYS"),
)


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for module in ("shop_of_variables", "shop_behind"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    file = tmp_path / "shop_of_variables.py"
    file.write_text(SHOP)
    return file


def refusal(target: str = "shop_of_variables:hub") -> HoldfastError:
    result = CliRunner().invoke(app, ["inbox", "list", target])
    assert isinstance(result.exception, HoldfastError)
    return result.exception


def test_all_that_is_missing_is_said_at_once_in_the_order_it_is_read() -> None:
    error = refusal()

    assert isinstance(error, MissingCredential)
    assert tuple(error.variables) == VARIABLES
    assert str(error).startswith("these environment variables are not set:\n  SBP_API_KEY: the API key of your Swiss")
    assert all(error.variables.values())


def test_what_is_set_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES[:2] + VARIABLES[3:]:
        monkeypatch.setenv(variable, "something")

    assert str(refusal()) == "an environment variable is not set: LNBITS_URL: the address of your LNbits server"


def test_what_is_set_wrongly_is_told_once_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEYS", "no key")

    assert "SHOP_KEYS" not in refusal().args[0]

    for variable in VARIABLES[:-1]:
        monkeypatch.setenv(variable, "http://127.0.0.1")
    told = refusal()
    assert isinstance(told, ConfigurationError)
    assert not isinstance(told, MissingCredential)


def test_a_module_behind_the_one_that_is_named_is_read_too(shop: Path) -> None:
    shop.with_name("shop_behind.py").write_text(
        "from holdfast.providers import Telegram\nfrom shop_of_variables import hub\nbot = Telegram.from_env()\n"
    )

    error = refusal("shop_behind:hub")

    assert isinstance(error, MissingCredential)
    assert set(error.variables) == {*VARIABLES, "TELEGRAM_BOT_TOKEN"}


def test_what_is_read_only_perhaps_is_not_asked_for(shop: Path) -> None:
    shop.write_text(
        "import os\nfrom holdfast.providers import LNbits, Stripe, Zoom\n"
        "rooms = [Zoom.from_env()] if os.environ.get('USE_ZOOM') else []\n"
        "def elsewhere(): return Stripe.from_env()\n"
        "hub = LNbits.from_env()\n"
    )

    error = refusal()

    assert isinstance(error, MissingCredential)
    assert tuple(error.variables) == ("LNBITS_URL", "LNBITS_INVOICE_KEY")


def test_a_call_with_its_argument_named_is_read_as_any_other(shop: Path) -> None:
    shop.write_text(
        "from holdfast import Secrets\n"
        "first = Secrets.from_env(variable='FIRST')\n"
        "second = Secrets.from_env(variable='SECOND')\n"
        "third = Secrets.from_env(variable=NAME)\n"
        "fourth = Secrets.from_env()\n"
    )

    error = refusal()

    assert isinstance(error, MissingCredential)
    assert tuple(error.variables) == ("FIRST", "SECOND")


def test_a_secret_that_is_empty_in_the_program_is_told_as_it_is(shop: Path) -> None:
    shop.write_text("from holdfast import Secrets\nhub = Secrets('')\n")

    assert str(refusal()) == "a secret is empty; give the text the vendor shows you"
