"""An incoming request as it arrived: raw bytes, headers in order, public URL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True, slots=True)
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
        wanted = name.lower()
        return next((value for key, value in self.headers if key == wanted), None)

    def all(self, name: str) -> list[str]:
        """Every header of that name, in order."""
        wanted = name.lower()
        return [value for key, value in self.headers if key == wanted]


@dataclass(frozen=True, kw_only=True, slots=True)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An immediate answer to a handshake, which is no delivery."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
