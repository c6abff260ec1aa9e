"""What a vendor sent: raw bytes, headers in order, public URL."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import overload

from holdfast.frozen import frozen


class ReceivedHeaders(Sequence[tuple[str, str]]):
    """Headers as a server hands them over, names in lower case; turned into text when somebody looks at them."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def all(self, name: str) -> list[str]:
        """Every header of that name, which is in lower case, in order."""
        wanted = name.encode("utf-8", "replace")
        return [value.decode("latin-1") for key, value in self._raw if key == wanted]

    def some(self, names: frozenset[bytes]) -> list[tuple[str, str]]:
        """The headers of these names, in order."""
        return [_text(header) for header in self._raw if header[0] in names]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter([_text(header) for header in self._raw])

    @overload
    def __getitem__(self, index: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[str, str]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, str] | Sequence[tuple[str, str]]:
        if isinstance(index, slice):
            return [_text(header) for header in self._raw[index]]
        return _text(self._raw[index])

    def __len__(self) -> int:
        return len(self._raw)


def _text(header: tuple[bytes, bytes]) -> tuple[str, str]:
    return header[0].decode("latin-1").lower(), header[1].decode("latin-1")


@frozen
class RawRequest:
    """What a vendor sent us, before anything was parsed."""

    method: str
    url: str
    """The public URL the vendor called, as configured by `public_url`, with path and query."""
    headers: Sequence[tuple[str, str]]
    """In the order they came; names in lower case."""
    body: bytes
    received_at: datetime

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case; None when there is none."""
        return next(iter(self.all(name)), None)

    def all(self, name: str) -> list[str]:
        """Every header of that name, in order."""
        wanted = name.lower()
        if isinstance(self.headers, ReceivedHeaders):
            return self.headers.all(wanted)
        return [value for key, value in self.headers if key == wanted]


@frozen
class Delivery:
    """One item of an incoming request, verified, ready to be stored."""

    type: str
    """The vendor's own name of what happened; `unparsed` for an authentic body nobody could read."""
    dedup_key: str
    """Equal for every delivery of the same happening; unique within the provider."""
    vendor_id: str = ""
    """The vendor's id of the object it is about; empty when the body does not say."""
    reference: str = ""
    """Our reference as the vendor echoes it: a hint, never proof."""
    recognised: bool = True
    """False: a type we do not act on; it is kept and can be replayed."""
    body: bytes = b""
    """This item's own bytes; the whole body where a request carries one item."""
    digest: str = ""
    """Of the body without what differs between two deliveries of the same happening; empty: of the body."""
    facts: Mapping[str, str] | None = None
    """What the provider's own code wants to know again when the delivery is worked on."""


@frozen
class Answer:
    """An immediate answer to a handshake, which is no delivery."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Sequence[tuple[str, str]] = ()
    """More of them, names in lower case."""
