"""How much comes in: a second, and in memory at a time. A part is kept for vendors that sign."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from holdfast.errors import ConfigurationError
from holdfast.settings import check_most

MAX_BODY: Final = 256 * 1024
RESERVE: Final = 0.2
"""Of each limit, the part that doors without a signature, or any one door, do not get."""
MOST_ADDRESSES: Final = 10_000
"""Remembered at a time; the one that was quiet longest is forgotten first."""
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiverLimits:
    """What the receiver of one process takes in; above it vendors are asked to come again.

    By default only `address` is less than a process gets through: set `rate` to what your store and workers can do.
    """

    rate: float = 50_000
    """Requests a second, from everybody."""
    address: float = 200
    """Requests a second from one client's address, at doors of vendors that do not sign."""
    memory: int = 64 * 1024 * 1024
    """Bytes of bodies that are being checked or stored."""
    reading: int = 256
    """Bodies that are being read; for one more, the one that has taken longest is given up."""
    max_body: int = MAX_BODY
    """Bytes of one body, also once it is unpacked."""

    def __post_init__(self) -> None:
        for name in ("rate", "address"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigurationError(f"{name} is requests a second, more than 0, not {value!r}")
        for name in ("memory", "reading", "max_body"):
            check_most(name, getattr(self, name))


class Meter:
    """So many a second, a second's worth of them at once."""

    __slots__ = ("_ahead", "_due", "_step")

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._ahead = max(1.0, self._step) + _ROUNDING
        self._due = 0.0  # when all that was taken would have been due, one after the other

    def take(self, now: float) -> float:
        """0: it was counted. Else it was not, and there is room for it in so many seconds."""
        due = (self._due if self._due > now else now) + self._step
        wait = due - now - self._ahead
        if wait > 0:
            return wait
        self._due = due
        return 0.0


@dataclass(slots=True, eq=False)
class Share:
    """What a door, or all unsigned ones, hold in memory."""

    most: int
    held: int = 0


class Intake:
    """What came in a moment ago, and what is being worked on."""

    def __init__(self, limits: ReceiverLimits) -> None:
        self._limits = limits
        self._all = Meter(limits.rate), Share(limits.memory)
        self._unsigned = self._part()
        self._addresses: OrderedDict[str, Meter] = OrderedDict()

    def source(self, *, signed: bool) -> "Source":
        """A door's own part."""
        parts = (self._part(), self._all) if signed else (self._part(), self._unsigned, self._all)
        return Source([meter for meter, _ in parts], [share for _, share in parts])

    def address(self, client: str) -> Meter:
        """Of one client at doors without a signature."""
        name = _network(client)
        meter = self._addresses.pop(name, None) or Meter(self._limits.address)
        self._addresses[name] = meter
        if len(self._addresses) > MOST_ADDRESSES:
            self._addresses.popitem(last=False)
        return meter

    def _part(self) -> tuple[Meter, Share]:
        part = 1 - RESERVE
        return Meter(self._limits.rate * part), Share(round(self._limits.memory * part))


class Source:
    """All limits of one door."""

    __slots__ = ("_meters", "_shares")

    def __init__(self, meters: Sequence[Meter], shares: Sequence[Share]) -> None:
        self._meters = meters
        self._shares = shares

    def admit(self, now: float, address: Meter | None = None) -> float:
        """0: there is room for one more. Else there is in so many seconds; what is narrower has counted it then."""
        if address is not None and (wait := address.take(now)):
            return wait
        for meter in self._meters:
            if wait := meter.take(now):
                return wait
        return 0.0

    def hold(self, size: int) -> bool:
        """Whether there is memory for so many bytes; it is taken then."""
        for share in self._shares:
            if share.held + size > share.most:
                return False
        for share in self._shares:
            share.held += size
        return True

    def let_go(self, size: int) -> None:
        """Give it back."""
        for share in self._shares:
            share.held -= size


def _network(client: str) -> str:
    """One customer of a provider of IPv6 has a whole network of addresses."""
    if ":" not in client:
        return client
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if not isinstance(address, IPv6Address):
        return client
    return str(address.ipv4_mapped or int(address) >> 64)
