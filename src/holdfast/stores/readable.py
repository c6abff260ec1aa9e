"""Typed values as documents that can be read again."""

from typing import Literal, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from holdfast.errors import InvalidInput
from holdfast.stores.store import Json

T = TypeVar("T")


def document(kind: str, adapter: TypeAdapter[T], value: T) -> dict[str, Json]:
    """The value as a document, without its version.

    Raises:
        InvalidInput: It could not be read again, so it is not written.
    """
    try:
        return _dumped(adapter, value, warnings="error")
    except PydanticSerializationError:
        return _checked(kind, adapter, value)


def _checked(kind: str, adapter: TypeAdapter[T], value: T) -> dict[str, Json]:
    try:
        written = _dumped(adapter, value, warnings="none")
        adapter.validate_python(written)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False)
        )
        # Not as the cause: it shows the values, and those may be private.
        raise InvalidInput(f"such a {kind} could not be read again; {wrong}") from None
    except PydanticSerializationError as error:
        raise InvalidInput(f"such a {kind} could not be written: {error}") from None
    return written


def _dumped(adapter: TypeAdapter[T], value: T, *, warnings: Literal["none", "error"]) -> dict[str, Json]:
    dumped: dict[str, Json] = adapter.dump_python(value, mode="json", exclude={"version"}, warnings=warnings)
    return dumped
