"""What an answer looks like without what it says: types, fields, and the words of fields that have only a few."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

Type = Literal["null", "boolean", "integer", "number", "string", "array", "object"]

DEEPEST: Final = 40
MOST_FIELDS: Final = 300
MOST_WORDS: Final = 12
# Only fields that are named like an enumeration: any other may hold somebody's name, which can be a lower-case word.
_ENUMERATION: Final = re.compile(r"(?:.*_)?(?:type|status|state|object|kind|mode|reason|direction|funding)")
_WORD: Final = re.compile(r"[a-z]+(?:[_.][a-z]+){0,5}")
# Fields that vendors name themselves: the other keys are their customers', as those of metadata.
_FIELD: Final = re.compile(r"(?!.*\d{3})[A-Za-z_$@][\w$@.-]{0,60}", re.ASCII)
_CUSTOMERS: Final = frozenset(("metadata", "extra", "custom_fields", "attributes", "event_payload"))


class Shape(BaseModel):
    """Everything seen in one place of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    types: tuple[Type, ...] = ()
    words: tuple[str, ...] | None = ()
    """The strings it holds, where they are a few words of the vendor's; None where they are any."""
    fields: dict[str, "Shape"] = Field(default_factory=dict[str, "Shape"])
    required: tuple[str, ...] = ()
    """The fields no object was without."""
    values: "Shape | None" = None
    """Of an object whose keys are its owner's."""
    items: "Shape | None" = None

    def __str__(self) -> str:
        known = [kind for kind in self.types if kind != "null"]
        return " or ".join([*known, *(["null"] if "null" in self.types else [])]) or "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One difference between what was and what is."""

    kind: Literal["added", "gone", "changed"]
    read: str
    place: str
    """`data[].amount`; empty for the answer itself."""
    text: str

    def __str__(self) -> str:
        sign = {"added": "+", "gone": "-", "changed": "~"}[self.kind]
        return f"{sign} {self.place or 'the answer'}: {self.text}"


def shape_of(value: object, *, name: str = "", depth: int = 0) -> Shape:
    """The shape of one JSON value, found in the field of that name."""
    match value:
        case None:
            return Shape(types=("null",))
        case bool():
            return Shape(types=("boolean",))
        case int():
            return Shape(types=("integer",))
        case str():
            is_word = _ENUMERATION.fullmatch(name) and len(value) <= 40 and _WORD.fullmatch(value)
            return Shape(types=("string",), words=(value,) if is_word else None)
        case list():
            inside = (shape_of(one, name=name, depth=depth + 1) for one in cast(list[object], value))
            return Shape(types=("array",), items=None if depth >= DEEPEST else _merged(inside))
        case dict():
            return _shape_of_object(cast(dict[str, object], value), name, depth)
        case _:
            return Shape(types=("number",))


def _shape_of_object(value: Mapping[str, object], name: str, depth: int) -> Shape:
    if depth >= DEEPEST:
        return Shape(types=("object",))
    fields = {key: shape_of(inside, name=key, depth=depth + 1) for key, inside in value.items()}
    if name in _CUSTOMERS or len(fields) > MOST_FIELDS or not all(map(_FIELD.fullmatch, fields)):
        anybodys = (shape_of(inside, depth=depth + 1) for inside in value.values())
        return Shape(types=("object",), values=_merged(anybodys) or Shape())
    return Shape(types=("object",), fields=dict(sorted(fields.items())), required=tuple(sorted(fields)))


def merge(one: Shape, other: Shape) -> Shape:
    """What fits both."""
    words = None if one.words is None or other.words is None else tuple(sorted({*one.words, *other.words}))
    if words is not None and len(words) > MOST_WORDS:
        words = None
    types: tuple[Type, ...] = tuple(sorted({*one.types, *other.types}))
    items = _merged(shape for shape in (one.items, other.items) if shape is not None)
    if one.values is not None or other.values is not None:
        everything = (*one.fields.values(), *other.fields.values(), one.values or Shape(), other.values or Shape())
        return Shape(types=types, words=words, items=items, values=_merged(everything))
    names = sorted({*one.fields, *other.fields})
    objects = [shape for shape in (one, other) if "object" in shape.types]
    return Shape(
        types=types,
        words=words,
        items=items,
        fields={name: _merged(s.fields[name] for s in objects if name in s.fields) or Shape() for name in names},
        required=tuple(name for name in names if all(name in shape.required for shape in objects)),
    )


def _merged(shapes: Iterable[Shape]) -> Shape | None:
    found = list(shapes)
    return reduce(merge, found) if found else None


def compare(before: Shape, now: Shape, *, read: str = "", place: str = "") -> list[Change]:
    """How what is differs from what was.

    What the baseline never saw is not compared: the elements of an empty list, or what is instead of null.
    """
    return list(_compare(before, now, read, place))


def _compare(before: Shape, now: Shape, read: str, place: str) -> Iterator[Change]:
    def change(kind: Literal["added", "gone", "changed"], text: str, field: str = "") -> Change:
        return Change(kind=kind, read=read, place=f"{place}.{field}".strip(".") if field else place, text=text)

    if set(before.types) <= {"null"} or not now.types:
        return
    if others := _others(before, now):
        yield change("changed", "may now be null" if others == {"null"} else f"{before}, and now {now}")
    if "string" in before.types and "string" in now.types and before.words is not None:
        if now.words is None:
            yield change("changed", f"one of {', '.join(before.words)}, and now any string")
        elif new := sorted({*now.words} - {*before.words}):
            yield change("added", f"the word {', '.join(new)}, beside {', '.join(before.words)}")
    if before.items is not None and now.items is not None:
        yield from _compare(before.items, now.items, read, f"{place}[]")
    if "object" not in before.types or "object" not in now.types:
        return
    if before.values is not None or now.values is not None:
        was, is_now = (_merged([*one.fields.values(), one.values or Shape()]) for one in (before, now))
        yield from _compare(was or Shape(), is_now or Shape(), read, f"{place}.*".strip("."))
        return
    for name in sorted({*before.fields, *now.fields}):
        if name not in before.fields:
            yield change("added", str(now.fields[name]), name)
        elif name in before.required and name not in now.required:
            yield change("gone", "no longer always there" if name in now.fields else str(before.fields[name]), name)
        if name in before.fields and name in now.fields:
            yield from _compare(before.fields[name], now.fields[name], read, f"{place}.{name}".strip("."))


def _others(before: Shape, now: Shape) -> set[Type]:
    """The types that are new; an integer is a number, too."""
    known = {*before.types, *(("integer",) if "number" in before.types else ())}
    return {kind for kind in now.types if kind not in known}
