"""Who leases jobs: names that say which process it is, and whether that process is provably dead."""

import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex
from typing import Self

_PROC = Path("/proc")
_DEAD_STATES = "ZXx"


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """A process that leases jobs, as its name tells: `web-1/3f9a01c2b7d4/4711/88123/9c1e22aa`."""

    node: str
    host: str
    """One boot of one machine and one space of process ids in it; empty where the system does not tell."""
    pid: int
    started: int
    """In ticks since the boot: a process that got a dead one's number has another one."""
    token: str

    @classmethod
    def of_this_process(cls) -> Self:
        """A new name; asked for after a fork, never before it."""
        pid = os.getpid()
        started, host = _started(pid), _host(pid)
        return cls(node=os.uname().nodename, host=host, pid=pid, started=started or 0, token=token_hex(4))

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The owner of that name; None: it is none of ours."""
        parts = name.rsplit("/", 4)
        if len(parts) != 5 or not (parts[2].isdecimal() and parts[3].isdecimal()):
            return None
        return cls(node=parts[0], host=parts[1], pid=int(parts[2]), started=int(parts[3]), token=parts[4])

    def __str__(self) -> str:
        return f"{self.node}/{self.host}/{self.pid}/{self.started}/{self.token}"

    def is_dead(self, seen_from: "Owner") -> bool:
        """Its process has provably ended; false wherever there is any doubt."""
        if not self.host or self.host != seen_from.host or not self.started:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False  # somebody's process has this number; whether it is this one cannot be seen
        started = _started(self.pid)
        return started is not None and (started != self.started or _is_zombie(self.pid))


def _host(pid: int) -> str:
    """Where numbers of processes, and the ticks they started at, mean the same."""
    try:
        if int((_PROC / "self/stat").read_text().partition(" ")[0]) != pid:
            return ""  # the files of another space of process ids
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        spaces = [os.readlink(_PROC / "self/ns" / name) for name in ("pid", "time")]
    except (OSError, ValueError):
        return ""
    return blake2b("/".join([boot, *spaces]).encode(), digest_size=6).hexdigest()


def _facts(pid: int) -> list[str]:
    """What stands behind the program's name, which may hold anything."""
    return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _started(pid: int) -> int | None:
    try:
        return int(_facts(pid)[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_zombie(pid: int) -> bool:
    """It ended, with all its threads, and nobody has asked how."""
    try:
        return _facts(pid)[0] in _DEAD_STATES and len(os.listdir(_PROC / str(pid) / "task")) <= 1
    except (OSError, IndexError):
        return False
