"""The test kit: fakes, simulated vendors, faults, and a ledger of what really happened."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from holdfast.testing.clock import ManualClock
    from holdfast.testing.fakes import FakeMeetings, FakeNotifications, FakePayments
    from holdfast.testing.faults import Faults
    from holdfast.testing.ledger import Ledger

__all__ = ["FakeMeetings", "FakeNotifications", "FakePayments", "Faults", "Ledger", "ManualClock"]

# Looked up on first use: a clock costs no HTTP library, and nothing here needs pytest.
_HOMES: Final = {
    "FakeMeetings": "fakes",
    "FakeNotifications": "fakes",
    "FakePayments": "fakes",
    "Faults": "faults",
    "Ledger": "ledger",
    "ManualClock": "clock",
}


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
