"""Money stays exact, secrets stay hidden, references stay within their alphabet."""

import copy
import json
import pickle
import traceback
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from holdfast.errors import InvalidMoney, InvalidReference, MissingCredential, UnknownCurrency
from holdfast.iso4217 import EXPONENTS
from holdfast.values import Money, Reference, Secret, Secrets, exponent, secret_from_env

HIDDEN = "correct-horse-battery-staple"

currencies = st.sampled_from([*EXPONENTS, "BTC", "USDC"])
counts = st.integers(min_value=-(10**40), max_value=10**40)
monies = st.builds(Money.from_minor, counts, currencies)


# Money: what it accepts


@pytest.mark.parametrize("amount", ["120.00", "120", "1.2E2", 120, Decimal(120), Decimal("120.000")])
def test_the_same_amount_is_the_same_money_however_it_is_written(amount: str | int | Decimal) -> None:
    # when
    money = Money(amount, "CHF")

    # then
    assert money == Money.from_minor(12000, "CHF")
    assert hash(money) == hash(Money.from_minor(12000, "CHF"))
    assert str(money) == "120.00 CHF"


@pytest.mark.parametrize(
    ("amount", "currency", "minor_units"),
    [
        ("5000", "XOF", 5000),
        ("1.234", "KWD", 1234),
        ("1.2345", "CLF", 12345),
        ("-0.01", "EUR", -1),
        ("-0", "EUR", 0),
        ("0.00000001", "BTC", 1000),
        ("0.00000000001", "BTC", 1),
        ("0.000001", "USDC", 1),
        ("100.50", "USDC", 100_500_000),
    ],
)
def test_an_amount_is_counted_in_the_smallest_unit(amount: str, currency: str, minor_units: int) -> None:
    assert Money(amount, currency).minor_units == minor_units


@pytest.mark.parametrize("amount", [1.2, 120.0, float("nan"), True, None, b"1", 1 + 0j, [1]])
def test_a_float_or_anything_else_inexact_is_refused_at_run_time(amount: Any) -> None:
    with pytest.raises(InvalidMoney, match="str, int or Decimal"):
        Money(amount, "CHF")


@pytest.mark.parametrize("amount", ["", "abc", "1,20", "1.2.3", "0x10", "CHF 1", "NaN", "sNaN", "Infinity", "-inf"])
def test_text_that_is_no_number_is_refused(amount: str) -> None:
    with pytest.raises(InvalidMoney):
        Money(amount, "CHF")


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("0.5", "XOF"),
        ("1.001", "CHF"),
        ("1.0001", "KWD"),
        ("0.000000000001", "BTC"),
        ("0.0000001", "USDC"),
        ("1E-1000000", "CHF"),
    ],
)
def test_more_decimals_than_the_currency_has_are_refused(amount: str, currency: str) -> None:
    with pytest.raises(InvalidMoney, match="more decimals"):
        Money(amount, currency)


def test_a_decimal_beyond_the_default_precision_is_refused_not_rounded_away() -> None:
    with pytest.raises(InvalidMoney):
        Money("0.1" + "0" * 40 + "1", "CHF")


@pytest.mark.parametrize("amount", ["1E+1000000", "9" * 200, Decimal(10**5000)])
def test_an_amount_beyond_any_money_is_refused_quickly(amount: str | int) -> None:
    with pytest.raises(InvalidMoney):
        Money(amount, "CHF")


def test_an_amount_longer_than_the_default_precision_keeps_every_digit() -> None:
    # given
    amount = "123456789012345678901234567890.12345678901"

    # when
    money = Money(amount, "BTC")

    # then
    assert money.minor_units == 12345678901234567890123456789012345678901
    assert str(money) == f"{amount} BTC"


