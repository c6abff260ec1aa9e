"""Which environment variables a module of the user's still needs: all of them, and not the first one only."""

import ast
import linecache
from collections.abc import Callable, Iterator
from traceback import walk_tb
from types import FrameType
from typing import Final

from holdfast.errors import HoldfastError, MissingCredential


def all_missing(error: MissingCredential) -> MissingCredential:
    """The error a module ended with when it was imported, and what its other calls of `from_env` miss."""
    variables = dict(error.variables)
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_code.co_name == "<module>":
            for missing in _misses(frame):
                variables |= {name: purpose for name, purpose in missing.variables.items() if name not in variables}
    return MissingCredential(variables=variables)


def _misses(module: FrameType) -> Iterator[MissingCredential]:
    """What the calls raise that are written in the module, `Zoom.from_env()` and `Secrets.from_env("SHOP_SECRET")`.

    Only ours, which read variables and do nothing else.
    """
    nodes = _surely(ast.parse("".join(linecache.getlines(module.f_code.co_filename))))
    calls = (node for node in nodes if isinstance(node, ast.Call))
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        reads = _reader(call.func, module)
        constants = [each.value for each in call.args if isinstance(each, ast.Constant)]
        named = {
            each.arg: each.value.value for each in call.keywords if each.arg and isinstance(each.value, ast.Constant)
        }
        if reads is None or len(constants) < len(call.args) or len(named) < len(call.keywords):
            continue
        try:
            reads(*constants, **named)
        except MissingCredential as error:
            yield error
        except (HoldfastError, TypeError):
            continue  # what is set or written there is wrong: that is told once nothing is missing


def _surely(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of what runs whenever the module is imported: what is not asked for need not be set."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _PERHAPS):
            yield from _surely(child)


_PERHAPS: Final = (
    *(ast.If, ast.IfExp, ast.BoolOp, ast.Match, ast.Try, ast.TryStar, ast.For, ast.While),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda),
)


def _reader(function: ast.expr, module: FrameType) -> Callable[..., object] | None:
    """The method `from_env` of a class of ours; None: it is something else."""
    if not isinstance(function, ast.Attribute) or function.attr != "from_env":
        return None
    found = _named(function.value, module)
    ours = isinstance(found, type) and found.__module__.partition(".")[0] == "holdfast"
    return getattr(found, "from_env", None) if ours else None


def _named(expression: ast.expr, module: FrameType) -> object:
    """What a name, or a name behind dots, stands for in the module so far."""
    match expression:
        case ast.Name(id=name):
            return module.f_globals.get(name)
        case ast.Attribute(value=owner, attr=name):
            return getattr(_named(owner, module), name, None)
        case _:
            return None
