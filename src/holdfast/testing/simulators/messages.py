"""What goes back and forth: requests, answers, webhooks, and how exchanges end."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl, urlsplit

from holdfast.testing.faults import Fault

if TYPE_CHECKING:
    from holdfast.testing.calls import CallRecord

Headers = Sequence[tuple[str, str]]
_STAMPS = count()


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What the vendor was asked, as bytes."""

    method: str
    target: str
    """Path and query, as sent."""
    headers: Headers = ()
    body: bytes = b""
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the route's `{names}` matched."""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> dict[str, object]:
        """The body, where it is a JSON object, numbers with a point as Decimal; else an empty one."""
        try:
            found: object = json.loads(self.body or b"{}", parse_float=Decimal)
        except ValueError:
            return {}
        return cast(dict[str, object], found) if isinstance(found, dict) else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What the vendor answers."""

    status: int = 200
    headers: Headers = ()
    body: bytes = b""

    @classmethod
    def json(cls, data: object, *, status: int = 200, headers: Headers = ()) -> "Response":
        """The data as JSON."""
        body = json.dumps(data, separators=(",", ":")).encode()
        return cls(status=status, headers=(("content-type", "application/json"), *headers), body=body)


@dataclass(frozen=True, kw_only=True, slots=True)
class Webhook:
    """A call the vendor owes its customer, not signed yet."""

    vendor: str
    url: str
    event: str
    about: str
    """The vendor's id of the object."""
    key: str
    """The business object, where the vendor knows it."""
    body: bytes
    headers: Headers = (("content-type", "application/json"),)
    secret: str = field(default="", repr=False)
    """What it is signed with, where that is not the account's own secret."""
    stamp: int = field(default_factory=_STAMPS.__next__, compare=False, repr=False)
    """Rises with each one made, over all vendors: which was owed before which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a receiver answered to a webhook."""

    status: int
    """0: there was no answer."""
    headers: Headers = ()
    body: bytes = b""
    failure: str = ""
    """Why there was no answer, `timeout` where it took too long; or what the app raised."""

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


class Ending(StrEnum):
    """How an exchange ends on the wire."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """There was no connection: `fault` says why."""
    RESET = "reset"
    HANG = "hang"
    """Nothing more comes for a while, then the connection closes."""
    CLOSED = "closed"
    TRUNCATED = "truncated"
    GARBLED = "garbled"
    """What comes is not HTTP: `fault` says how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """What becomes of one request: the answer, if any, and how the wire ends."""

    ending: Ending = Ending.ANSWERED
    response: Response | None = None
    delay: float = 0.0
    """Seconds until it ends, or the answer begins."""
    seconds: float = 0.0
    """How long it hangs, or refuses."""
    after_bytes: int = 0
    """How much of the answer a reset or a hang lets through."""
    pace: float = 0.0
    """Seconds that each byte of the answer takes."""
    fault: Fault | None = None
    """What went wrong; delays apart."""
    record: "CallRecord | None" = field(default=None, compare=False, repr=False)
    """Where it is written down."""

    @property
    def lasts(self) -> float:
        """Seconds until the client has all it gets, if it waits for it."""
        more = self.seconds if self.ending is Ending.HANG else 0.0
        if self.pace and self.response is not None:
            more += self.pace * (len(self.response.body) + _HEAD + sum(map(_length, self.response.headers)))
        return self.delay + more


_HEAD = len("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")


def _length(header: tuple[str, str]) -> int:
    return len(header[0]) + len(header[1]) + len(": \r\n")