def test_the_callers_decimal_context_changes_nothing() -> None:
    with localcontext(prec=3):
        # when
        money = Money("12345.67", "CHF")

        # then
        assert money.minor_units == 1234567
        assert str(money) == "12345.67 CHF"
        assert money.convert(Decimal(2), "EUR") == Money.from_minor(2469134, "EUR")


@pytest.mark.parametrize("currency", ["chf", "XAU", "XXX", "BGN", "SAT", "usdc", "USDT", "", None, ["CHF"]])
def test_a_currency_outside_iso_4217_bitcoin_and_usdc_is_refused(currency: Any) -> None:
    with pytest.raises(UnknownCurrency):
        Money(1, currency)
    with pytest.raises(UnknownCurrency):
        Money.from_minor(1, currency)


@pytest.mark.parametrize("minor_units", [1.0, True, "1", Decimal(1), None])
def test_minor_units_are_an_int(minor_units: Any) -> None:
    with pytest.raises(InvalidMoney, match="minor units are an int"):
        Money.from_minor(minor_units, "CHF")


# Money: round trips


@given(monies)
def test_money_survives_its_amount_its_text_its_repr_and_pickle(money: Money) -> None:
    # when
    text = str(money).removesuffix(f" {money.currency}")

    # then
    assert Money(money.amount, money.currency) == money
    assert Money(text, money.currency) == money
    assert eval(repr(money), {"Money": Money}) == money
    assert pickle.loads(pickle.dumps(money)) == money
    assert copy.deepcopy(money) == money


@given(monies)
def test_an_amount_shows_all_its_decimals_and_no_exponent(money: Money) -> None:
    # when
    _, _, decimals = f"{money.amount:f}".partition(".")

    # then
    assert len(decimals) == exponent(money.currency)
    assert "E" not in str(money).removesuffix(money.currency)


@given(counts, counts, currencies)
def test_sums_differences_and_order_are_those_of_the_minor_units(one: int, other: int, currency: str) -> None:
    # given
    left, right = Money.from_minor(one, currency), Money.from_minor(other, currency)

    # then
    assert (left + right).minor_units == one + other
    assert (left - right).minor_units == one - other
    assert left + right - right == left
    assert [left < right, left <= right, left > right, left >= right] == [
        one < other,
        one <= other,
        one > other,
        one >= other,
    ]


def test_money_cannot_be_changed() -> None:
    # given
    money = Money(1, "CHF")

    # then
    with pytest.raises(AttributeError):
        money.minor_units = 2  # type: ignore[misc]  # the refusal is the point


def test_only_nothing_is_false() -> None:
    assert not Money(0, "CHF")
    assert Money("0.01", "CHF")
    assert Money("-0.01", "CHF")


# Money: currencies do not mix


def test_currencies_do_not_mix() -> None:
    # given
    francs, euros = Money(1, "CHF"), Money(1, "EUR")

    # then
    assert francs != euros
    for mix in (
        lambda: francs + euros,
        lambda: francs - euros,
        lambda: francs < euros,
        lambda: francs <= euros,
        lambda: francs > euros,
        lambda: francs >= euros,
    ):
        with pytest.raises(InvalidMoney, match="different currencies"):
            mix()


@pytest.mark.parametrize(
    ("money", "rate", "currency", "converted"),
    [
        (Money(10, "CHF"), "1.05", "EUR", Money("10.50", "EUR")),
        (Money(10, "CHF"), "1.00001", "EUR", Money("10.01", "EUR")),
        (Money("0.01", "CHF"), "655.957", "XOF", Money(7, "XOF")),
        (Money("0.01", "CHF"), "0.00001", "BTC", Money.from_sat(10)),
        (Money("0.01", "CHF"), "0.0000100001", "BTC", Money.from_sat(11)),
        (Money.from_sat(1), "100000", "CHF", Money("0.01", "CHF")),
        (Money(10, "CHF"), "1.2500001", "USDC", Money("12.51", "USDC")),
        (Money("12.50", "USDC"), "0.8", "CHF", Money(10, "CHF")),
    ],
)
def test_a_conversion_rounds_up_to_what_can_be_paid(money: Money, rate: str, currency: str, converted: Money) -> None:
    assert money.convert(Decimal(rate), currency) == converted


