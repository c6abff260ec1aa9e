"""`holdfast fake serve` as a process: what it prints, what it refuses, and the official SDKs as its customers."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.testing.test_official_sdks import run as run_sdk

RESET = {"vendor": "stripe", "operation": "payments.create", "plan": {"kind": "script", "faults": ["reset"]}}
"""The first payment is made, and its answer is lost."""


@contextmanager
def serving(*arguments: str, ending: signal.Signals = signal.SIGTERM) -> Generator[dict[str, Any]]:
    """The process, and what it says with --json; it ends with 0 when told to."""
    command = [sys.executable, "-m", "holdfast", "fake", "serve", "--json", *arguments]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    try:
        told = running.stdout.readline()
        if told:
            yield json.loads(told)
        running.send_signal(ending)
        rest, complaints = running.communicate(timeout=60)
        assert (running.returncode, rest) == (0, ""), complaints
        assert "Traceback" not in complaints
    finally:
        if running.poll() is None:
            running.kill()
            running.communicate()


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "holdfast", "fake", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={"COLUMNS": "300"}, check=False)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def get(url: str) -> Any:
    return httpx.get(url, timeout=30, trust_env=False).raise_for_status().json()


def post(url: str, data: object) -> Any:
    return httpx.post(url, json=data, timeout=30, trust_env=False).raise_for_status().json()


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, Any]]:
    with serving("--providers", "stripe,telegram,slack,twilio", "--seed", "7") as told:
        yield told


# What it says


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_port_file_holds_what_is_printed_and_both_signals_end_it(tmp_path: Path, ending: signal.Signals) -> None:
    file = tmp_path / "ports.json"

    with serving("--providers", "lnbits,smtp", "--port-file", str(file), ending=ending) as told:
        written = json.loads(file.read_text())

    assert written == told
    assert list(told["vendors"]) == ["lnbits", "smtp"]
    assert told["vendors"]["smtp"]["url"].startswith("smtp://127.0.0.1:")
    assert {"admin", "pid", "seed"} <= {*told}
    urls = [told["admin"], *(vendor["url"] for vendor in told["vendors"].values())]
    assert min(int(url.rpartition(":")[2]) for url in urls) >= 1024


def test_each_vendor_has_the_next_port_and_the_admin_the_last() -> None:
    # given
    first = next(
        port for port in range(20_000 + os.getpid() % 10_000, 32_000) if all(map(is_free, range(port, port + 3)))
    )

    # when
    with serving("--providers", "stripe,telegram", "--port", str(first)) as told:
        # then
        assert [vendor["url"] for vendor in told["vendors"].values()] == [
            f"http://127.0.0.1:{first}",
            f"http://127.0.0.1:{first + 1}",
        ]
        assert told["admin"] == f"http://127.0.0.1:{first + 2}"


def test_a_person_is_shown_addresses_credentials_and_the_line_for_the_sdk() -> None:
    # given
    command = [sys.executable, "-m", "holdfast", "fake", "serve", "--providers", "stripe"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert running.stdout is not None

    # when
    lines = [running.stdout.readline().strip() for _ in range(5)]
    running.terminate()
    running.communicate(timeout=60)

    # then
    url = lines[0].split()[1]
    key = lines[1].removeprefix("api_key = ")
    assert lines[0].startswith("stripe ")
    assert lines[2].startswith("webhook_secret = whsec_")
    assert lines[3] == f'> stripe.StripeClient("{key}", base_addresses={{"api": "{url}"}})'
    assert lines[4].startswith("admin ")
    assert lines[4].endswith("/__fake/page)")


def test_without_providers_all_there_are_are_served() -> None:
    with serving() as told:
        assert {"lnbits", "slack", "smtp", "stripe", "telegram", "twilio", "zoom"} <= {*told["vendors"]}


def test_one_seed_gives_the_same_account_ids_and_answers() -> None:
    def made() -> tuple[str, Any]:
        with serving("--providers", "lnbits", "--seed", "11") as told:
            lnbits = told["vendors"]["lnbits"]
            key = {"x-api-key": lnbits["credentials"]["invoice_key"]}
            asked = {"out": False, "amount": 21}
            made = httpx.post(f"{lnbits['url']}/api/v1/payments", json=asked, headers=key, timeout=30, trust_env=False)
            return lnbits["credentials"]["invoice_key"], made.json()["payment_hash"]

    assert made() == made()


# What it refuses


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--providers", "strip"], "no simulator of 'strip': did you mean stripe? there are btcpay, coinbase"),
        (["--providers", "acme"], "no simulator of 'acme': there are btcpay, coinbase"),
        (["--providers", "swiss_bitcoin_pay"], "did you mean swiss-bitcoin-pay?"),
        (["--port", "65534", "--providers", "stripe,slack"], "there are no 3 ports from 65534 upwards"),
        (["--latency", "fast"], "write seconds, the median and the 99th percentile"),
        (["--latency", "2,1"], "write seconds, the median and the 99th percentile"),
        (["--webhook-base", "localhost:8000"], "write it whole: http://127.0.0.1:8000/webhooks"),
        (["--port-file", "/no/such/place/ports.json"], "cannot be written: No such file or directory"),
        (["--scenario", "tempest"], "tempest"),
        (["--scenario", "pyproject.toml"], "pyproject.toml"),
    ],
)
def test_wrong_usage_is_explained_on_stderr_and_ends_with_2(arguments: list[str], complaint: str) -> None:
    end = ended(*arguments)

    assert end.returncode == 2, end.stderr
    assert complaint in end.stderr
    assert "Traceback" not in end.stderr


def test_a_port_that_is_taken_is_named_with_the_vendor_it_was_for() -> None:
    with socket.socket() as other:
        # given
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        # when
        end = ended("--providers", "telegram", "--port", str(port))

    # then
    assert (end.returncode, end.stdout) == (2, "")
    assert f"cannot listen on port {port}, for telegram: Address already in use" in end.stderr


def test_to_be_reachable_from_elsewhere_needs_to_be_asked_for_and_is_warned_of() -> None:
    # given
    command = [sys.executable, "-m", "holdfast", "fake", "serve", "--providers", "stripe", "--host", "0.0.0.0"]
    running = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None

    # when
    told = json.loads(running.stdout.readline())
    listed = get(f"{told['admin']}/__fake/vendors")
    running.terminate()
    _, warning = running.communicate(timeout=60)

    # then
    assert listed["vendors"]["stripe"]["url"].startswith("http://127.0.0.1:")
    assert "Warning: whoever reaches 0.0.0.0 can use these vendors, and every door under /__fake/" in warning


# Official SDKs


async def use(served: dict[str, Any], vendor: str, function: str) -> Any:
    account = served["vendors"][vendor]
    return await run_sdk(vendor, function, {"url": account["url"], **account["credentials"]})


async def test_stripes_sdk_creates_reads_and_replays(served: dict[str, Any]) -> None:
    # given
    await asyncio.to_thread(post, f"{served['admin']}/__fake/faults", RESET)

    # when
    retried = await use(served, "stripe", "lost_answer")
    said = await use(served, "stripe", "global_style")

    # then
    assert retried == {"status": "succeeded", "replayed": "true"}
    assert said == ["async@example.com", True]
    demand = [{"exactly_once": {"charge": {"reference": "order-3", "amount": "10.00", "currency": "USD"}}}]
    assert (await asyncio.to_thread(post, f"{served['admin']}/__fake/verdicts", demand))["holds"]


async def test_stripes_sdk_hears_of_the_limit(served: dict[str, Any]) -> None:
    said = await use(served, "stripe", "limited")
    assert (said["class"], said["status"]) == ("RateLimitError", 429)


async def test_telegrams_sdk_works(served: dict[str, Any]) -> None:
    said = await use(served, "telegram", "calls")
    assert said["me"] == ["simulated_bot", True]
    assert said["file"] == "an invoice"
    assert said["wrong_token"][0] == "InvalidToken"
    assert said["again"] == ["RetryAfter", 1]


async def test_slacks_sdk_works(served: dict[str, Any]) -> None:
    said = await use(served, "slack", "calls")
    assert (said["edited"], said["deleted"]) == ("Refunded", True)
    assert said["wrong_token"] == [200, "invalid_auth", None]
    assert await use(served, "slack", "asynchronous") == ["async", ["grace"]]


async def test_twilios_sdk_works(served: dict[str, Any]) -> None:
    assert await use(served, "twilio", "asynchronous") == [True]
