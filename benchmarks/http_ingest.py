"""How fast webhooks come in over HTTP, verified, deduplicated and on the disk: beside an endpoint that does nothing.

Every server is one process of uvicorn with uvloop and httptools; the vendor is another one, the same for all.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from benchmarks._load import CONNECTIONS, Answers, Vendor, vendor
from benchmarks._measure import Report, arguments, publish, versions
from holdfast.stores import open_store
from tests.servers.ports import free_port
from tests.servers.redis import RedisServer

PEERS: Final = Path(__file__).parent / "peers"
ENVIRONMENTS: Final = Path(sys.prefix)
OURS: Final = (sys.executable, "-m", "holdfast", "receive", "benchmarks._shop:hub", "--port")
START_WITHIN: Final = 30
REMARKS: Final = {
    "ratio_empty_fastapi": "requests per second, over an endpoint of FastAPI's that does nothing",
    "ratio_fastapi_arq": "the same, over an endpoint that verifies and enqueues by arq; it does not deduplicate",
    "p99_over_empty": "99th percentile of a request's time, over that of the endpoint that does nothing",
    "per_s": f"verified, deduplicated and on the disk before each answer, {CONNECTIONS} connections",
    "p50_ms": "a request's time",
    "p99_ms": "the same, 99th percentile",
    "busy": "the part of the time the vendor itself was at work, at most: near 1 it would have measured itself",
}


def main() -> None:
    parser = arguments("http_ingest", __doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of every candidate in turn (default 7)")
    parser.add_argument("--requests", type=int, default=16_000, help="to each of the fast ones in a round")
    parser.add_argument("--directory", help="on the disk that is to be measured (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-http-", dir=options.directory) as directory:
        figures = run(Path(directory), options)
    publish(
        Report(
            name="http_ingest",
            figures=figures,
            versions=versions("holdfast", "uvicorn", "uvloop", "httptools", "fastapi"),
            remarks=REMARKS,
        ),
        options,
    )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A server, where it takes webhooks, and one of how many requests it gets."""

    port: int
    path: str
    share: int = 1


def run(directory: Path, options: Namespace) -> dict[str, float]:
    kept = directory / "holdfast.db"
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(directory / "redis"))
        ports = [free_port() for _ in range(3)]
        stack.enter_context(server(ports[0], OURS, BENCHMARK_STORE=f"sqlite:///{kept}"))
        stack.enter_context(server(ports[1], [peer("peers"), str(PEERS / "fastapi_empty.py")]))
        stack.enter_context(server(ports[2], [peer("arq"), str(PEERS / "fastapi_arq.py")], REDIS=str(redis.port)))
        candidates = {
            "ours": Candidate(ports[0], "/webhooks/stripe-like"),
            "empty_fastapi": Candidate(ports[1], "/hook"),
            "fastapi_arq": Candidate(ports[2], "/hook", share=4),
        }
        client = stack.enter_context(vendor())
        posted, found = compare(candidates, client, rounds=options.rounds, requests=options.requests)
        stack.close()
    assert asyncio.run(count(kept)) == posted
    return found


def compare(
    candidates: Mapping[str, Candidate], client: Vendor, *, rounds: int, requests: int
) -> tuple[int, dict[str, float]]:
    """Everyone in every round, another one first each time; and how many requests ours got."""
    answers: dict[str, list[Answers]] = {name: [] for name in candidates}
    posted = 0
    for number in range(rounds + 1):
        names = list(candidates)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            candidate = candidates[name]
            count = requests // candidate.share // (1 if number else 4)
            answer = client.post(candidate.port, candidate.path, count)
            assert not answer.others, f"{name}: {answer.others} of {count} answers were not 200"
            posted += count * (name == "ours")
            if number:  # the first one only warms up
                answers[name].append(answer)
    return posted, figures(answers)


def figures(answers: Mapping[str, Sequence[Answers]]) -> dict[str, float]:
    ours = answers["ours"]
    rates = {name: [answer.per_second for answer in found] for name, found in answers.items()}
    ratios = {f"ratio_{name}": ratio(rates["ours"], rates[name]) for name in answers if name != "ours"}
    slower = ratio([answer.p99_ms for answer in ours], [answer.p99_ms for answer in answers["empty_fastapi"]])
    return (
        {name: round(found, 2) for name, found in ratios.items()}
        | {"p99_over_empty": round(slower, 2), "per_s": round(statistics.median(rates["ours"]))}
        | {"p50_ms": median_ms(ours, "p50_ms"), "p99_ms": median_ms(ours, "p99_ms")}
        | {f"{name}_per_s": round(statistics.median(found)) for name, found in rates.items() if name != "ours"}
        | {f"{name}_p99_ms": median_ms(found, "p99_ms") for name, found in answers.items() if name != "ours"}
        | {"busy": round(max(answer.busy for found in answers.values() for answer in found), 2)}
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' own: what disturbs a round disturbs both."""
    return statistics.median([mine / other for mine, other in zip(ours, theirs, strict=True)])


def median_ms(answers: Sequence[Answers], name: str) -> float:
    found: list[float] = [getattr(answer, name) for answer in answers]
    return round(statistics.median(found), 2)


async def count(path: Path) -> int:
    async with open_store(f"sqlite:///{path}") as store:
        return sum((await store.jobs.count()).values())


# The servers.


def peer(name: str) -> str:
    return str(ENVIRONMENTS / name / "bin" / "python")


@contextmanager
def server(port: int, command: Sequence[str], **environment: str) -> Generator[None]:
    """It ends with the block."""
    with subprocess.Popen([*command, str(port)], env={**os.environ, **environment}) as process:
        try:
            wait_for(port, process)
            yield
        finally:
            process.terminate()


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    give_up = time.monotonic() + START_WITHIN
    while process.poll() is None and time.monotonic() < give_up:
        try:
            httpx.get(f"http://127.0.0.1:{port}/")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"a server did not start: {process.args!r}")


if __name__ == "__main__":
    main()
