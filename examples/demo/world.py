"""The processes of the demo, all on loopback: the vendors, and two instances of the shop's app."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from examples.demo.real_lnbits import RealLNbits

VENDORS = ("swiss-bitcoin-pay", "lnbits", "zoom", "telegram", "smtp")
LATENCY = (0.25, 1.5)
"""Of every vendor's answers: lognormal, median and 99th percentile in seconds."""
LEASE = 1.0
"""Seconds a worker owns a job; SIGSTOP lasts longer."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(kw_only=True)
class World:
    """`with World(...)`: starts everything, ends everything by pid."""

    directory: Path
    seed: int
    store: str
    """Where holdfast keeps what it knows, as a URL."""
    sabotage: str = ""
    real_lnbits: RealLNbits | None = None
    receiver_port: int = field(default_factory=free_port)
    web_port: int = field(default_factory=free_port)
    vendors: dict[str, Mapping[str, object]] = field(default_factory=dict[str, Mapping[str, object]])
    admin: str = ""

    def __enter__(self) -> Self:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for left_behind in (
            *self.directory.glob("*.db*"),
            *self.directory.glob("*.json*"),
            *self.directory.glob("*.log"),
        ):
            left_behind.unlink()
        try:
            self._start_vendors()
            self.start("web")
            self.start("receiver")
            self._await_app("web")
            self._await_app("receiver")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    @property
    def web(self) -> str:
        """Where customers book."""
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def receiver(self) -> str:
        """Where vendors call back; the instance that is killed and stopped."""
        return f"http://127.0.0.1:{self.receiver_port}"

    @property
    def shop_database(self) -> Path:
        return self.directory / "shop.db"

    def start(self, name: str) -> None:
        """Start an instance of the app: `web` or `receiver`."""
        port = self.web_port if name == "web" else self.receiver_port
        self._spawn(name, [sys.executable, "-m", "examples.demo.instance", name, str(port)])

    def kill(self) -> None:
        """`kill -9` the receiver."""
        self._processes["receiver"].kill()
        self._processes["receiver"].wait()

    def restart(self) -> None:
        """Start the receiver again, after `kill`."""
        self.start("receiver")

    def freeze(self) -> None:
        """SIGSTOP the receiver."""
        self._processes["receiver"].send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT the receiver."""
        self._processes["receiver"].send_signal(signal.SIGCONT)

    def log(self, name: str) -> str:
        """What a process has printed."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def _start_vendors(self) -> None:
        ports = self.directory / "ports.json"
        simulated = [name for name in VENDORS if name != "lnbits" or self.real_lnbits is None]
        self._spawn(
            "vendors",
            [
                *(sys.executable, "-m", "holdfast", "fake", "serve"),
                *("--providers", ",".join(simulated), "--seed", str(self.seed), "--port-file", str(ports)),
                *("--webhook-base", f"{self.receiver}/webhooks", "--scenario", "storm"),
                *("--latency", ",".join(map(str, LATENCY))),
            ],
        )
        self._wait(ports.exists, "vendors")
        found = json.loads(ports.read_text())
        self.admin, self.vendors = found["admin"], found["vendors"]

    def _await_app(self, name: str) -> None:
        url = self.web if name == "web" else self.receiver

        def alive() -> bool:
            try:
                return httpx.get(f"{url}/livez", timeout=2).status_code == 200
            except httpx.TransportError:
                return False

        self._wait(alive, name)

    def _wait(self, ready: "object", name: str) -> None:
        assert callable(ready)
        for _ in range(600):
            if ready():
                return
            if self._processes[name].poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"{name} did not start:\n{self.log(name)[-2000:]}")

    def _spawn(self, name: str, command: list[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment())

    def _environment(self) -> dict[str, str]:
        environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "DEMO_DIRECTORY": str(self.directory),
            "DEMO_SABOTAGE": self.sabotage,
            "HOLDFAST_STORE": self.store,
            "SHOP_DATABASE": f"sqlite+aiosqlite:///{self.shop_database}",
            "PUBLIC_URL": f"{self.receiver}/webhooks",
            "PAYMENTS_POLL": "4,6,8",
            "WORKER_LEASE": str(LEASE),
            "SWEEP_EVERY": "2",
        }
        environment.setdefault("HOLDFAST_SECRET", secrets.token_hex(32))
        os.environ["HOLDFAST_SECRET"] = environment["HOLDFAST_SECRET"]  # every instance shares it
        for name, vendor in self.vendors.items():
            environment |= _settings(name, vendor)
        if self.real_lnbits is not None:
            environment |= self.real_lnbits.settings
        return environment | _jaas(self.directory)

    def _end(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _settings(name: str, vendor: Mapping[str, object]) -> dict[str, str]:
    """A vendor's address and credentials, in the words of its provider's `from_env`."""
    url, given = str(vendor["url"]), vendor["credentials"]
    assert isinstance(given, dict)
    match name:
        case "swiss-bitcoin-pay":
            return {
                "SBP_URL": url,
                "SBP_API_KEY": given["api_key"],
                "SBP_WEBHOOK_SECRET": given["webhook_secret"],
            }
        case "lnbits":
            return {"LNBITS_URL": url, "LNBITS_INVOICE_KEY": given["invoice_key"]}
        case "zoom":
            return {
                "ZOOM_URL": f"{url}/v2",
                "ZOOM_TOKEN_URL": f"{url}/oauth/token",
                "ZOOM_ACCOUNT_ID": given["account_id"],
                "ZOOM_CLIENT_ID": given["client_id"],
                "ZOOM_CLIENT_SECRET": given["client_secret"],
                "ZOOM_WEBHOOK_SECRET": given["webhook_secret"],
                "ZOOM_HOST": given["host"],
            }
        case "telegram":
            return {
                "TELEGRAM_URL": url,
                "TELEGRAM_BOT_TOKEN": given["bot_token"],
                "TELEGRAM_WEBHOOK_SECRET": given["webhook_secret"],
            }
        case _:
            return {"SMTP_URL": url, "SMTP_SENDER": "shop@example.org"}


def _jaas(directory: Path) -> dict[str, str]:
    """A key pair of our own: JaaS is signed here and never called."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    path = directory / "jaas.pem"
    if not path.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return {
        "JAAS_APP_ID": "vpaas-magic-cookie-0123456789abcdef",
        "JAAS_KEY_ID": "demo",
        "JAAS_PRIVATE_KEY": path.read_text(),
    }
