"""What vendors are sent instead of JSON: forms, forms with brackets, forms with files."""

from collections.abc import Iterable, Mapping
from email import policy
from email.parser import BytesParser
from typing import cast
from urllib.parse import parse_qsl, urlsplit

from holdfast.testing.simulators.simulator import Request

Nested = dict[str, object]
"""Texts, lists and further mappings, by name."""


def pairs(request: Request) -> list[tuple[str, str]]:
    """The names and values of the query, then of the form in the body, as often as they come, empty ones too."""
    body = request.body.decode("utf-8", "replace") if media_type(request) == "application/x-www-form-urlencoded" else ""
    return [
        *parse_qsl(urlsplit(request.target).query, keep_blank_values=True),
        *parse_qsl(body, keep_blank_values=True),
    ]


def media_type(request: Request) -> str:
    """The content type without its parameters."""
    return (request.header("content-type") or "").partition(";")[0].strip().lower()


def nested(named: Iterable[tuple[str, str]]) -> Nested:
    """`a[b][0]=c` and `a[b][]=c` as `{"a": {"b": ["c"]}}`: the form of Stripe and of many others.

    Raises:
        ValueError: A name is used for a text and for something with parts.
    """
    tree: Nested = {}
    for name, value in named:
        first, _, rest = name.partition("[")
        parts = [first, *rest.removesuffix("]").split("][")] if rest else [first]
        node = tree
        for part in parts[:-1]:
            inner = node.setdefault(_place(node, part), {})
            if not isinstance(inner, dict):
                raise ValueError(name)
            node = cast(Nested, inner)
        last = _place(node, parts[-1])
        if isinstance(node.get(last), dict):
            raise ValueError(name)
        node[last] = value
    return {name: _listed(value) for name, value in tree.items()}


def multipart(request: Request) -> tuple[dict[str, str], dict[str, tuple[str, bytes]]]:
    """The texts of a multipart form, and its files as name and content."""
    head = b"content-type: " + (request.header("content-type") or "").encode() + b"\r\n\r\n"
    message = BytesParser(policy=policy.HTTP).parsebytes(head + request.body)
    texts: dict[str, str] = {}
    files: dict[str, tuple[str, bytes]] = {}
    for part in message.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        content = cast(bytes, part.get_payload(decode=True) or b"")
        if (filename := part.get_filename()) is None:
            texts[name] = content.decode("utf-8", "replace")
        else:
            files[name] = (filename, content)
    return texts, files


def _place(node: Mapping[str, object], part: str) -> str:
    """Its name; the next number where the name is left empty, as in `a[]`."""
    return part or str(len(node))


def _listed(value: object) -> object:
    """Mappings whose names are 0, 1, 2 … are lists; other numbers may be somebody's metadata."""
    if not isinstance(value, dict):
        return value
    inner = {name: _listed(part) for name, part in cast(Nested, value).items()}
    return list(inner.values()) if list(inner) == [str(place) for place in range(len(inner))] else inner
