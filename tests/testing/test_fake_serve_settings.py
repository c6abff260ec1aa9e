"""What `holdfast fake serve` needs to run, and what it says a client needs: the settings of holdfast's providers."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from holdfast import Holdfast, Money, Payer, Secrets
from holdfast.providers import find_provider
from holdfast.testing import Fakes
from holdfast.testing.fake_server import FakeServer
from holdfast.testing.simulators.sdks import pointing

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
ASKED = {
    "btcpay": Money("12.00", "CHF"),
    "coinbase": Money("12.00", "USDC"),
    "lnbits": Money("12.00", "CHF"),
    "lnd": Money("0.00015", "BTC"),
    "mtn-momo": Money("12.00", "EUR"),
    "opennode": Money("12.00", "CHF"),
    "orange-money": Money("1200", "XOF"),
    "paypal": Money("12.00", "CHF"),
    "paystack": Money("1200.00", "NGN"),
    "swiss-bitcoin-pay": Money("12.00", "CHF"),
}


@pytest.mark.parametrize("vendor", ASKED)
async def test_the_settings_it_prints_are_all_that_a_provider_needs(
    vendor: str, fake_server: FakeServer, fakes: Fakes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # given
    line = pointing(vendor, fake_server.url(vendor), fake_server.credentials(vendor))
    for setting in line.split():
        monkeypatch.setenv(*setting.split("=", 1))
    provider: Any = find_provider(vendor).from_env()
    payer, back = Payer(msisdn="46733123454"), "https://shop.example/back"
    own: Any = {"store": f"sqlite:///{tmp_path / 'shop.db'}", "secret": Secrets("a secret of the shop, long enough")}

    # when
    async with Holdfast(**own, public_url="https://shop.example/hooks", payments=[provider]) as hub:
        await hub.payments.create("o1", ASKED[vendor], payer=payer, return_url=back)

    # then
    assert [entry.key for entry in fakes.ledger.entries()] == ["o1"]


def test_who_installs_the_test_kit_has_the_command_and_what_every_simulator_and_scenario_needs() -> None:
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]

    assert "holdfast[cli,encryption]" in extras["testing"]
    assert any(needed.startswith("pyyaml") for needed in extras["cli"])
    assert any(needed.startswith("cryptography") for needed in extras["encryption"])