def test_a_conversion_rounds_up_however_small_the_rest() -> None:
    # given
    rate = Decimal("1." + "0" * 40 + "1")

    # then
    assert Money(1, "CHF").convert(rate, "EUR") == Money("1.01", "EUR")


@pytest.mark.parametrize("rate", [1.05, "abc", Decimal("NaN"), Decimal("Infinity"), None])
def test_a_rate_is_as_exact_as_an_amount(rate: Any) -> None:
    with pytest.raises(InvalidMoney):
        Money(1, "CHF").convert(rate, "EUR")


# Money: satoshi


@given(counts)
def test_satoshi_survive_the_round_trip(sat: int) -> None:
    assert Money.from_sat(sat).sat == sat


@pytest.mark.parametrize("money", [Money.from_minor(1, "BTC"), Money.from_minor(1500, "BTC"), Money(1, "CHF")])
def test_what_is_no_whole_number_of_satoshi_does_not_pretend_to_be(money: Money) -> None:
    with pytest.raises(InvalidMoney, match="whole number of satoshi"):
        _ = money.sat


# Secret


def shown(value: object) -> list[str]:
    """Every ordinary way a value ends up as text."""
    return [
        repr(value),
        str(value),
        format(value),
        f"{value}",
        f"{value!s}",
        f"{value!r}",
        "%s" % (value,),  # noqa: UP031  # every spelling has to be tried
        "%r" % (value,),  # noqa: UP031
        "{} {!r}".format(value, value),  # noqa: UP032
        str([value]),
        str({"key": value}),
        ascii(value),
    ]


@pytest.mark.parametrize("value", [Secret(HIDDEN), Secrets(HIDDEN), Secrets(HIDDEN, "older")])
def test_a_secret_never_shows_itself_as_text(value: Secret | Secrets) -> None:
    for text in shown(value):
        assert HIDDEN not in text
        assert "***" in text


def test_a_format_width_does_not_reveal_a_secret() -> None:
    assert f"{Secret(HIDDEN):>40}" == "***"
    assert f"{Secret(HIDDEN):.5}" == "***"


@pytest.mark.parametrize("value", [Secret(HIDDEN), Secrets(HIDDEN)])
def test_a_traceback_with_locals_does_not_reveal_a_secret(value: Secret | Secrets) -> None:
    # given
    def fail(secret: Secret | Secrets) -> None:
        raise ValueError(f"cannot use {secret}", secret)

    # when
    with pytest.raises(ValueError, match="cannot use") as caught:
        fail(value)
    report = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())

    # then
    assert "secret = " in report
    assert HIDDEN not in report


@pytest.mark.parametrize("value", [Secret(HIDDEN), Secrets(HIDDEN)])
def test_a_secret_has_no_attribute_dictionary_and_is_no_json(value: Secret | Secrets) -> None:
    assert not hasattr(value, "__dict__")
    with pytest.raises(TypeError):
        json.dumps(value)


def test_only_reveal_gives_the_text() -> None:
    assert Secret(HIDDEN).reveal() == HIDDEN
    assert Secret(Secret(HIDDEN)).reveal() == HIDDEN


def test_secrets_with_the_same_text_are_equal_and_no_secret_equals_its_text() -> None:
    assert Secret(HIDDEN) == Secret(HIDDEN)
    assert hash(Secret(HIDDEN)) == hash(Secret(HIDDEN))
    assert Secret(HIDDEN) != Secret("other")
    assert Secret(HIDDEN) != HIDDEN


def test_an_empty_secret_is_false() -> None:
    assert not Secret("")
    assert Secret(HIDDEN)


