"""Who is connected to an event loop from outside, and owes it an answer."""

import os
import socket
import stat
import struct
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from selectors import EVENT_READ, SelectorKey
from typing import Any, Final, NamedTuple, cast

UNSURE: Final = 0.02
"""Real seconds of silence before each jump, where nobody can tell whether an answer is owed: pipes, Unix sockets."""
MORE: Final = 0.002
"""Real seconds of silence after a part of an answer, since there may be another."""

# Offsets in the kernel's struct tcp_info.
_STATE, _LAST_SENT, _LAST_RECEIVED, _BYTES_RECEIVED, _BYTES_SENT, _ENOUGH = 0, 44, 52, 128, 200, 208
_SYN_SENT, _CLOSED = 2, (6, 7, 8)  # 6: TIME_WAIT, 7: CLOSE, 8: CLOSE_WAIT, when the peer says nothing more


class Traffic(NamedTuple):
    """What the kernel knows of a TCP connection."""

    state: int
    sent: int
    received: int
    since_sent: int
    since_received: int
    """Milliseconds, as coarse as the kernel's ticks."""


class Kind(Enum):
    OWN = auto()
    """Both ends are in this event loop, or it listens: what is on its way shows up as readiness."""
    SERVED = auto()
    """Accepted here: a client owes nothing."""
    ASKED = auto()
    """A server outside, over TCP."""
    UNSURE = auto()


@dataclass(slots=True)
class _Line:
    key: SelectorKey
    kind: Kind
    ends: tuple[Any, Any]
    sent_when_heard: int = 0
    settled: bool = False
    """It was silent for the grace, and its driver has not asked to wait anew."""


class Peers:
    """What the descriptors of one selector are connected to."""

    def __init__(self, selector: Any, loop: Any, real: Callable[[], float]) -> None:
        self._selector = selector
        self._loop = loop
        self._real = real
        self._lines: dict[int, _Line] = {}
        self._ports = set[int]()
        self._heard_at = 0.0
        self._quiet_since: float | None = None

    @property
    def anyone(self) -> bool:
        """Whether somebody outside may speak."""
        return len(self._selector.get_map()) > 1

    def heard(self, events: Sequence[tuple[SelectorKey, int]]) -> None:
        """These became ready."""
        self._quiet_since = None
        own = self._loop._ssock.fileno()
        for key, mask in events:
            if key.fd != own and mask & EVENT_READ:
                line = self._line(key)
                line.settled = False
                if line.kind in (Kind.ASKED, Kind.SERVED) and (traffic := _traffic(key.fd)) is not None:
                    line.sent_when_heard = traffic.sent
                    if line.kind is Kind.ASKED:
                        self._heard_at = self._real()

    def owing(self) -> dict[object, str]:
        """The servers outside that were asked later than they answered, each with words for it."""
        selected = self._selector.get_map()
        if len(selected) <= 1:
            return {}
        owing: dict[object, str] = {}
        for line in self._all():
            if line.kind is Kind.ASKED and (traffic := _traffic(line.key.fd)) is not None:
                if traffic.state == _SYN_SENT:
                    owing[line.key.fd, line.ends] = f"a connection to {_text(line.ends[1])}"
                elif traffic.state not in _CLOSED and traffic.sent > line.sent_when_heard:
                    owing[line.key.fd, line.ends, traffic.sent] = f"the server at {_text(line.ends[1])}"
        return owing

    def grace(self) -> float | None:
        """For how long to wait yet, because somebody may be about to speak."""
        if len(self._selector.get_map()) <= 1:
            return None
        now = self._real()
        more = self._heard_at + MORE - now
        unsure = [line for line in self._all() if line.kind is Kind.UNSURE and not line.settled]
        if unsure:
            if self._quiet_since is None:
                self._quiet_since = now
            if (left := self._quiet_since + UNSURE - now) > 0:
                return max(left, more)
            for line in unsure:
                # Drivers that watch a descriptor themselves do it anew for each question; transports do not.
                line.settled = _is_socket(line.key.fd) and line.key.fd not in self._loop._transports
            self._quiet_since = None
        return more if more > 0 else None

    def callers(self) -> int:
        """How many requests of other threads of this process this event loop has not answered."""
        if not self._ports:
            return 0
        own = {line.ends for line in self._all() if line.kind is Kind.OWN}
        here = _connections()
        asked = [ends for ends in here if _port(ends[1]) in self._ports and ends not in own]
        return sum(self._is_unanswered(here[ends], here.get((ends[1], ends[0]))) for ends in asked)

    def _is_unanswered(self, caller: int, server: int | None) -> bool:
        traffic = _traffic(caller)
        if traffic is None or not traffic.sent or traffic.state in _CLOSED:
            return False
        if not traffic.received or traffic.since_sent != traffic.since_received:
            return not traffic.received or traffic.since_sent < traffic.since_received
        # Too close to tell by time. Who serves it either listens to it only between two requests, or always does.
        if server is None or server not in self._selector.get_map():
            return server is not None
        its = _traffic(server)
        return its is not None and its.sent == self._line(self._selector.get_key(server)).sent_when_heard

    def _all(self) -> list[_Line]:
        """Those that are watched now."""
        own = self._loop._ssock.fileno()
        return [self._line(key) for key in tuple(self._selector.get_map().values()) if key.fd != own]

    def _line(self, key: SelectorKey) -> _Line:
        line = self._lines.get(key.fd)
        if line is not None and line.key is key:
            return line
        self._learn_ports()
        ends = _ends(key.fd)
        if line is not None and line.ends == ends and ends[1] is not None:
            line.key, line.settled = key, False
        else:
            line = self._lines[key.fd] = _Line(key, self._kind(key.fd, ends), ends)
        return line

    def _learn_ports(self) -> None:
        for key in tuple(self._selector.get_map().values()):
            line = self._lines.get(key.fd)
            if line is None or line.key is not key:
                with _socket(key.fd) as watched:
                    if watched is not None and _listens(watched):
                        self._ports.add(_port(watched.getsockname()))

    def _kind(self, fd: int, ends: tuple[Any, Any]) -> Kind:
        with _socket(fd) as watched:
            if watched is None:
                return Kind.UNSURE if _is_pipe(fd) else Kind.OWN
            if _listens(watched):
                return Kind.OWN
            if watched.family not in (socket.AF_INET, socket.AF_INET6) or watched.type != socket.SOCK_STREAM:
                return Kind.UNSURE
        if _port(ends[1]) in self._ports:
            return Kind.OWN
        if _port(ends[0]) in self._ports:
            return Kind.SERVED
        return Kind.ASKED if _traffic(fd) is not None else Kind.UNSURE


