"""Whether the servers are set up to keep what they are given."""

from dataclasses import dataclass
from typing import Any

OLDEST = (6, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What one server says about itself; empty where it does not say."""

    version: tuple[int, int]
    append_only: bool
    fsync: str
    eviction: str
    replicas: int


def settings(info: bytes, fsync: Any) -> Settings:
    """From the answers to INFO and to CONFIG GET appendfsync, which may be forbidden to us."""
    facts = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    major, minor, *_ = facts["redis_version"].split(".")
    return Settings(
        version=(int(major), int(minor)),
        append_only=facts.get("aof_enabled") == "1",
        fsync=fsync[1].decode() if fsync else "",
        eviction=facts.get("maxmemory_policy", ""),
        replicas=int(facts.get("connected_slaves", "0")),
    )


def findings(found: Settings) -> list[str]:
    """What to change, in sentences; empty when all is well."""
    said: list[str] = []
    if found.version < OLDEST:
        said.append(f"The server is Redis {found.version[0]}.{found.version[1]}; use 6.2 or newer.")
    if found.eviction != "noeviction":
        said.append(f"maxmemory-policy is {found.eviction}: a full server would throw away jobs; set it to noeviction.")
    if not found.append_only:
        said.append("appendonly is off, so a restart loses what came after the last snapshot; set it to yes.")
    elif found.fsync == "no":
        said.append("appendfsync is no, so a power loss may lose half a minute; set it to everysec or always.")
    if not found.replicas:
        said.append("The server has no replica: when its disk is lost, everything is.")
    return said
