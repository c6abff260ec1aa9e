"""The public surface is what `public_api.txt` says; a change of it shows in the diff.

After a decision to change it, write the file anew: UPDATE_PUBLIC_API=1 python -m pytest tests/test_public_api.py
"""

import dataclasses
import enum
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

SNAPSHOT = Path(__file__).with_name("public_api.txt")
MODULES = (
    "holdfast",
    "holdfast.aiohttp",
    "holdfast.errors",
    "holdfast.httpx2",
    "holdfast.providers",
    "holdfast.resilience",
)
HEAVY = {
    "aiohttp",
    "aiosmtplib",
    "anyio",
    "fastapi",
    "httpx",
    "httpx2",
    "httpcore",
    "jwt",
    "psycopg",
    "pybreaker",
    "pydantic",
    "redis",
}
OPTIONAL = {
    "aiohttp",
    "aiosmtplib",
    "fastapi",
    "httpx2",
    "jwt",
    "psycopg",
    "pybreaker",
    "redis",
    "segno",
    "starlette",
    "typer",
}


def names(module: ModuleType) -> list[str]:
    """Its `__all__`, or the classes made in it."""
    listed: list[str] | None = getattr(module, "__all__", None)
    if listed is not None:
        return listed
    made = inspect.getmembers(module, lambda each: inspect.isclass(each) and each.__module__ == module.__name__)
    return [name for name, _ in made if not name.startswith("_")]


def signature(thing: object) -> str:
    try:
        text = str(inspect.signature(cast(Callable[..., object], thing)))
    except (TypeError, ValueError):
        return ""
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    text = re.sub(r"<function (\w+)>", r"\1", text)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)  # where a type lives is not the caller's business


def described(name: str, thing: object) -> Iterator[str]:
    if not inspect.isclass(thing):
        yield f"{name}{signature(thing)}" if callable(thing) else f"{name}: {type(thing).__name__}"
        return
    bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
    yield f"class {name}({bases})" if bases else f"class {name}"
    if issubclass(thing, enum.Enum):
        yield from (f"    {member.name} = {member.value!r}" for member in thing)
        return
    made_by = signature(thing) if thing.__init__ is not object.__init__ else ""
    if made_by:
        yield f"    {made_by}"
    field_names = {field.name for field in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else set[str]()
    for member in sorted(vars(thing)):
        if member.startswith("_") or member in field_names or member.startswith("model_"):
            continue
        yield from (f"    {line}" for line in member_line(member, inspect.getattr_static(thing, member)))


def member_line(name: str, member: object) -> Iterator[str]:
    if isinstance(member, property):
        yield f"{name}: property"
    elif isinstance(member, classmethod | staticmethod):
        kind = "classmethod" if isinstance(member, classmethod) else "staticmethod"
        yield f"{kind} {name}{signature(getattr(cast(object, member), '__func__'))}"  # noqa: B009  # it is generic
    elif inspect.isfunction(member):
        yield f"{'async ' if inspect.iscoroutinefunction(member) else ''}{name}{signature(member)}"
    else:
        yield name


def surface() -> str:
    lines: list[str] = []
    for home in MODULES:
        module = importlib.import_module(home)
        lines.append(f"# {home}")
        for name in names(module):
            lines.extend(described(name, getattr(module, name)))
        lines.append("")
    return "\n".join(lines)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="signatures are spelled as the oldest Python spells them")
def test_the_public_surface_is_the_one_that_was_decided() -> None:
    found = surface()
    if os.environ.get("UPDATE_PUBLIC_API"):
        SNAPSHOT.write_text(found)

    assert found.splitlines() == SNAPSHOT.read_text().splitlines(), "see the head of this file"


@pytest.mark.parametrize("home", MODULES)
def test_every_public_name_is_there_is_sorted_and_has_a_docstring(home: str) -> None:
    module = importlib.import_module(home)
    listed = names(module)

    assert listed == sorted(set(listed))
    for name in listed:
        thing = getattr(module, name)
        assert not (inspect.isclass(thing) or inspect.isfunction(thing)) or inspect.getdoc(thing), name
    assert set(listed) <= set(dir(module))


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    import holdfast

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        getattr(holdfast, "Nothing")  # noqa: B009  # a name the type checkers must not look for


def imported(code: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in ran.stdout.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import holdfast",
        "import holdfast.errors",
        "import holdfast.resilience",
        "from holdfast import Guard, Policy, Retry, Breaker, Money, Secrets",
    ],
)
def test_importing_it_loads_no_http_library_no_pydantic_and_no_optional_package(code: str) -> None:
    assert imported(code) & (HEAVY | OPTIONAL | {"tenacity"}) == set()


def test_the_whole_public_surface_needs_no_optional_package() -> None:
    code = "import holdfast; [getattr(holdfast, name) for name in holdfast.__all__]"

    assert imported(code) & OPTIONAL == set()