@contextmanager
def _socket(fd: int) -> Generator[socket.socket | None]:
    """The descriptor as a socket, which stays open."""
    try:
        borrowed = socket.socket(fileno=fd)
    except OSError:
        yield None
        return
    try:
        yield borrowed
    finally:
        borrowed.detach()


def _traffic(fd: int) -> Traffic | None:
    if sys.platform != "linux":
        return None
    with _socket(fd) as connection:
        if connection is None:
            return None
        try:
            raw = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:
            return None
    if len(raw) < _ENOUGH:  # a kernel before 4.19
        return None
    times = struct.unpack_from("I", raw, _LAST_SENT) + struct.unpack_from("I", raw, _LAST_RECEIVED)
    amounts = struct.unpack_from("Q", raw, _BYTES_SENT) + struct.unpack_from("Q", raw, _BYTES_RECEIVED)
    return Traffic(raw[_STATE], *amounts, *times)


def _ends(fd: int) -> tuple[Any, Any]:
    """Both addresses of a connection; None where there is none."""
    with _socket(fd) as connection:
        if connection is None:
            return None, None
        try:
            return connection.getsockname(), connection.getpeername()
        except OSError:
            return connection.getsockname(), None


def _connections() -> dict[tuple[Any, Any], int]:
    """The connections of this process, by both ends."""
    found: dict[tuple[Any, Any], int] = {}
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):
            ends = _ends(int(name))
            if ends[1]:
                found[ends] = int(name)
    return found


def _listens(connection: socket.socket) -> bool:
    try:
        return bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) and connection.family in (
            socket.AF_INET,
            socket.AF_INET6,
        )
    except OSError:
        return False


def _port(address: Any) -> int:
    return int(cast("Any", address)[1]) if isinstance(address, tuple) else 0


def _text(address: Any) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "an unknown address"


def _is_pipe(fd: int) -> bool:
    with suppress(OSError):
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    return False


def _is_socket(fd: int) -> bool:
    with suppress(OSError):
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    return False
