"""Vendors are found by name, and loaded only then."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import holdfast.providers
from holdfast.errors import ConfigurationError, HoldfastError, MissingCredential
from holdfast.providers import LNbits, SwissBitcoinPay, find_provider, installed_providers


def test_a_provider_is_found_by_its_vendors_word() -> None:
    assert find_provider("lnbits") is LNbits
    assert find_provider("swiss-bitcoin-pay") is SwissBitcoinPay


def test_an_unknown_provider_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"no provider 'acme'.*lnbits"):
        find_provider("acme")


@pytest.mark.parametrize("name", sorted(installed_providers()))
def test_all_variables_a_provider_misses_are_named_with_what_they_are_for(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    page = Path(__file__).parents[2] / "docs" / "providers" / f"{name}.md"
    written = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", page.read_text(), re.MULTILINE))
    for variable in os.environ.keys() & written:
        monkeypatch.delenv(variable)

    with pytest.raises(MissingCredential) as raised:
        find_provider(name).from_env()

    missing = raised.value.variables
    assert written >= set(missing)
    assert all(missing.values())
    assert all(f"{variable}: {purpose}" in str(raised.value) for variable, purpose in missing.items())
    for variable in missing:
        monkeypatch.setenv(variable, "something")
    with suppress(HoldfastError):  # what is set may be wrong, and is not missing
        try:
            find_provider(name).from_env()
        except MissingCredential as error:
            pytest.fail(f"asked for {error.variables} only now")


def test_what_is_installed_is_listed_in_order_and_not_loaded() -> None:
    program = (
        "import sys, holdfast.providers as p; names = list(p.installed_providers());"
        "assert names == sorted(names) and 'lnbits' in names, names;"
        "assert not any(name.startswith('holdfast.providers.') and name != 'holdfast.providers.discovery'"
        " for name in sys.modules); assert 'httpx' not in sys.modules and 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert set(installed_providers()) >= {"lnbits", "swiss-bitcoin-pay"}


def test_the_public_names_are_sorted_and_anything_else_is_missing() -> None:
    assert sorted(holdfast.providers.__all__) == holdfast.providers.__all__
    assert set(holdfast.providers.__all__) <= set(dir(holdfast.providers))
    with pytest.raises(AttributeError, match="Acme"):
        _ = holdfast.providers.Acme  # type: ignore[attr-defined]
