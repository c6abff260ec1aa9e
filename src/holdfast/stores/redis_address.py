"""What a URL of a Redis store says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, unquote

from holdfast.errors import ConfigurationError

SCHEMES: Final = ("redis", "rediss", "redis+cluster", "rediss+cluster")
CLUSTER_PARTITIONS: Final = 16
FORM: Final = (
    "redis://[user:password@]host[:port][/db], rediss://... or redis+cluster://host:port,host:port, "
    "then ?durability=async|fsync|replicated&namespace=name&partitions=16&timeout=2"
)


class Durability(StrEnum):
    """What has happened to a change when the store says it is kept."""

    ASYNC = "async"
    """The server has it; how soon it is on a disk or a replica is the server's setting."""
    FSYNC = "fsync"
    """It is on the server's disk."""
    REPLICATED = "replicated"
    """One replica has it too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where the servers are, and how to talk to them."""

    hosts: tuple[tuple[str, int], ...]
    cluster: bool
    tls: bool
    database: int
    username: str | None
    password: str | None = field(repr=False)
    namespace: str
    partitions: int
    timeout: float
    """Seconds each command may take, and each connection."""
    durability: Durability

    def __str__(self) -> str:
        scheme = ("rediss" if self.tls else "redis") + ("+cluster" if self.cluster else "")
        return f"{scheme}://" + ",".join(f"{host}:{port}" for host, port in self.hosts)


def parse(url: str) -> Address:
    """Raises ConfigurationError, which never repeats the URL: it may hold a password."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    username, _, password = login.partition(":")
    cluster = scheme.endswith("+cluster")
    options = _Options(dict(parse_qsl(query, keep_blank_values=True)))
    try:
        address = Address(
            hosts=tuple(_host(host) for host in hosts.split(",")),
            cluster=cluster,
            tls=scheme.startswith("rediss"),
            database=int(path or "0"),
            username=unquote(username) or None,
            password=unquote(password) or None,
            namespace=options.take("namespace", "holdfast"),
            partitions=int(options.take("partitions", str(CLUSTER_PARTITIONS if cluster else 1))),
            timeout=float(options.take("timeout", "2")),
            durability=Durability(options.take("durability", Durability.ASYNC)),
        )
    except ValueError:
        raise ConfigurationError(f"the URL of the Redis store cannot be read; write {FORM}") from None
    if scheme not in SCHEMES or options.left or not _sensible(address):
        raise ConfigurationError(f"the URL of the Redis store cannot be right; write {FORM}")
    return address


class _Options:
    def __init__(self, given: Mapping[str, str]) -> None:
        self.left = dict(given)

    def take(self, name: str, default: str) -> str:
        return self.left.pop(name, default)


def _sensible(address: Address) -> bool:
    return (
        re.fullmatch(r"[A-Za-z0-9._-]{1,64}", address.namespace) is not None
        and 1 <= address.partitions <= 1000
        and 0 < address.timeout <= 60
        and address.database >= 0
        and (address.cluster or len(address.hosts) == 1)
        and not (address.cluster and address.database)
    )


def _host(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", text)
    if found is None:
        raise ValueError("no host")
    return found[1].strip("[]"), int(found[2] or 6379)
