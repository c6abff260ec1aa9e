"""The currency table: what it must say, and that the generator writes it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import holdfast.iso4217
from holdfast.iso4217 import EXPONENTS, PUBLISHED

ROOT = Path(__file__).parents[1]

SAMPLE = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<ISO_4217 Pblshd="2026-01-01"><CcyTbl>
<CcyNtry><CtryNm>TOGO</CtryNm><CcyNm>CFA Franc BCEAO</CcyNm><Ccy>XOF</Ccy><CcyMnrUnts>0</CcyMnrUnts></CcyNtry>
<CcyNtry><CtryNm>ANTARCTICA</CtryNm><CcyNm>No universal currency</CcyNm></CcyNtry>
<CcyNtry><CtryNm>FRANCE</CtryNm><CcyNm>Euro</CcyNm><Ccy>EUR</Ccy><CcyMnrUnts>2</CcyMnrUnts></CcyNtry>
<CcyNtry><CtryNm>ZZ08_Gold</CtryNm><CcyNm>Gold</CcyNm><Ccy>XAU</Ccy><CcyMnrUnts>N.A.</CcyMnrUnts></CcyNtry>
<CcyNtry><CtryNm>ÅLAND ISLANDS</CtryNm><CcyNm>Euro</CcyNm><Ccy>EUR</Ccy><CcyMnrUnts>2</CcyMnrUnts></CcyNtry>
</CcyTbl></ISO_4217>
""".encode()

WRITTEN = '''"""ISO 4217: how many decimals each active currency has; written by scripts/iso4217.py."""

from typing import Final

PUBLISHED: Final = "2026-01-01"

# fmt: off
EXPONENTS: Final[dict[str, int]] = {
    "EUR": 2, "XOF": 0,
}
# fmt: on
'''


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("iso4217_generator", ROOT / "scripts" / "iso4217.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("currency", "digits"),
    [
        ("XOF", 0),
        ("XAF", 0),
        ("GNF", 0),
        ("JPY", 0),
        ("ISK", 0),
        ("UGX", 0),
        ("CHF", 2),
        ("EUR", 2),
        ("MGA", 2),
        ("MRU", 2),
        ("BHD", 3),
        ("KWD", 3),
        ("TND", 3),
        ("CLF", 4),
        ("UYW", 4),
    ],
)
def test_a_currency_has_the_decimals_iso_4217_gives_it(currency: str, digits: int) -> None:
    assert EXPONENTS[currency] == digits


@pytest.mark.parametrize("withdrawn", ["ANG", "BGN", "CUC", "DEM", "HRK", "SLL", "ZWL"])
def test_a_withdrawn_currency_is_not_listed(withdrawn: str) -> None:
    assert PUBLISHED >= "2026-01-01"  # the lev left with this list
    assert withdrawn not in EXPONENTS


@pytest.mark.parametrize("code", ["XAG", "XAU", "XBA", "XDR", "XPD", "XPT", "XSU", "XTS", "XUA", "XXX"])
def test_what_nobody_can_be_charged_in_is_not_listed(code: str) -> None:
    assert code not in EXPONENTS


def test_at_least_150_currencies_are_listed_in_order() -> None:
    assert len(EXPONENTS) >= 150
    assert list(EXPONENTS) == sorted(EXPONENTS)


def test_bitcoin_is_not_iso_4217() -> None:
    assert "BTC" not in EXPONENTS


def test_the_generator_writes_each_chargeable_currency_once(generator: ModuleType) -> None:
    assert generator.generate(SAMPLE) == WRITTEN


def test_a_list_that_contradicts_itself_is_refused(generator: ModuleType) -> None:
    # given
    contradiction = SAMPLE.replace(b"<CcyMnrUnts>2</CcyMnrUnts>", b"<CcyMnrUnts>3</CcyMnrUnts>", 1)

    # then
    with pytest.raises(ValueError, match="EUR two minor units"):
        generator.generate(contradiction)


def test_the_file_is_what_the_generator_writes(generator: ModuleType) -> None:
    # given
    file = Path(holdfast.iso4217.__file__).read_text(encoding="utf-8")

    # when
    rewritten = generator.write(PUBLISHED, EXPONENTS)

    # then
    assert rewritten == file
    assert max(map(len, file.splitlines())) <= 120
