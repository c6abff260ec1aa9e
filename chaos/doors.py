"""Verification under fire: whatever comes, it is judged and never raised; rotation, edges of time, bombs."""

import base64
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

from chaos.producer import Connection
from chaos.stage import Found, Stage
from holdfast import Secret, Secrets
from holdfast.webhooks.request import RawRequest
from holdfast.webhooks.signatures import HmacBody, HmacTimestamped, KeyedUrl, Scheme, SharedSecretHeader

REQUESTS: Final = 4000
MEMORY: Final = 96 * 1024
"""KiB a receiver may grow by, whatever it is sent."""
NOW: Final = datetime(2026, 11, 21, tzinfo=UTC)
SCHEMES: Final[tuple[Scheme, ...]] = (
    HmacBody("x-signature"),
    HmacBody("x-signature", prefix="sha256=", encoding="base64"),
    HmacTimestamped("x-signature", "x-time"),
    SharedSecretHeader("x-signature"),
    KeyedUrl("vendor"),
)
TOLERANCE: Final = 300


def totality(chance: Random) -> Iterator[str]:
    """Random requests, half of them near the truth: a verdict each time, and never a yes without the secret."""
    secrets = Secrets("right", "older")
    for _ in range(REQUESTS):
        scheme = chance.choice(SCHEMES)
        request = _random_request(chance)
        try:
            verdict = scheme.verify(request, secrets)
        except Exception as error:  # the border to what is under test: whatever it raises is the finding
            yield f"{scheme}: raised {error!r} for {request!r}"
            continue
        if verdict.valid:
            yield f"{scheme}: believed {request!r}"


def rotation() -> Iterator[str]:
    """Every secret that is listed is taken, the verdict says which; none that is not."""
    body = b"{}"
    for secret, expected in (("current", 0), ("older", 1), ("oldest", 2), ("gone", None)):
        request = _request(body, x_signature=_hex(secret, body))
        verdict = HmacBody("x-signature").verify(request, Secrets("current", "older", "oldest"))
        if verdict.valid != (expected is not None) or (expected is not None and verdict.secret != expected):
            yield f"signed with {secret}: {verdict}"


def edges() -> Iterator[str]:
    """Three hundred seconds are allowed in both directions, one more is not."""
    scheme = HmacTimestamped("x-signature", "x-time", tolerance=TOLERANCE)
    for seconds, valid in ((0, True), (-300, True), (300, True), (-301, False), (301, False), (-(10**9), False)):
        stamp = str(int((NOW + timedelta(seconds=seconds)).timestamp()))
        request = _request(b"{}", x_time=stamp, x_signature="v0=" + _hex("right", f"v0:{stamp}:{{}}".encode()))
        verdict = scheme.verify(request, Secrets("right"))
        if verdict.valid != valid:
            yield f"signed {seconds} s from now: {verdict}"


async def doors(stage: Stage) -> Found:
    """All of it, and over HTTP: bodies that are too large, bombs, and what no parser likes."""
    begun = time.monotonic()
    problems = [*totality(stage.chance), *rotation(), *edges()]
    receiver = await stage.ready("receiver")
    before = _memory(receiver.pid)
    producer = stage.producer()
    connection = Connection(stage.ports[0])
    for body, headers, allowed in _bodies(stage.chance):
        status = await connection.post(body, headers)
        if status not in allowed:
            problems.append(f"{len(body)} bytes with {headers}: answered {status}, and not one of {allowed}")
        connection.close()
    grown = _memory(receiver.pid) - before
    await producer.send("plain")
    await stage.ready("worker")
    await stage.quiet()
    await stage.end()
    stage.facts["leftovers"] = {"KiB a receiver grew by": (grown, MEMORY)} | dict.fromkeys(problems, (1.0, 0.0))
    # What nobody can read is no part of a history.
    stage.facts |= {"rows": [], "runs": [], "counts": {}, "purged": True}
    stage.notes["requests"] = REQUESTS
    return await stage.collect("doors", begun)


def _bodies(chance: Random) -> Iterator[tuple[bytes, dict[str, str], tuple[int | None, ...]]]:
    """Bodies, headers, and what may be answered."""
    kept = (200, 202, 204)
    bomb = gzip.compress(b"\0" * 300_000_000, 9)
    zipped = {"content-encoding": "gzip"}
    yield b"x" * (256 * 1024 + 1), {}, (413,)
    yield b"x" * 5_000_000, {}, (413, None)
    yield b"x" * (256 * 1024), {}, kept
    yield bomb[: 250 * 1024], zipped, (*kept, 400, 401, 413, 415)
    yield gzip.compress(b"\0" * 50_000_000, 9), zipped, (*kept, 400, 413, 415)
    yield gzip.compress(b"\0" * 50_000_000, 9), {"content-encoding": "gzip, gzip, gzip"}, (*kept, 400, 413, 415)
    yield b"\x1f\x8b" + chance.randbytes(500), zipped, (*kept, 400, 413, 415)
    yield json.dumps({"id": "x"}).encode(), {"x-chaos-signature": "0" * 64}, (401,)
    yield json.dumps({"id": "x"}).encode(), {"x-chaos-signature": "é" * 64}, (400, 401)
    for _ in range(60):
        yield chance.randbytes(chance.randrange(2000)), {}, kept
    yield b"[" * 200_000, {}, kept
    yield b'{"id":' * 30_000, {}, kept


def _random_request(chance: Random) -> RawRequest:
    body = chance.randbytes(chance.randrange(60))
    near = [_hex("wrong", body), "v0=" + _hex("wrong", body), base64.b64encode(hashlib.sha256(body).digest()).decode()]
    odd = ["", "v0=", "sha256=", chance.randbytes(8).decode("latin-1"), "\ud800", "٣" * 64]
    numbers = [str(chance.randrange(10**12)), "9" * 5000, "-1", "1e9"]

    def value() -> str:
        return chance.choice([*near, *odd, *numbers])

    names = chance.choices(["x-signature", "x-time", "x-other"], k=chance.randrange(5))
    path = chance.choice(["/vendor", "/vendor/a.b", "/vendor/" + value(), "", "//", "/vendor/%00.%ff", value()])
    return RawRequest(
        method=chance.choice(["POST", "", "\0"]),
        url="https://shop.example" + path,
        headers=[(name, value()) for name in names],
        body=body,
        received_at=NOW,
    )


def _request(body: bytes, **headers: str) -> RawRequest:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return RawRequest(method="POST", url="https://shop.example/vendor", headers=named, body=body, received_at=NOW)


def _hex(secret: str, signed: bytes) -> str:
    return hmac.digest(Secret(secret).reveal().encode(), signed, "sha256").hex()


def _memory(pid: int) -> int:
    """The most it ever held, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
