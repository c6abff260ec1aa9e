"""Answers as bytes, whole and broken."""

from collections.abc import Sequence
from http import HTTPStatus

from holdfast.testing.faults import BadChunk, ConflictingLengths, Fault, GarbageStatus, HugeHeader
from holdfast.testing.simulators.messages import Response

HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"
"""A TLS server that agrees to nothing: a fatal alert."""
TLS_HANDSHAKE = b"\x16"
"""What a client that wants TLS begins with."""


def written(response: Response, *more: tuple[str, str]) -> bytes:
    """The whole answer, with its length and with more headers."""
    return head(response.status, (*response.headers, ("content-length", str(len(response.body))), *more)) + (
        response.body
    )


def broken(response: Response, fault: Fault) -> bytes:
    """What comes instead of the whole answer, before the connection closes."""
    body = response.body or b"{}"
    match fault:
        case GarbageStatus():
            return b"HTTP/one 200-ish Fine\r\n\r\n" + body
        case HugeHeader():
            return written(response, ("x-padding", "x" * fault.size))
        case ConflictingLengths():
            return written(response, ("content-length", str(len(response.body) + 1)))
        case BadChunk():
            half, rest = body[: len(body) // 2], body[len(body) // 2 :]
            said = head(response.status, (*response.headers, ("transfer-encoding", "chunked")))
            return said + b"%x\r\n%b\r\n?\r\n%b" % (len(half), half, rest)
        case _:
            whole, missing = written(response), len(response.body)
            return whole[: len(whole) - max(missing - missing // 2, 1)]


def head(status: int, headers: Sequence[tuple[str, str]]) -> bytes:
    """The first line and the headers of an answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} {reason(status)}\r\n{lines}\r\n".encode("latin-1")


def reason(status: int) -> str:
    """The words beside a status; none for one that is not registered."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
