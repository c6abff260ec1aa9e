"""Text as Telegram reads it: HTML and MarkdownV2 become plain text and entities, or are refused."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

Entity = dict[str, object]

HTML_TAGS: Final = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "code": "code",
    "pre": "pre",
    "a": "text_link",
    "blockquote": "blockquote",
    "tg-spoiler": "spoiler",
    "span": "spoiler",
}
MARKS: Final = {"__": "underline", "||": "spoiler", "*": "bold", "_": "italic", "~": "strikethrough", "`": "code"}
RESERVED: Final = frozenset("_*[]()~`>#+-=|{}.!")


class Unreadable(ValueError):
    """The text's marks make no sense; the message is Telegram's."""


def read(text: str, mode: str | None) -> tuple[str, list[Entity]]:
    """The plain text and its entities; offsets count UTF-16, as Telegram's do.

    Raises:
        Unreadable: What `can't parse entities` is said about.
    """
    match (mode or "").lower():
        case "":
            return text, []
        case "html":
            return _Html.read(text)
        case "markdownv2" | "markdown":
            return _markdown(text, strict=(mode or "").lower() == "markdownv2")
        case _:
            raise Unreadable("unsupported parse_mode")


def utf16(text: str) -> int:
    """The length in UTF-16 code units."""
    return len(text.encode("utf-16-le")) // 2


class _Html(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.plain = ""
        self.entities: list[Entity] = []
        self.open: list[tuple[str, int, dict[str, str | None]]] = []

    @classmethod
    def read(cls, text: str) -> tuple[str, list[Entity]]:
        parser = cls()
        parser.feed(text)
        parser.close()
        if parser.open:
            tag, offset, _ = parser.open[-1]
            raise Unreadable(f'Can\'t find end tag corresponding to start tag "{tag}" at byte offset {offset}')
        return parser.plain, sorted(parser.entities, key=_place)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in HTML_TAGS:
            raise Unreadable(f'Unsupported start tag "{tag}" at byte offset {self._offset()}')
        self.open.append((tag, utf16(self.plain), dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1][0] != tag:
            raise Unreadable(f"Unexpected end tag at byte offset {self._offset()}")
        _, start, attributes = self.open.pop()
        entity: Entity = {"type": HTML_TAGS[tag], "offset": start, "length": utf16(self.plain) - start}
        if tag == "a":
            entity["url"] = attributes.get("href") or ""
        if entity["length"]:
            self.entities.append(entity)

    def handle_data(self, data: str) -> None:
        self.plain += data

    def _offset(self) -> int:
        return len(self.plain.encode())


@dataclass(slots=True)
class _Markdown:
    plain: str = ""
    entities: list[Entity] = field(default_factory=list[Entity])
    open: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def toggle(self, mark: str) -> None:
        if self.open and self.open[-1][0] == mark:
            _, start = self.open.pop()
            if length := utf16(self.plain) - start:
                self.entities.append({"type": MARKS[mark], "offset": start, "length": length})
        else:
            self.open.append((mark, utf16(self.plain)))


def _markdown(text: str, *, strict: bool) -> tuple[str, list[Entity]]:
    reader, place = _Markdown(), 0
    links: list[int] = []
    while place < len(text):
        letter, pair = text[place], text[place : place + 2]
        in_code = bool(reader.open) and reader.open[-1][0] == "`"
        if letter == "\\" and place + 1 < len(text):
            reader.plain += text[place + 1]
            place += 2
        elif in_code and letter != "`":
            reader.plain += letter
            place += 1
        elif pair in MARKS and strict:
            reader.toggle(pair)
            place += 2
        elif letter in MARKS and (strict or letter in "*_`"):
            reader.toggle(letter)
            place += 1
        elif letter == "[":
            links.append(utf16(reader.plain))
            place += 1
        elif pair == "](" and links:
            end = text.find(")", place)
            if end < 0:
                raise Unreadable(f"Can't find end of a URL at byte offset {len(text[:place].encode())}")
            start = links.pop()
            length = utf16(reader.plain) - start
            reader.entities.append(
                {"type": "text_link", "offset": start, "length": length, "url": text[place + 2 : end]}
            )
            place = end + 1
        elif strict and letter in RESERVED:
            raise Unreadable(f"Character '{letter}' is reserved and must be escaped with the preceding '\\'")
        else:
            reader.plain += letter
            place += 1
    if reader.open:
        mark, offset = reader.open[-1]
        raise Unreadable(f"Can't find end of {MARKS[mark].capitalize()} entity at byte offset {offset}")
    return reader.plain, sorted(reader.entities, key=_place)


def _place(entity: Entity) -> int:
    return int(str(entity["offset"]))
