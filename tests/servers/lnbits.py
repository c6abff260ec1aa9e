"""A real LNbits from PyPI: one process on the loopback, FakeWallet behind it, a merchant and a payer in it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

import httpx
import pytest

from tests.servers import environments
from tests.servers.ports import LOOPBACK, free_port

START_WITHIN: Final = 120.0
STOP_WITHIN: Final = 5.0
PAYER_SATS: Final = 1_000_000
PASSWORD: Final = "only-on-the-loopback"


@dataclass(frozen=True, kw_only=True)
class Wallet:
    """A wallet: its inkey makes and reads invoices, its adminkey also pays."""

    id: str
    inkey: str
    adminkey: str


class LnbitsServer:
    """An LNbits with two wallets.

    Stopped and started again it keeps its address, its wallets and what was paid. FakeWallet remembers nothing, so
    that an invoice which was pending is failed afterwards.
    """

    merchant: Wallet
    payer: Wallet

    def __init__(self, directory: Path) -> None:
        self.url = f"http://{LOOPBACK}:{free_port()}"
        self.log = directory / "lnbits.log"
        self._data = directory / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it answers; the first time, open and fund the wallets."""
        self._data.mkdir(parents=True, exist_ok=True)
        lnbits = environment()
        python = lnbits / "bin" / "python"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                # `lnbits` itself is two processes: a supervisor for its restart button, and this one
                [python, "-m", "uvicorn", "lnbits.__main__:app", f"--host={LOOPBACK}", f"--port={self._port}"],
                cwd=next(lnbits.glob("lib/python*/site-packages")),  # its path to static files is relative
                env=self._settings(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as client:
                self._wait_until_ready(client)
                if not hasattr(self, "payer"):
                    self._install(client)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process and whatever it started."""
        process, self._process = self._process, None
        if process is None:
            return
        _signal_group(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WITHIN)
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def pay(self, bolt11: str, wallet: Wallet | None = None) -> None:
        """Pay an invoice from this wallet, or else from the payer's.

        Raises:
            httpx.HTTPStatusError: LNbits refused; 520 is its code for a payment that cannot be made.
        """
        async with httpx.AsyncClient(base_url=self.url, timeout=30, trust_env=False) as client:
            key = (wallet or self.payer).adminkey
            answer = await client.post(
                "/api/v1/payments", headers={"X-Api-Key": key}, json={"out": True, "bolt11": bolt11}
            )
        answer.raise_for_status()

    def log_tail(self, lines: int = 40) -> str:
        """The end of what LNbits wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _settings(self) -> dict[str, str]:
        return {
            "PATH": os.defpath,
            "TZ": "WAT-1",  # not UTC, because LNbits writes some of its times without an offset
            "AUTH_SECRET_KEY": sha256(PASSWORD.encode()).hexdigest(),
            "ENABLE_LOG_TO_FILE": "false",
            "LNBITS_AUDIT_ENABLED": "false",
            "LNBITS_BACKEND_WALLET_CLASS": "FakeWallet",
            "LNBITS_CALLBACK_ALLOW_PRIVATE_IPS": "true",
            "LNBITS_CALLBACK_URL_RULES": r'["https?://127\\.0\\.0\\.1:\\d+"]',
            "LNBITS_DATA_FOLDER": str(self._data),
            "LNBITS_EXTENSIONS_PATH": str(self._data),
            "LNBITS_RATE_LIMIT_NO": "1000000",  # a minute, for each route
            # what would reach for the network
            "LNBITS_EXCHANGE_RATE_PROVIDERS": "[]",
            "LNBITS_EXTENSIONS_DEACTIVATE_ALL": "true",
            "LNBITS_EXTENSIONS_MANIFESTS": "[]",
            "LNBITS_PRICE_AGGREGATOR_ENABLED": "false",
            "LNBITS_WASM_EXTENSIONS_MANIFESTS": "[]",
        }

    def _wait_until_ready(self, client: httpx.Client) -> None:
        assert self._process is not None
        give_up = time.monotonic() + START_WITHIN
        while self._process.poll() is None and time.monotonic() < give_up:
            with suppress(httpx.TransportError):
                client.get("/api/v1/health")
                return
            time.sleep(0.05)
        raise RuntimeError(f"LNbits did not start; its log ends with:\n{self.log_tail()}")

    def _install(self, client: httpx.Client) -> None:
        superuser = {"username": "superuser", "password": PASSWORD, "password_repeat": PASSWORD}
        token = _answer(client.put("/api/v1/auth/first_install", json=superuser))["access_token"]
        merchant, payer = (_open_wallet(client, name) for name in ("merchant", "payer"))
        credit = {"id": payer.id, "amount": PAYER_SATS}
        _answer(client.put("/users/api/v1/balance", json=credit, headers={"Authorization": f"Bearer {token}"}))
        self.merchant, self.payer = merchant, payer

    @property
    def _port(self) -> int | None:
        return httpx.URL(self.url).port


def environment() -> Path:
    """The virtual environment that holds LNbits."""
    if sys.version_info >= (3, 13):
        pytest.skip("LNbits 1.6 asks for a Python below 3.13")
    return environments.environment("lnbits")


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def _open_wallet(client: httpx.Client, name: str) -> Wallet:
    wallet = _answer(client.post("/api/v1/account", json={"name": name}))
    return Wallet(id=wallet["id"], inkey=wallet["inkey"], adminkey=wallet["adminkey"])


def _answer(response: httpx.Response) -> dict[str, Any]:
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer
