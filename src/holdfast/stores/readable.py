"""Typed values as documents that can be read again."""

from dataclasses import fields, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from holdfast.errors import InvalidInput, Unreadable
from holdfast.stores.store import Json, Record


class Versioned(Protocol):
    """A dataclass that knows which version of its record it is; 0 is on no record yet."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def version(self) -> int: ...


V = TypeVar("V", bound=Versioned)


def document(kind: str, adapter: TypeAdapter[V], value: V) -> dict[str, Json]:
    """The value as a document, without its version.

    Raises:
        InvalidInput: It could not be read again; or it is new, and would come back as something else.
    """
    if value.version == 0:  # pydantic writes None for a text without a word, and then cannot read it
        return _doubted(kind, adapter, value)
    try:
        return _dumped(adapter, value, warnings="error")
    except ValueError:  # also PydanticSerializationError, and UnicodeDecodeError
        return _doubted(kind, adapter, value)


def value_of(adapter: TypeAdapter[V], record: Record) -> V:
    """The inverse of `document`.

    Raises:
        Unreadable: The document is no such value; somebody else wrote it.
    """
    try:
        value = adapter.validate_python(dict(record.value))
    except ValidationError as error:
        raise Unreadable(f"{record.kind} {record.key}", _wrong(error)) from None
    return replace(value, version=record.version)


def _doubted(kind: str, adapter: TypeAdapter[V], value: V) -> dict[str, Json]:
    try:
        written = _dumped(adapter, value, warnings="none")
        read = adapter.validate_python(written)
    except ValidationError as error:
        # Not as the cause: it shows the values, and those may be private.
        raise InvalidInput(f"such a {kind} could not be read again; {_wrong(error)}") from None
    except ValueError as error:
        raise InvalidInput(f"such a {kind} cannot be kept: {type(error).__name__}") from None
    # What is under way is written as long as it can be read: to refuse it would lose what a vendor said.
    for field in fields(value) if value.version == 0 else ():
        given, meant = _type(value, field.name), _type(read, field.name)
        if given != meant:
            raise InvalidInput(f"{field.name} is a {meant}, not a {given}")
    return written


def _dumped(adapter: TypeAdapter[V], value: V, *, warnings: Literal["none", "error"]) -> dict[str, Json]:
    dumped: dict[str, Json] = adapter.dump_python(value, mode="json", exclude={"version"}, warnings=warnings)
    return dumped


def _type(value: object, name: str) -> str:
    part: object = getattr(value, name)
    return type(part).__name__


def _wrong(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False))
