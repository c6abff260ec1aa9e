"""Every name on the page of terms exists, with every argument it is shown with."""

import ast
import inspect
import re
from importlib import import_module
from typing import Any

import pytest

from holdfast import Guard, Policy
from holdfast.cli.app import app
from tests.docs.pages import DOCS

PAGE = (DOCS / "reference" / "terms.md").read_text()
MODULES = [
    import_module(f"holdfast{module}")
    for module in (
        "",
        ".clock",
        ".errors",
        ".resilience",
        ".resilience.breaker",
        ".resilience.interop",
        ".resilience.simulate",
        ".telemetry",
        ".testing",
    )
]
KNOWN: dict[str, Any] = {"guard": Guard, "policy": Policy, "asyncio": import_module("asyncio")}
"""What an example in lower case stands for."""
NOTHING = object()


def names() -> list[str]:
    """All code in the second column."""
    rows = re.findall(r"^\| (?!in the literature)[^|]+ \| ([^|]+) \|", PAGE, re.MULTILINE)
    return sorted({code for row in rows for code in re.findall(r"`([^`]+)`", row)})


def missing(expression: ast.expr) -> list[str]:
    """What of the expression does not exist: names, attributes, arguments."""
    wrong: list[str] = []
    own = _values(expression)
    for node in ast.walk(expression):
        if isinstance(node, ast.Name | ast.Attribute) and node not in own and named(node) is NOTHING:
            wrong.append(ast.unparse(node))
        if isinstance(node, ast.Call) and callable(function := named(node.func)):
            known = inspect.signature(function).parameters
            wrong += [f"{ast.unparse(node.func)}({word.arg}=…)" for word in node.keywords if word.arg not in known]
    return wrong


def named(expression: ast.expr) -> Any:
    """What a name or an attribute stands for; `NOTHING`: there is none."""
    match expression:
        case ast.Name(id=name):
            homes = (KNOWN.get(name, NOTHING), *(getattr(module, name, NOTHING) for module in MODULES))
            return next((found for found in homes if found is not NOTHING), NOTHING)
        case ast.Attribute(value=owner, attr=name):
            holder = named(owner)
            return getattr(holder, name, name if name in _of_instances(holder) else NOTHING)
        case _:
            return NOTHING


def _of_instances(kind: Any) -> set[str]:
    """Attributes that only instances have."""
    if not inspect.isclass(kind):
        return set()
    return {
        *inspect.get_annotations(kind),
        *re.findall(r"^\s+self\.(\w+)\b.* = ", inspect.getsource(kind), re.MULTILINE),
    }


def _values(expression: ast.expr) -> list[ast.expr]:
    """Names handed over as arguments, which are the reader's own: `key=user_id`, `[first, second]`."""
    calls = [node for node in ast.walk(expression) if isinstance(node, ast.Call)]
    handed = [part for call in calls for part in (*call.args, *(word.value for word in call.keywords))]
    inside = [node for part in handed for node in (part, *getattr(part, "elts", ()))]
    return [node for node in inside if isinstance(node, ast.Name)]


@pytest.mark.parametrize("name", names())
def test_every_name_exists(name: str) -> None:
    if name.startswith("holdfast "):
        assert name.removeprefix("holdfast ") in {command.name for command in app.registered_commands}
        return

    expression = ast.parse(name.replace("…", "..."), mode="eval").body

    assert missing(expression) == []


@pytest.mark.parametrize(
    "wrong", ["Retries", "Retry(tries=3)", "guard.reed", "Policy(rate=Rates(3))", "Breaker.probs", "guard.sink"]
)
def test_a_name_that_does_not_exist_is_found(wrong: str) -> None:
    assert missing(ast.parse(wrong, mode="eval").body) != []


def test_every_part_of_a_policy_has_its_term() -> None:
    shown = {word for name in names() for word in re.findall(r"(\w+)=", name) if name.startswith("Policy(")}

    assert {name for name in inspect.signature(Policy).parameters if name != "retry"} <= shown
