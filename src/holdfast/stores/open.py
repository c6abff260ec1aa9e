"""From a URL to a store."""

from holdfast.clock import Clock, SystemClock
from holdfast.errors import ConfigurationError
from holdfast.stores.memory import MemoryStore
from holdfast.stores.sqlite import SqliteStore
from holdfast.stores.store import Store

ENGINES = "memory:// (tests) and sqlite:///relative.db or sqlite:////absolute.db"


def open_store(url: str, *, clock: Clock | None = None, skew_ms: int = 0) -> Store:
    """The store a URL names; nothing is opened before `async with`.

    Raises:
        ConfigurationError: No engine of this holdfast reads such a URL.
    """
    clock = clock or SystemClock()
    scheme, separator, rest = url.partition("://")
    if scheme == "memory" and separator and not rest:
        return MemoryStore(clock=clock, skew_ms=skew_ms)
    if scheme == "sqlite" and rest.startswith("/") and rest.strip("/") and "?" not in rest:
        return SqliteStore(rest[1:], clock=clock, skew_ms=skew_ms)
    # The rest of the URL may hold a password.
    named = f"{scheme}://..." if separator else "that"
    raise ConfigurationError(f"{named} is no store this holdfast has; it has {ENGINES}")
