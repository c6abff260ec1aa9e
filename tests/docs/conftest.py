"""What examples run in: no network, and an environment that is as before afterwards."""

import os
import socket
from collections.abc import Iterator

import pytest


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but this machine can be reached."""
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def look_up_here(host: object, *arguments: object, **options: object) -> object:
        _require_here(host)
        return look_up(host, *arguments, **options)  # type: ignore[arg-type]

    def connect_here(self: socket.socket, address: object) -> None:
        _require_here(address[0] if isinstance(address, tuple) else "localhost")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", look_up_here)
    monkeypatch.setattr(socket.socket, "connect", connect_here)


def _require_here(host: object) -> None:
    if host not in (None, "localhost", "127.0.0.1", "::1", b"localhost", b"127.0.0.1"):
        raise AssertionError(f"a page calls {host!r}: examples run without a network")


@pytest.fixture
def own_environment() -> Iterator[None]:
    """What a page sets is gone afterwards."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
