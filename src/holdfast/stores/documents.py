"""JSON text that reads back as exactly what was written."""

import json
from collections.abc import Mapping
from typing import NoReturn, cast

from holdfast.errors import InvalidInput
from holdfast.stores.store import Json


def encode(document: Mapping[str, Json]) -> str:
    """The document as JSON text.

    Raises:
        InvalidInput: It holds a float, a key that is no string, or anything else JSON would give back changed.
    """
    if not document:
        return "{}"
    plain = dict(document)
    try:
        text = json.dumps(plain, separators=(",", ":"))
        if json.loads(text, parse_float=_refuse, parse_constant=_refuse) != plain:
            raise ValueError("it would not read back the same")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"not a JSON document of strings, integers, booleans, null, lists and dicts: {error}"
        ) from error
    return text


def decode(text: str) -> dict[str, Json]:
    """The inverse of `encode`."""
    return cast("dict[str, Json]", json.loads(text))


def decode_strings(text: str) -> dict[str, str]:
    """The inverse of `encode`, for a document that holds only strings."""
    return cast("dict[str, str]", json.loads(text)) if text != "{}" else {}


def utf8(text: str) -> bytes:
    """Raises InvalidInput: it holds half of a surrogate pair, which is no character."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{text!r} is no Unicode text") from error


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number} is a float; write a string or whole units")