@pytest.mark.parametrize("text", [None, HIDDEN.encode(), 4711])
def test_a_secret_is_text_and_its_refusal_does_not_quote_it(text: Any) -> None:
    with pytest.raises(TypeError, match="a secret is a str") as caught:
        Secret(text)
    assert HIDDEN not in str(caught.value)
    assert "4711" not in str(caught.value)


def test_a_secret_survives_pickle_and_copy() -> None:
    for twin in (pickle.loads(pickle.dumps(Secret(HIDDEN))), copy.deepcopy(Secret(HIDDEN))):
        assert twin == Secret(HIDDEN)


# Secrets


@pytest.mark.parametrize(
    "secrets",
    [
        Secrets("new", "old"),
        Secrets(["new", "old"]),
        Secrets(Secret("new"), "old"),
        Secrets(Secrets("new"), ["old"]),
        Secrets(text for text in ("new", "old")),
        pickle.loads(pickle.dumps(Secrets("new", "old"))),
    ],
)
def test_the_first_secret_signs_and_each_verifies(secrets: Secrets) -> None:
    assert secrets.current == Secret("new")
    assert list(secrets) == [Secret("new"), Secret("old")]
    assert len(secrets) == 2


@pytest.mark.parametrize("texts", [(), ("",), ([],), ("new", ""), (["new", ""],), (Secret(""),)])
def test_an_absent_or_empty_secret_is_refused(texts: Any) -> None:
    with pytest.raises(MissingCredential):
        Secrets(*texts)


def test_bytes_are_not_taken_for_a_list_of_secrets() -> None:
    with pytest.raises(TypeError, match="a secret is a str"):
        Secrets(HIDDEN.encode())  # type: ignore[arg-type]  # the refusal is the point


def test_several_secrets_are_read_from_one_variable_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("WEBHOOK_SECRET", " new, old,")

    # when
    secrets = Secrets.from_env("WEBHOOK_SECRET")

    # then
    assert list(secrets) == [Secret("new"), Secret("old")]


def test_one_secret_from_the_environment_keeps_its_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("SMTP_PASSWORD", "one,password\n")

    # then
    assert secret_from_env("SMTP_PASSWORD") == Secret("one,password")


@pytest.mark.parametrize("read", [Secrets.from_env, secret_from_env])
@pytest.mark.parametrize("content", [None, "", "  "])
def test_a_variable_that_is_unset_or_empty_is_named(
    monkeypatch: pytest.MonkeyPatch, read: Any, content: str | None
) -> None:
    # given
    monkeypatch.delenv("WEBHOOK_SECRET", raising=False)
    if content is not None:
        monkeypatch.setenv("WEBHOOK_SECRET", content)

    # then
    with pytest.raises(MissingCredential, match="WEBHOOK_SECRET"):
        read("WEBHOOK_SECRET")


# Reference


@given(st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True))
def test_a_reference_is_its_text(text: str) -> None:
    # when
    reference = Reference(text)

    # then
    assert reference == text
    assert f"{reference}" == text
    assert isinstance(pickle.loads(pickle.dumps(reference)), Reference)


@pytest.mark.parametrize(
    "text", ["", "a" * 65, "a b", "a/b", "a\n", "\na", "é", "\uff11", "a%20b", "a?b", "a\x00", None, 4711, b"a"]
)
def test_anything_outside_the_alphabet_is_no_reference(text: Any) -> None:
    with pytest.raises(InvalidReference):
        Reference(text)


def test_a_model_reads_text_as_a_reference_and_refuses_the_rest() -> None:
    # given
    adapter = TypeAdapter(Reference)

    # then
    assert isinstance(adapter.validate_python("consultation-4711"), Reference)
    assert isinstance(adapter.validate_json('"consultation-4711"'), Reference)
    assert adapter.dump_json(Reference("consultation-4711")) == b'"consultation-4711"'
    for unfit in ("a b", 4711, None):
        with pytest.raises(ValidationError):
            adapter.validate_python(unfit)
