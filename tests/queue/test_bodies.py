"""Compressed bodies: verified as they were sent, unpacked up to the cap, and kept even if nobody can unpack them."""

import gzip
import zlib
from collections.abc import AsyncIterator
from hashlib import sha256
from hmac import digest
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Holdfast
from holdfast.queue.bodies import TooLarge, unpack
from holdfast.queue.intake import MAX_BODY
from tests.payments.vendors import SigningVendor


@pytest.fixture
async def hub() -> AsyncIterator[Holdfast]:
    async with Holdfast(store="memory://", payments=[SigningVendor(name="signed")]) as hub:
        yield hub


async def post(hub: Holdfast, sent: bytes, encoding: str, signed: bytes | None = None) -> int:
    """The status for this body, which is signed as it is sent, unless something else is said to be signed."""
    signature = digest(b"webhook-secret", sent if signed is None else signed, "sha256").hex()
    headers = {"x-signature": signature, "content-encoding": encoding}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(hub.receiver), base_url="http://door") as client:
        return (await client.post("/signed", content=sent, headers=headers)).status_code


async def kept(hub: Holdfast) -> list[tuple[str, bytes, str]]:
    """Type, body, and what is known of its encoding."""
    return [
        (job.headers["type"], job.body, job.headers.get("header.content-encoding", ""))
        for job in await hub.store.jobs.list()
    ]


def bare(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("gzip", gzip.compress(b"object-1", mtime=0)),
        ("x-gzip", gzip.compress(b"object-1", mtime=0)),
        (" GZip ", gzip.compress(b"object-1", mtime=0)),
        ("gzip", gzip.compress(b"obj", mtime=0) + gzip.compress(b"ect-1", mtime=0)),
        ("deflate", zlib.compress(b"object-1")),
        ("deflate", bare(b"object-1")),
        ("identity", b"object-1"),
        ("", b"object-1"),
    ],
)
async def test_a_compressed_body_is_kept_as_what_it_says(hub: Holdfast, encoding: str, sent: bytes) -> None:
    assert await post(hub, sent, encoding) == 200

    assert await kept(hub) == [("paid", b"object-1", "")]


async def test_what_is_signed_is_what_was_sent(hub: Holdfast) -> None:
    assert await post(hub, gzip.compress(b"object-1", mtime=0), "gzip", signed=b"object-1") == 401

    assert await kept(hub) == []


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("br", b"object-1"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"object-1", mtime=0), mtime=0)),
        ("gzip", b"object-1"),
        ("gzip", gzip.compress(b"object-1", mtime=0)[:-3]),
        ("deflate", b"\xff\xff\xff"),
        ("zz" * 500, b"object-1"),
    ],
)
async def test_what_nobody_here_can_unpack_is_kept_as_it_was_sent(hub: Holdfast, encoding: str, sent: bytes) -> None:
    assert await post(hub, sent, encoding) == 200

    assert await kept(hub) == [("unparsed", sent, encoding)]


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, bare])
async def test_a_bomb_is_refused_and_not_kept(hub: Holdfast, pack: Any) -> None:
    bomb = pack(bytes(100 * MAX_BODY))
    assert len(bomb) < MAX_BODY

    assert await post(hub, bomb, "deflate" if pack is not gzip.compress else "gzip") == 413

    assert await kept(hub) == []


def test_the_cap_is_exact() -> None:
    assert len(unpack(gzip.compress(bytes(1000)), "gzip", 1000)) == 1000
    with pytest.raises(TooLarge):
        unpack(gzip.compress(bytes(1001)), "gzip", 1000)
    with pytest.raises(TooLarge):
        unpack(gzip.compress(bytes(600)) * 2, "gzip", 1000)


@given(
    body=st.one_of(
        st.binary(max_size=200), st.binary(max_size=50).map(gzip.compress), st.binary(max_size=50).map(zlib.compress)
    ),
    cut=st.integers(0, 30),
    encoding=st.one_of(st.sampled_from(["gzip", "deflate", "br", "", "gzip,deflate"]), st.text(max_size=10)),
)
def test_unpacking_gives_a_body_or_says_why_not(body: bytes, cut: int, encoding: str) -> None:
    try:
        unpacked = unpack(body[: len(body) - cut], encoding, 100)
    except (ValueError, TooLarge):
        return

    assert len(unpacked) <= 200
    assert sha256(unpacked).digest()
