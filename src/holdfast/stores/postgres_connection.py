"""How PostgreSQL is reached, what a connection is set to, and what its errors mean."""

import asyncio
import os
import re
import select as sockets
import socket
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from holdfast.errors import ConfigurationError, HoldfastError, InvalidInput, StoreError, StoreUnavailable
from holdfast.stores.documents import utf8

Connection: TypeAlias = AsyncConnection[TupleRow]

DEFAULT_SCHEMA: Final = "holdfast"
ANSWER_WITHIN: Final = 10.0
"""Seconds after which a server that says nothing is hung up on; its own timeouts below come first."""

_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_REACH: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "target_session_attrs": "read-write",  # of several hosts, and after a failover, the one that takes writes
    "application_name": "holdfast",
}
_SETTINGS: Final = {
    "client_encoding": "UTF8",
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
    # A statement that follows a lock must see what was committed before the lock was had.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # Every statement has its index. Plans are kept, and one made while a table was empty must not walk a full one.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
}
_SET: Final = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS given (name, value)"
_DURABLE: Final = """
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')
"""
_ENCODING: Final = "SELECT current_setting('server_encoding')"

ERRORS: Final[dict[type[Exception], type[HoldfastError]]] = {
    # By the kinds every driver of a database has:
    psycopg.DataError: InvalidInput,  # beyond 64 bits, or a NUL in a text
    psycopg.IntegrityError: StoreError,
    psycopg.InterfaceError: StoreUnavailable,
    psycopg.InternalError: StoreUnavailable,  # damaged, or a standby that takes no writes
    psycopg.NotSupportedError: StoreError,
    psycopg.OperationalError: StoreUnavailable,  # gone, shutting down, too slow, locked, full
    psycopg.ProgrammingError: StoreError,
    psycopg.DatabaseError: StoreUnavailable,
    psycopg.Error: StoreUnavailable,
    psycopg.Warning: StoreError,
    psycopg.Rollback: StoreError,
    # And where PostgreSQL says more:
    errors.InsufficientPrivilege: ConfigurationError,
    errors.InvalidCatalogName: ConfigurationError,  # no such database
    errors.InvalidPassword: ConfigurationError,
    errors.InvalidAuthorizationSpecification: ConfigurationError,
    errors.ProgramLimitExceeded: InvalidInput,  # longer than an index takes
    errors.StatementTooComplex: InvalidInput,
    errors.DuplicatePreparedStatement: StoreUnavailable,  # a proxy that hands us another connection's session
    errors.InvalidSqlStatementName: StoreUnavailable,
    # Not the driver's own:
    UnicodeEncodeError: InvalidInput,  # half of a surrogate pair
    OSError: StoreUnavailable,
    TimeoutError: StoreUnavailable,
}


class Address:
    """Where the database is; its text never shows the password."""

    def __init__(self, url: str) -> None:
        """Raises ConfigurationError: no such URL."""
        place, _, query = url.partition("?")
        options = query.split("&") if query else []
        schemas = [option.removeprefix("schema=") for option in options if option.startswith("schema=")]
        self.schema = schemas[-1] if schemas else DEFAULT_SCHEMA
        if not _SCHEMA.fullmatch(self.schema):
            raise ConfigurationError("a schema is named with up to 48 of a-z 0-9 _, beginning with no digit")
        given = _parsed(f"{place}?{'&'.join(option for option in options if not option.startswith('schema='))}")
        self._secret = str(given.get("password") or "")
        reach: dict[str, Any] = _REACH | given
        self._conninfo = make_conninfo(**reach)

    def __repr__(self) -> str:
        return f"postgresql://...?schema={self.schema}"

    async def connect(self) -> Connection:
        """A connection that commits each statement by itself, outside of `transaction`."""
        connection = await AsyncConnection.connect(self._conninfo, autocommit=True, prepare_threshold=0)
        try:
            settings = _SETTINGS | {"search_path": self.schema}
            with answering(connection):
                await connection.execute(_SET, [list(settings), list(settings.values())], prepare=False)
                await connection.execute(_DURABLE, prepare=False)
        except BaseException:
            await connection.close()
            raise
        return connection

    def translate(self, error: Exception) -> Exception:
        """The error as holdfast says it; what is no error of PostgreSQL stays as it is."""
        ours = next((ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS), None)
        if ours is None or isinstance(error, HoldfastError):
            return error
        translated = ours(f"postgresql: {self._words(error)}")
        translated.__cause__ = error
        return translated

    def _words(self, error: Exception) -> str:
        """The first message only: what follows it may show what was to be written."""
        primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
        words = primary or " ".join(str(error).split()) or type(error).__name__
        return words.replace(self._secret, "***") if self._secret else words


def _parsed(url: str) -> dict[str, Any]:
    try:
        given = conninfo_to_dict(url)
    except (psycopg.Error, ValueError):
        given = {"port": "unreadable"}
    # A password with an unescaped @ or / becomes part of these, and would be repeated by the error it leads to.
    ports, hosts, database = (str(given.get(name) or "") for name in ("port", "host", "dbname"))
    if not re.fullmatch("[0-9,]*", ports) or "@" in hosts + database:
        # Not even as the cause: what cannot be read may be a password.
        raise ConfigurationError(
            "that is no URL of PostgreSQL; write postgresql://user:password@host/database?schema=holdfast, "
            "and escape special characters of the password, such as %40 for @"
        ) from None
    return dict(given)


async def check_encoding(connection: Connection) -> None:
    """Raises ConfigurationError: the database cannot hold every text."""
    [(encoding,)] = await select(connection, _ENCODING)
    if encoding != "UTF8":
        raise ConfigurationError(f"postgresql: the database is in {encoding}; give holdfast one in UTF8")


async def select(
    connection: Connection, query: LiteralString, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> list[TupleRow]:
    """The rows of a query, or of a change that returns some."""
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(query, parameters)
        return await cursor.fetchall() if cursor.description else []


def usable(connection: Connection) -> bool:
    """Nothing is open in it, and the server has not ended it."""
    if connection.closed or connection.info.transaction_status is not TransactionStatus.IDLE:
        return False
    # An idle server speaks first only to say farewell.
    farewell = sockets.poll()
    farewell.register(connection.fileno(), sockets.POLLIN)
    return not farewell.poll(0)


@contextmanager
def answering(connection: Connection) -> Generator[None]:
    """Hang up on a server that says nothing: a network that swallows packets and a stopped process never do.

    It goes by the loop's own time, since it is the server that is waited for, not a clock.
    """
    watchdog = asyncio.get_running_loop().call_later(ANSWER_WITHIN, _hang_up, connection)
    try:
        yield
    finally:
        watchdog.cancel()


def _hang_up(connection: Connection) -> None:
    """Whoever waits for an answer finds the connection lost."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def fingerprint(*parts: str) -> bytes:
    """Sixteen bytes that stand for these. Raises InvalidInput."""
    return _hashed(16, parts)


def lock_number(*parts: str) -> int:
    """The advisory lock these share with nobody else."""
    return int.from_bytes(_hashed(8, parts), signed=True)


def _hashed(size: int, parts: tuple[str, ...]) -> bytes:
    return blake2b(utf8("".join(f"{len(part)}:{part}" for part in parts)), digest_size=size).digest()
