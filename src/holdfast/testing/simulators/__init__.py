"""The vendors, simulated: in process or over sockets, with one ledger and one seed."""

import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final, cast

from holdfast.testing.simulators.simulator import Simulator

GROUP: Final = "holdfast.simulators"
"""The entry point group: `acme = "acme_simulator:AcmeSimulator"`, the name being the vendor's word everywhere."""


def installed_simulators() -> Mapping[str, EntryPoint]:
    """Every simulator there is, by its vendor's name, none of them loaded; any package may bring some."""
    return _installed(tuple(sys.path))


def load_simulator(vendor: str) -> type[Simulator]:
    """The simulator of a vendor, by the vendor's name.

    Raises:
        LookupError: There is none, or it cannot be loaded.
    """
    found = installed_simulators()
    if vendor not in found:
        raise LookupError(f"no simulator of {vendor}; there are {', '.join(found) or 'none'}")
    try:
        return cast(type[Simulator], found[vendor].load())
    except (ImportError, AttributeError) as error:
        raise LookupError(f"the simulator of {vendor} cannot be loaded: {error}") from error


@lru_cache(maxsize=1)  # every test asks again, and to look through all that is installed takes a while
def _installed(path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}
