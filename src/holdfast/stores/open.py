"""From a URL to a store."""

from holdfast.clock import Clock, SystemClock
from holdfast.errors import ConfigurationError, MissingExtra
from holdfast.stores import redis_address
from holdfast.stores.memory import MemoryStore
from holdfast.stores.sqlite import SqliteStore
from holdfast.stores.store import Store

ENGINES = (
    "memory:// (tests), sqlite:///relative.db or sqlite:////absolute.db, postgresql://host/database, "
    "redis://host and redis+cluster://host,host"
)
POSTGRES = ("postgresql", "postgres")


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
    if scheme in POSTGRES:
        return _open_postgres(url, clock, skew_ms)
    if scheme in redis_address.SCHEMES:
        return _open_redis(url, clock, skew_ms)
    # The rest of the URL may hold a password.
    named = f"{scheme}://..." if separator else "that"
    raise ConfigurationError(f"{named} is no store this holdfast has; it has {ENGINES}")


def _open_postgres(url: str, clock: Clock, skew_ms: int) -> Store:
    try:
        from holdfast.stores.postgres import PostgresStore
    except ImportError as error:
        # Where psycopg is there but its library is not, the error names no module.
        if (error.name or "psycopg").partition(".")[0] != "psycopg":
            raise
        raise MissingExtra("postgres") from error
    return PostgresStore(url, clock=clock, skew_ms=skew_ms)


def _open_redis(url: str, clock: Clock, skew_ms: int) -> Store:
    try:
        from holdfast.stores.redis import RedisStore
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise MissingExtra("redis") from error
    return RedisStore(url, clock=clock, skew_ms=skew_ms)
