"""Bodies of requests: read while they stream, unpacked where they are compressed, and never larger than the cap."""

import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
WINDOWS: Final = {
    "gzip": (GZIP_OR_ZLIB,),
    "x-gzip": (GZIP_OR_ZLIB,),
    "deflate": (GZIP_OR_ZLIB, -zlib.MAX_WBITS),  # meant is zlib; some send the bare stream
}


class TooLarge(Exception):
    """The body is over the cap."""


class HungUp(Exception):
    """The vendor went away before the body was there."""


async def read(receive: Receive, most: int) -> bytes:
    """The whole body. Raises TooLarge, HungUp."""
    message = await receive()
    if message["type"] != "http.request":
        raise HungUp
    body: bytes = message.get("body", b"")
    if len(body) > most:
        raise TooLarge
    return await _rest(receive, most, body) if message.get("more_body", False) else body


async def _rest(receive: Receive, most: int, first: bytes) -> bytes:
    chunks, size, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise HungUp
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise TooLarge
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def unpack(body: bytes, encoding: str, most: int) -> bytes:
    """The body without its `content-encoding`.

    Raises:
        TooLarge: It would be over the cap; no more than that was unpacked.
        ValueError: An encoding we do not know, or a body that is not in it.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    for window in WINDOWS.get(name, ()):
        try:
            return _inflate(body, window, most)
        except zlib.error:
            continue
    raise ValueError(f"not {name}" if name in WINDOWS else f"content-encoding {name[:40]!r} is not known here")


def _inflate(body: bytes, window: int, most: int) -> bytes:
    """One member or several, as gzip allows."""
    unpacked = bytearray()
    while body:
        stream = zlib.decompressobj(window)
        unpacked += stream.decompress(body, most + 1 - len(unpacked))
        if len(unpacked) > most:
            raise TooLarge
        if not stream.eof:
            raise zlib.error("it ends too early")
        body = stream.unused_data
    return bytes(unpacked)
