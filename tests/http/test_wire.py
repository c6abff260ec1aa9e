"""Amounts cross the wire with their own digits."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidInput
from holdfast.http.transports import HttpResponse
from holdfast.http.wire import (
    JsonOut,
    VendorError,
    decode_json,
    encode_form,
    encode_json,
    one_line,
    read_json_error,
    segment,
)
from holdfast.values import Secret

scalars = st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]))
decimals = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20)
documents: st.SearchStrategy[JsonOut] = st.recursive(
    scalars | decimals,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


class Unit(StrEnum):
    SAT = "sat"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("21.50"), b"21.50"),
        (Decimal("0.1") + Decimal("0.2"), b"0.3"),
        (Decimal("12345678901234567890.123456789"), b"12345678901234567890.123456789"),
        (Decimal("1E+3"), b"1000"),
        (Decimal("1E-11"), b"0.00000000001"),
        ({"unit": Unit.SAT, "n": [1, True, None]}, b'{"unit":"sat","n":[1,true,null]}'),
        ("Grüezi ☎\n", '"Grüezi ☎\\n"'.encode()),
        ((), b"[]"),
    ],
)
def test_json_is_written_exactly(value: JsonOut, text: bytes) -> None:
    assert encode_json(value) == text


@pytest.mark.parametrize(
    "value",
    [0.1, {"a": [0.1]}, Decimal("NaN"), Decimal("Infinity"), Decimal("1E+100000"), b"x", {1: 2}, Secret("s"), "\ud800"],
)
def test_what_has_no_exact_form_is_refused(value: JsonOut) -> None:
    with pytest.raises(InvalidInput):
        encode_json(value)


def test_a_form_holds_only_whole_characters() -> None:
    assert encode_form({"a": "é &", "n": 1}) == "a=%C3%A9+%26&n=1"
    with pytest.raises(InvalidInput):
        encode_form({"a": "\ud800"})


@given(documents)
def test_json_reads_back_as_it_was_written(value: JsonOut) -> None:
    assert decode_json(encode_json(value)) == value


def test_numbers_are_read_as_decimals() -> None:
    assert decode_json(b'{"amount": 0.10}') == {"amount": Decimal("0.10")}


@pytest.mark.parametrize(
    "text", [b"", b"<html>", b'{"a"', b"NaN", b"\xff\xfe\x00", b"[" * 100_000, b"1" * 10_000], ids=lambda text: text[:8]
)
def test_what_is_no_json_raises_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the contract is this very class
        decode_json(text)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b'{"code":1001,"message":"User does not exist"}', "1001", "User does not exist"),
        (b'{"error":"invalid_client","reason":"Invalid client_id"}', "invalid_client", "Invalid client_id"),
        (b'{"error":{"code":"card_declined","message":"No."}}', "card_declined", "No."),
        (b'{"ok":false,"error_code":429,"description":"Too Many Requests"}', "429", "Too Many Requests"),
        (b'{"detail":"Not found"}', "", "Not found"),
        (b'{"detail":[{"loc":["body"]}]}', "", ""),
        (b'{"code":null,"message":{}}', "", ""),
        (b"[1]", "", ""),
        (b"<html>", "", ""),
        (b'{"message":"two\\nlines\\u001b[31m"}', "", "two lines [31m"),
    ],
)
def test_an_error_is_read_where_vendors_put_it(body: bytes, code: str, message: str) -> None:
    assert read_json_error(HttpResponse(status=400, content=body)) == VendorError(code=code, message=message)


@given(st.binary() | documents.map(encode_json))
def test_reading_an_error_never_raises(body: bytes) -> None:
    read_json_error(HttpResponse(status=500, content=body))


def test_a_vendors_text_becomes_one_line() -> None:
    assert one_line(" a\r\n\x1b[31mb\u2028c ") == "a [31mb c"


def test_a_segment_stays_one() -> None:
    assert segment("a/../b?c#d") == "a%2F..%2Fb%3Fc%23d"


def test_headers_are_found_in_any_case() -> None:
    headers: Mapping[str, str] = {"x-request-id": "r1"}
    response = HttpResponse(status=200, headers=tuple(headers.items()))
    assert response.header("X-Request-Id") == "r1"
    assert response.header("X-Other") is None


@pytest.mark.parametrize("text", [b"1e999999999", b"-1E+1001", b'{"amount": 1e-5000}', b"1.5e400000000000"])
def test_a_number_nobody_can_count_to_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError, match="too long"):
        decode_json(text)
