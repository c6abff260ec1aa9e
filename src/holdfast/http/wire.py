"""Values to bytes and back, exactly: an amount never passes through a float."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NoReturn, cast
from urllib.parse import quote, urlencode

from holdfast.errors import InvalidInput
from holdfast.http.transports import HttpResponse
from holdfast.outcome import Cause

JsonOut = str | int | bool | None | Decimal | Sequence["JsonOut"] | Mapping[str, "JsonOut"]
JsonIn = str | int | bool | None | Decimal | list["JsonIn"] | dict[str, "JsonIn"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LONGEST_NUMBER = 1000
_CODE_KEYS = ("code", "error_code", "error")
_MESSAGE_KEYS = ("message", "error_description", "detail", "description", "reason", "title", "error")


@dataclass(frozen=True, kw_only=True, slots=True)
class VendorError:
    """What a vendor says in the body of an answer that is not a success."""

    code: str = ""
    """The vendor's own code, verbatim."""
    message: str = ""
    reason: str = ""
    """Our finer word: `recipient_gone`, `host_quota`, `card_declined`."""
    retry_after: float | None = None
    """Seconds, where the vendor says it in the body."""
    narrow: bool = False
    """It asks only the call's own `scope` to pause, not the whole credential."""
    cause: Cause | None = None
    """Only where neither status nor code can tell; it stands above the table."""


def encode_json(value: JsonOut) -> bytes:
    """Compact JSON in UTF-8; a Decimal is written as a number with its own digits.

    Raises:
        InvalidInput: A float, or anything else JSON has no exact form for.
    """
    return _utf8(_text(value))


def encode_form(fields: Mapping[str, str | int]) -> str:
    """The fields as a form or a query.

    Raises:
        InvalidInput: A text that is no Unicode.
    """
    try:
        return urlencode(fields)
    except UnicodeEncodeError:
        raise InvalidInput("a field holds half a character, which UTF-8 cannot carry") from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("a text holds half a character, which UTF-8 cannot carry") from None


def _text(value: JsonOut) -> str:
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_name(name)}:{_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    raise InvalidInput(f"{type(value).__name__} has no exact form in JSON; write a Decimal, int or str")


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise InvalidInput(f"a name in JSON is a str, not {type(name).__name__}")
    return json.dumps(name, ensure_ascii=False)


def _number(value: Decimal) -> str:
    if not value.is_finite() or abs(value.adjusted()) > _LONGEST_NUMBER:
        raise InvalidInput("JSON has no such number: not finite, or too long")
    return f"{value:f}"


def decode_json(body: bytes) -> JsonIn:
    """The value of a JSON text, numbers with a point as Decimal.

    Raises:
        ValueError: Not JSON, or with a number too long to be one.
    """
    try:
        return cast(JsonIn, json.loads(body, parse_float=_decimal, parse_constant=_refuse))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _decimal(text: str) -> Decimal:
    number = Decimal(text)
    if abs(number.adjusted()) > _LONGEST_NUMBER:  # as an int, ten bytes of `1e99999999` would be 40 megabytes
        raise ValueError("a number is too long")
    return number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def segment(text: str) -> str:
    """A text as one segment of a path, whatever it holds."""
    return quote(text, safe="")


def one_line(text: str) -> str:
    """A vendor's text as one line without control characters; whole, since only who knows the secrets may cut it."""
    return _CONTROL.sub(" ", text).strip()


def read_json_error(response: HttpResponse) -> VendorError:
    """Code and message where most vendors put them, flat or under `error`; empty where the body is no JSON object."""
    try:
        body = decode_json(response.content)
    except ValueError:
        return VendorError()
    if isinstance(body, dict):
        nested = body.get("error")
        facts = body | nested if isinstance(nested, dict) else body
        return VendorError(code=_first(facts, _CODE_KEYS), message=_first(facts, _MESSAGE_KEYS))
    return VendorError()


def _first(facts: Mapping[str, JsonIn], names: Sequence[str]) -> str:
    for name in names:
        value = facts.get(name)
        if isinstance(value, str | int | Decimal) and not isinstance(value, bool) and value != "":
            return one_line(str(value))
    return ""
