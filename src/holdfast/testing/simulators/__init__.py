"""The vendors, simulated: in process or over sockets, with one ledger and one seed."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from holdfast.testing.simulators.simulator import Simulator

SIMULATORS: Final[Mapping[str, str]] = {
    "lnbits": "holdfast.testing.simulators.lnbits:LNbitsSimulator",
    "slack": "holdfast.testing.simulators.slack:SlackSimulator",
    "stripe": "holdfast.testing.simulators.stripe:StripeSimulator",
    "swiss-bitcoin-pay": "holdfast.testing.simulators.swiss_bitcoin_pay:SwissBitcoinPaySimulator",
    "telegram": "holdfast.testing.simulators.telegram:TelegramSimulator",
    "twilio": "holdfast.testing.simulators.twilio:TwilioSimulator",
    "zoom": "holdfast.testing.simulators.zoom:ZoomSimulator",
}
"""Where each vendor's simulator is; one line per vendor."""


def load_simulator(vendor: str) -> type[Simulator]:
    """The simulator of a vendor, by the vendor's name.

    Raises:
        LookupError: There is none.
    """
    try:
        module, _, name = SIMULATORS[vendor].partition(":")
    except KeyError:
        raise LookupError(f"no simulator of {vendor}; there are {', '.join(SIMULATORS)}") from None
    found: type[Simulator] = getattr(import_module(module), name)
    return found
