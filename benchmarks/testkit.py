"""The test kit: histories of `explore`, hours of virtual time, requests of the fake server, the plugin's import.

The fake server and an empty aiohttp server are processes of their own, asked in turn by a third one.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import uvloop
from aiohttp import web

from benchmarks._measure import Report, arguments, publish, versions
from benchmarks._virtual import working_hub
from examples import shop_under_test
from holdfast.testing.explore import Progress, explore
from holdfast.testing.world import World
from tests.testing.planted_shop import an_order_is_charged_and_shipped_once

PACKAGES: Final = ("holdfast", "aiohttp", "pytest")
CONNECTIONS: Final = 16
REQUESTS: Final = 20_000
"""Of each server in each round."""
ROUNDS: Final = 7
PYTESTS: Final = 15
HISTORIES: Final = 300
VENDOR: Final = "telegram"
REMARKS: Final = {
    "histories_per_minute": "goal >= 600: `explore` on the example shop, a hub with its worker, in every history anew",
    "histories_per_minute_without_hub": "the same on a small shop by hand, over httpx",
    "virtual_hours_per_second": "goal >= 1: of a hub with a worker, sweeps, payments and a timer, under `VirtualClock`",
    "server_rps": f"telegram's getMe on `holdfast fake serve`, {CONNECTIONS} connections",
    "empty_rps": "an aiohttp server that does nothing, asked in turn",
    "ratio_empty": "goal >= 0.4: server_rps / empty_rps, the median of the rounds",
    "load_busy": "the part of the time the asking process was at work: near 1 it measured itself",
    "import_ms": "goal <= 50: pytest with the plugin, above pytest alone",
}


def main() -> None:
    parser = arguments("testkit", __doc__)
    parser.add_argument("--be", choices=("empty", "load"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be == "empty":
        asyncio.run(serve_nothing())
    elif options.be == "load":
        load()
    else:
        report = Report(name="testkit", figures=figures(), versions=versions(*PACKAGES), remarks=REMARKS)
        publish(report, options)


def figures() -> dict[str, float]:
    found: dict[str, float] = {}
    for measure in (explored, passed, served, imported):
        found |= measure()
    return found


# Histories and hours


def explored() -> dict[str, float]:
    logging.getLogger("holdfast").setLevel(logging.CRITICAL)  # what fails on purpose is no news

    async def by_hand(world: World) -> None:
        await an_order_is_charged_and_shipped_once(world)

    return {
        "histories_per_minute": histories_per_minute(shop_under_test.test_an_order_is_paid_and_confirmed_once),
        "histories_per_minute_without_hub": histories_per_minute(by_hand),
    }


def histories_per_minute(test: Callable[..., Awaitable[None]]) -> float:
    """Of a test that holds in every history."""
    tried = 0

    def count(progress: Progress) -> None:
        nonlocal tried
        tried = progress.tried

    begun = time.perf_counter()
    found = explore(test, histories=HISTORIES, seed=7, progress=count)
    if found is not None:
        raise RuntimeError(f"the shop is right, and explore says otherwise:\n{found}")
    return round(60 * tried / (time.perf_counter() - begun))


def passed() -> dict[str, float]:
    return {"virtual_hours_per_second": round(statistics.median(working_hub() for _ in range(3)), 2)}


# Requests


def served() -> dict[str, float]:
    with ExitStack() as stack:
        fake = stack.enter_context(fake_server())
        empty = stack.enter_context(process(["benchmarks.testkit", "--be", "empty"]))
        ask = stack.enter_context(asking())
        account = fake["vendors"][VENDOR]
        ours_port = int(account["url"].rpartition(":")[2])
        empty_port = int(empty.readline())
        path = f"/bot{account['credentials']['bot_token']}/getMe"
        ask(ours_port, path, REQUESTS // 4)
        ask(empty_port, "/", REQUESTS // 4)
        rounds = [(ask(ours_port, path, REQUESTS), ask(empty_port, "/", REQUESTS)) for _ in range(ROUNDS)]
    return {
        "server_rps": round(statistics.median(ours["rps"] for ours, _ in rounds)),
        "empty_rps": round(statistics.median(theirs["rps"] for _, theirs in rounds)),
        "ratio_empty": round(statistics.median(ours["rps"] / theirs["rps"] for ours, theirs in rounds), 2),
        "load_busy": round(max(answers["busy"] for one in rounds for answers in one), 2),
    }


@contextmanager
def process(command: Sequence[str], **options: Any) -> Generator[Any]:
    """A Python module as a process of its own, which ends with the block; its output."""
    started = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, **options)
    try:
        with started:
            yield started.stdout
            started.terminate()
    finally:
        if started.poll() is None:
            started.kill()


@contextmanager
def fake_server() -> Generator[dict[str, Any]]:
    with process(["holdfast", "fake", "serve", "--providers", VENDOR, "--json"]) as said:
        yield json.loads(said.readline())


async def serve_nothing() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@contextmanager
def asking() -> Generator[Callable[[int, str, int], dict[str, float]]]:
    """Asks a port so many times: requests per second, and how busy the asking was."""
    command = [sys.executable, "-m", "benchmarks.testkit", "--be", "load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asking_process:
        sent, said = asking_process.stdin, asking_process.stdout
        assert sent is not None
        assert said is not None

        def ask(port: int, path: str, requests: int) -> dict[str, float]:
            print(port, path, requests, file=sent, flush=True)
            found: dict[str, float] = json.loads(said.readline())
            return found

        yield ask
        sent.close()


def load() -> None:
    for line in sys.stdin:
        port, path, requests = line.split()
        gc.collect()
        gc.disable()
        print(json.dumps(uvloop.run(ask_all(int(port), path, int(requests)))), flush=True)
        gc.enable()


async def ask_all(port: int, path: str, requests: int) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n".encode()
    left = iter(range(requests))
    connections = [
        (await loop.create_connection(lambda: Asking(request, left), "127.0.0.1", port))[1] for _ in range(CONNECTIONS)
    ]
    begun, worked = time.perf_counter(), time.process_time()
    for connection in connections:
        connection.ask()
    await asyncio.gather(*(connection.ended for connection in connections))
    seconds = time.perf_counter() - begun
    return {"rps": requests / seconds, "busy": (time.process_time() - worked) / seconds}


class Asking(asyncio.Protocol):
    """Asks again as soon as it is answered; whatever is not a 200 ends the benchmark."""

    def __init__(self, request: bytes, left: Iterator[int]) -> None:
        self._request = request
        self._left = left
        self._received = b""
        self._transport: Any = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionError("the server hung up"))

    def ask(self) -> None:
        if next(self._left, None) is None:
            self.ended.set_result(None)
            self._transport.close()
        else:
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = received[:end].lower() + b"\r\n"
        at = head.find(b"content-length: ") + 16
        if len(received) < end + 4 + int(head[at : head.find(b"\r", at)]):
            return
        if received[9:12] != b"200":
            self.ended.set_exception(ConnectionError(received[:200].decode()))
            self._transport.abort()
            return
        self._received = b""
        self.ask()


# The plugin


def imported() -> dict[str, float]:
    """Whole runs of pytest in an empty directory, with no plugin but this one, and without it, in turn."""
    with tempfile.TemporaryDirectory() as empty:
        with_it, alone = ("-p", "holdfast.testing.plugin"), ()
        pytest_run(Path(empty), with_it)
        pytest_run(Path(empty), alone)
        pairs = [(pytest_run(Path(empty), with_it), pytest_run(Path(empty), alone)) for _ in range(PYTESTS)]
    return {"import_ms": round(1000 * statistics.median(ours - theirs for ours, theirs in pairs), 1)}


def pytest_run(directory: Path, plugin: Sequence[str]) -> float:
    """Seconds."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(directory), *plugin]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    begun = time.perf_counter()
    ended = subprocess.run(command, cwd=directory, env=environment, capture_output=True, check=False)
    seconds = time.perf_counter() - begun
    if ended.returncode != 5:  # no tests
        raise RuntimeError(ended.stdout.decode() + ended.stderr.decode())
    return seconds


if __name__ == "__main__":
    main()
