"""Forms as vendors are sent them: with brackets, with files, with the same name twice."""

import pytest

from holdfast.testing.simulators.forms import media_type, multipart, nested, pairs
from holdfast.testing.simulators.simulator import Request


def form(body: bytes, kind: str = "application/x-www-form-urlencoded", target: str = "/") -> Request:
    return Request(method="POST", target=target, headers=(("Content-Type", kind),), body=body)


@pytest.mark.parametrize(
    ("named", "tree"),
    [
        ([("a", "1")], {"a": "1"}),
        ([("a[b]", "1"), ("a[c]", "2")], {"a": {"b": "1", "c": "2"}}),
        ([("a[b][0]", "1"), ("a[b][1]", "2")], {"a": {"b": ["1", "2"]}}),
        ([("a[]", "1"), ("a[]", "2")], {"a": ["1", "2"]}),
        ([("a[0][b][c]", "1"), ("a[0][d]", "2")], {"a": [{"b": {"c": "1"}, "d": "2"}]}),
        ([("metadata[6735]", "1")], {"metadata": {"6735": "1"}}),
        ([("a", "")], {"a": ""}),
    ],
)
def test_brackets_are_lists_and_mappings(named: list[tuple[str, str]], tree: dict[str, object]) -> None:
    assert nested(named) == tree


@pytest.mark.parametrize("named", [[("a", "1"), ("a[b]", "2")], [("a[b]", "1"), ("a", "2")]])
def test_a_name_is_a_text_or_has_parts(named: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="a"):
        nested(named)


def test_query_and_body_are_one_form_and_keep_what_is_empty_or_comes_twice() -> None:
    assert pairs(form(b"b=2&b=3&c=", target="/x?a=1")) == [("a", "1"), ("b", "2"), ("b", "3"), ("c", "")]
    assert pairs(form(b'{"b":2}', "application/json", "/x?a=1")) == [("a", "1")]


def test_a_media_type_is_without_its_parameters() -> None:
    assert media_type(form(b"", "Application/JSON; charset=utf-8")) == "application/json"
    assert media_type(Request(method="GET", target="/")) == ""


def test_a_form_with_files_has_texts_and_contents_byte_for_byte() -> None:
    content = b"\x89PNG\r\n\x1a\n--not-the-boundary\x00\xff"
    body = (
        b'--b0\r\nContent-Disposition: form-data; name="chat_id"\r\n\r\n1\r\n'
        b'--b0\r\nContent-Disposition: form-data; name="photo"; filename="a b.png"\r\nContent-Type: image/png\r\n\r\n'
        + content
        + b"\r\n--b0--\r\n"
    )
    assert multipart(form(body, "multipart/form-data; boundary=b0")) == (
        {"chat_id": "1"},
        {"photo": ("a b.png", content)},
    )
