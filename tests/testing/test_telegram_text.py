"""Marked text as Telegram reads it."""

import pytest

from holdfast.testing.simulators.telegram_text import Unreadable, read


@pytest.mark.parametrize(
    ("text", "mode", "plain", "entities"),
    [
        ("a <b>", None, "a <b>", []),
        ("<b>a</b> &amp; <i>b</i>", "HTML", "a & b", [("bold", 0, 1), ("italic", 4, 1)]),
        ("<b>a<i>b</i></b>", "html", "ab", [("bold", 0, 2), ("italic", 1, 1)]),
        ("😀<code>x</code>", "HTML", "😀x", [("code", 2, 1)]),
        ("<b></b>a", "HTML", "a", []),
        ("*a* _b_ __c__ ~d~ ||e||", "MarkdownV2", "a b c d e", None),
        ("1\\.5", "MarkdownV2", "1.5", []),
        ("`a.b`", "MarkdownV2", "a.b", [("code", 0, 3)]),
        ("*a*. b", "Markdown", "a. b", [("bold", 0, 1)]),
    ],
)
def test_marks_become_entities_in_utf16(
    text: str, mode: str | None, plain: str, entities: list[tuple[str, int, int]] | None
) -> None:
    found, marked = read(text, mode)
    kinds = [(one["type"], one["offset"], one["length"]) for one in marked]
    assert found == plain
    if entities is None:
        entities = [
            (kind, 2 * place, 1)
            for place, kind in enumerate(("bold", "italic", "underline", "strikethrough", "spoiler"))
        ]
    assert kinds == entities


@pytest.mark.parametrize(
    ("text", "mode"), [('<a href="https://x.test">a</a>', "HTML"), ("[a](https://x.test)", "MarkdownV2")]
)
def test_links_keep_their_address(text: str, mode: str) -> None:
    assert read(text, mode) == ("a", [{"type": "text_link", "offset": 0, "length": 1, "url": "https://x.test"}])


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("<b>a", "HTML", "Can't find end tag"),
        ("a</b>", "HTML", "Unexpected end tag"),
        ("<h1>a</h1>", "HTML", 'Unsupported start tag "h1"'),
        ("*a", "MarkdownV2", "Can't find end of Bold entity"),
        ("1.5", "MarkdownV2", "Character '.' is reserved"),
        ("[a](b", "MarkdownV2", "Can't find end of a URL"),
        ("a", "RTF", "parse_mode"),
    ],
)
def test_marks_that_make_no_sense_are_refused(text: str, mode: str, words: str) -> None:
    with pytest.raises(Unreadable, match=words.replace("'", ".")):
        read(text, mode)
