"""A vendor in a process of its own: it posts webhooks over connections it keeps, and times every answer.

What it sends is the same for everybody: a body of 1.48 KB with an id of its own, signed as Stripe signs.
"""

import asyncio
import gc
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final

import uvloop

SECRET: Final = "whsec_of_the_benchmark"
CONNECTIONS: Final = 64
FILLING: Final = "x" * 1060
EVENT: Final = (
    '{{"id":"evt_{number:024x}","object":"event","api_version":"2026-10-28.endive","created":1790000000,"data":'
    '{{"object":{{"id":"pi_{number:024x}","object":"payment_intent","amount":12000,"currency":"chf","description":'
    '"{filling}","livemode":true,"metadata":{{"reference":"order-{number}"}},"status":"succeeded"}}}},'
    '"livemode":true,"pending_webhooks":1,"request":{{"id":null,"idempotency_key":null}},'
    '"type":"payment_intent.succeeded"}}'
)
HEAD: Final = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n"
    "Content-Length: {length}\r\nAccept: */*; q=0.5, application/xml\r\nCache-Control: no-cache\r\n"
    "Content-Type: application/json; charset=utf-8\r\nStripe-Signature: t={time},v1={signature}\r\n\r\n"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What came of so many requests."""

    per_second: float
    p50_ms: float
    p99_ms: float
    others: int
    """Answers that were not 200."""
    busy: float
    """The part of the time that this process itself was at work: near 1 it measured itself."""


class Vendor:
    """The process, as the benchmark sees it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def post(self, port: int, path: str, requests: int) -> Answers:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(port, path, requests, file=self._process.stdin, flush=True)
        return Answers(**json.loads(self._process.stdout.readline()))


@contextmanager
def vendor() -> Generator[Vendor]:
    """It ends with the block."""
    command = [sys.executable, "-m", "benchmarks._load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Vendor(process)
        process.communicate()


def main() -> None:
    first = 0
    for line in sys.stdin:
        port, path, requests = line.split()
        ready = [request(number, path) for number in range(first, first + int(requests))]
        first += len(ready)
        gc.collect()
        gc.disable()
        answers = uvloop.run(post_all(int(port), ready))
        gc.enable()
        print(json.dumps(asdict(answers)), flush=True)


def request(number: int, path: str) -> bytes:
    body = EVENT.format(number=number, filling=FILLING).encode()
    now = int(time.time())
    signature = hmac.digest(SECRET.encode(), b"%d." % now + body, "sha256").hex()
    return HEAD.format(path=path, length=len(body), time=now, signature=signature).encode() + body


async def post_all(port: int, requests: Sequence[bytes]) -> Answers:
    loop = asyncio.get_running_loop()
    waits: list[float] = []
    statuses: list[bytes] = []
    left = iter(requests)
    connections = [
        (await loop.create_connection(lambda: Connection(left, waits, statuses), "127.0.0.1", port))[1]
        for _ in range(CONNECTIONS)
    ]
    begun, worked = time.perf_counter(), time.process_time()
    for connection in connections:
        connection.post()
    await asyncio.gather(*(connection.ended for connection in connections))
    seconds, worked = time.perf_counter() - begun, time.process_time() - worked
    waits.sort()
    return Answers(
        per_second=len(waits) / seconds,
        p50_ms=1000 * waits[ceil(0.5 * len(waits)) - 1],
        p99_ms=1000 * waits[ceil(0.99 * len(waits)) - 1],
        others=sum(status != b"200" for status in statuses),
        busy=worked / seconds,
    )


class Connection(asyncio.Protocol):
    """Posts the next request as soon as it has the answer to the last one."""

    def __init__(self, requests: Iterator[bytes], waits: list[float], statuses: list[bytes]) -> None:
        self._requests = requests
        self._waits = waits
        self._statuses = statuses
        self._received = b""
        self._sent = 0.0
        self._transport: Any = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionError("the server hung up"))

    def post(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.ended.set_result(None)
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        head = received.find(b"\r\n\r\n")
        if head < 0:
            return
        at = received.find(b"content-length: ", 0, head) + 16
        if len(received) < head + 4 + int(received[at : received.find(b"\r", at)]):
            return
        self._waits.append(time.perf_counter() - self._sent)
        self._statuses.append(received[9:12])
        self._received = b""
        self.post()


if __name__ == "__main__":
    main()
