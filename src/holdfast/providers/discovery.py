"""Vendors by name: those that come with holdfast and those any installed package brings."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final, Protocol, Self, cast

from holdfast.errors import ConfigurationError

GROUP: Final = "holdfast.providers"
"""The entry point group: `zoom = "holdfast.providers.zoom:Zoom"`, the name being the vendor's word everywhere."""


class InstalledProvider(Protocol):
    """What an entry point of the group leads to: a provider that can read its settings from the environment."""

    @property
    def name(self) -> str: ...

    @classmethod
    def from_env(cls) -> Self: ...


@cache
def installed_providers() -> Mapping[str, EntryPoint]:
    """Every provider there is, by name, none of them loaded."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def find_provider(name: str) -> type[InstalledProvider]:
    """The class of the provider with this name: `find_provider("zoom").from_env()`.

    Raises:
        ConfigurationError: No installed package has it, or it cannot be loaded.
    """
    found = installed_providers()
    if name not in found:
        raise ConfigurationError(f"there is no provider {name!r}; installed are: {', '.join(found) or 'none'}")
    try:
        return cast(type[InstalledProvider], found[name].load())
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"the provider {name!r} cannot be loaded: {error}") from error
