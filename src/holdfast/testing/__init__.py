"""The test kit: fakes, simulated vendors, faults, time, and a ledger of what really happened.

What explores histories is in `holdfast.testing.explore`; pytest has its fixtures without any import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from holdfast.testing.clock import ManualClock
    from holdfast.testing.deliveries import Webhooks
    from holdfast.testing.fakes import FakeMeetings, FakeNotifications, FakePayments
    from holdfast.testing.faults import Faults
    from holdfast.testing.intents import charge, meeting, message, offer, refund
    from holdfast.testing.ledger import Ledger
    from holdfast.testing.secrets import assert_no_secrets
    from holdfast.testing.vendors import Fakes, NotSimulated
    from holdfast.testing.virtual_clock import VirtualClock
    from holdfast.testing.world import World

__all__ = [
    "FakeMeetings",
    "FakeNotifications",
    "FakePayments",
    "Fakes",
    "Faults",
    "Ledger",
    "ManualClock",
    "NotSimulated",
    "VirtualClock",
    "Webhooks",
    "World",
    "assert_no_secrets",
    "charge",
    "meeting",
    "message",
    "offer",
    "refund",
]

# Looked up on first use: a clock costs no HTTP library, and nothing here needs pytest.
_HOMES: Final = {
    "FakeMeetings": "fakes",
    "FakeNotifications": "fakes",
    "FakePayments": "fakes",
    "Fakes": "vendors",
    "Faults": "faults",
    "Ledger": "ledger",
    "ManualClock": "clock",
    "NotSimulated": "vendors",
    "VirtualClock": "virtual_clock",
    "Webhooks": "deliveries",
    "World": "world",
    "assert_no_secrets": "secrets",
    "charge": "intents",
    "meeting": "intents",
    "message": "intents",
    "offer": "intents",
    "refund": "intents",
}


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
