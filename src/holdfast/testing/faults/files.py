"""Reading plans from JSON and YAML, and saying where they are wrong."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

from holdfast.errors import MissingExtra
from holdfast.testing.faults.errors import InvalidPlan

ModelT = TypeVar("ModelT", bound=BaseModel)
Steps = tuple[str | int, ...]
"""A way into nested data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """What a file holds, and the lines its parts begin at, where they are known."""

    file: str
    data: object
    lines: Mapping[Steps, int] = field(default_factory=dict[Steps, int])


def load(path: str | PathLike[str]) -> Loaded:
    """The content of a JSON or YAML file.

    Raises:
        InvalidPlan: It cannot be read as what its name says it is.
        MissingExtra: It is YAML, and no package to read it is installed.
    """
    file, suffix = Path(path), Path(path).suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise InvalidPlan(file=str(file), found=repr(suffix or file.name), allowed="a .json, .yaml or .yml file")
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise InvalidPlan(file=str(file), found=error.strerror or "no file", allowed="a file to read") from error
    except UnicodeDecodeError as error:
        raise InvalidPlan(file=str(file), found="bytes that are no text", allowed="UTF-8") from error
    return _json(str(file), text) if suffix == ".json" else _yaml(str(file), text)


def validated(model: type[ModelT], given: object) -> ModelT:
    """The model of this data, or of what was loaded from a file.

    Raises:
        InvalidPlan: It does not fit; the message says where, what was found, and what is allowed.
    """
    loaded = given if isinstance(given, Loaded) else Loaded(file="", data=given)
    try:
        return model.model_validate(loaded.data)
    except ValidationError as error:
        raise _invalid(model, loaded, error) from None


def _json(file: str, text: str) -> Loaded:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InvalidPlan(file=file, found=f"{twice!r} twice in one object", allowed="each name once")
        return dict(pairs)

    try:
        return Loaded(file=file, data=json.loads(text, object_pairs_hook=unique))
    except json.JSONDecodeError as error:
        raise InvalidPlan(file=file, line=error.lineno, found=f"no JSON: {error.msg}", allowed="JSON") from None


# YAML: of the forms of its version 1.2, in which 10:00 is no number and `on` is no truth.

_SCALARS: Final = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
)


def _yaml(file: str, text: str) -> Loaded:
    try:
        yaml = import_module("yaml")
    except ImportError:
        raise MissingExtra("testing") from None
    loader = _loader(yaml)(text)
    try:
        node = loader.get_single_node()
        lines: dict[Steps, int] = {}
        _find_lines(node, (), lines, file)
        return Loaded(file=file, data=loader.construct_document(node) if node is not None else None, lines=lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise InvalidPlan(file=file, line=line, found=f"no YAML: {error.problem}", allowed="YAML") from None
    finally:
        loader.dispose()


def _loader(yaml: Any) -> Any:
    resolvers: dict[str | None, list[tuple[str, object]]] = {}
    for tag, pattern, firsts in _SCALARS:
        for first in firsts:
            resolvers.setdefault(first.replace("\0", ""), []).append((tag, re.compile(rf"(?:{pattern})\Z")))
    return type("PlanLoader", (yaml.SafeLoader,), {"yaml_implicit_resolvers": resolvers})


def _find_lines(node: Any, steps: Steps, lines: dict[Steps, int], file: str) -> None:
    if node is None or steps in lines:
        return
    lines[steps] = node.start_mark.line + 1
    if node.id == "sequence":
        for place, inner in enumerate(node.value):
            _find_lines(inner, (*steps, place), lines, file)
    elif node.id == "mapping":
        for key, inner in node.value:
            if (*steps, str(key.value)) in lines:
                found = f"{key.value!r} twice in one mapping"
                raise InvalidPlan(file=file, line=key.start_mark.line + 1, found=found, allowed="each name once")
            _find_lines(inner, (*steps, str(key.value)), lines, file)
            lines[(*steps, str(key.value))] = key.start_mark.line + 1


# What is wrong with it


def _invalid(model: type[BaseModel], loaded: Loaded, error: ValidationError) -> InvalidPlan:
    problems = error.errors(include_url=False)
    problem = problems[0]
    steps, owner = _way(model, loaded.data, problem["loc"])
    found, allowed = _words(problem, owner)
    known = next((steps[:end] for end in range(len(steps), -1, -1) if steps[:end] in loaded.lines), None)
    return InvalidPlan(
        file=loaded.file,
        line=None if known is None else loaded.lines[known],
        path="".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix("."),
        found=found,
        allowed=allowed,
        more=len(problems) - 1,
    )


def _way(model: type[BaseModel], data: object, loc: Iterable[str | int]) -> tuple[Steps, type[BaseModel] | None]:
    """The way in the data itself, without the names of unions' members, and the model that is to be at its end."""
    owners, steps = [model], list[str | int]()
    for step in loc:
        tagged = [owner for owner in owners if _kind(owner) == step]
        named = owners[0].model_fields.get(str(step)) if len(owners) == 1 else None
        if _holds(data, step):
            data = cast(Any, data)[step]
            steps.append(step)
            owners = _models(named.annotation) if named is not None else owners
        elif tagged:
            owners = tagged
    return tuple(steps), owners[0] if len(owners) == 1 else None


def _kind(model: type[BaseModel]) -> object:
    return model.model_fields["kind"].default if "kind" in model.model_fields else None


def _holds(data: object, step: str | int) -> bool:
    if isinstance(data, Mapping):
        return step in data
    return isinstance(data, list) and isinstance(step, int) and step < len(cast(list[object], data))


def _models(annotation: object) -> list[type[BaseModel]]:
    """Those an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _words(problem: Any, owner: type[BaseModel] | None) -> tuple[str, str]:
    given, context = problem["input"], problem.get("ctx", {})
    match problem["type"]:
        case "union_tag_invalid":
            return repr(context["tag"]), str(context["expected_tags"]).replace("'", "")
        case "union_tag_not_found":
            return f"no {context['discriminator']} in {_short(given)}", "a mapping with it"
        case "extra_forbidden":
            names = owner.model_fields if owner is not None else ()
            return repr(problem["loc"][-1]), ", ".join(names)
        case "missing":
            names = owner.model_fields if owner is not None else ()
            return f"no {problem['loc'][-1]}", ", ".join(names)
        case _:
            text = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            return _short(given), text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
