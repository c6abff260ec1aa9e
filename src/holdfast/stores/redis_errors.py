"""What the errors of redis-py mean here."""

import asyncio
from typing import Final

from redis import exceptions as theirs

from holdfast.errors import HoldfastError, InvalidInput, StoreError, StoreUnavailable

ERRORS: Final[dict[type[Exception], type[HoldfastError]]] = {
    theirs.AskError: StoreUnavailable,  # a slot moves, and goes on moving
    theirs.AuthenticationError: StoreUnavailable,
    theirs.AuthenticationWrongNumberOfArgsError: StoreUnavailable,
    theirs.AuthorizationError: StoreUnavailable,
    theirs.BusyLoadingError: StoreUnavailable,
    theirs.ChildDeadlockedError: StoreError,
    theirs.ClusterCrossSlotError: StoreError,
    theirs.ClusterDownError: StoreUnavailable,
    theirs.ClusterError: StoreUnavailable,
    theirs.ConnectionError: StoreUnavailable,
    theirs.DataError: InvalidInput,
    theirs.ExecAbortError: StoreError,
    theirs.InvalidResponse: StoreUnavailable,
    theirs.LockError: StoreError,
    theirs.LockNotOwnedError: StoreError,
    theirs.MasterDownError: StoreUnavailable,
    theirs.MaxConnectionsError: StoreUnavailable,
    theirs.ModuleError: StoreError,
    theirs.MovedError: StoreUnavailable,
    theirs.NoPermissionError: StoreUnavailable,
    theirs.NoScriptError: StoreUnavailable,  # forgotten again, right after it was loaded
    theirs.OutOfMemoryError: StoreUnavailable,
    theirs.PubSubError: StoreError,
    theirs.ReadOnlyError: StoreUnavailable,  # a replica, until the clients have found the new primary
    theirs.RedisClusterException: StoreUnavailable,
    theirs.RedisError: StoreUnavailable,
    theirs.ResponseError: StoreError,
    theirs.SlotNotCoveredError: StoreUnavailable,
    theirs.TimeoutError: StoreUnavailable,
    theirs.TryAgainError: StoreUnavailable,  # a slot moves, and some keys are here, some there
    theirs.WatchError: StoreError,
    # Newer than the oldest redis-py this works with:
    **{
        getattr(theirs, name): meaning
        for name, meaning in {
            "CrossSlotTransactionError": StoreError,
            "ExternalAuthProviderError": StoreUnavailable,
            "IncorrectPolicyType": StoreError,
            "InvalidPipelineStack": StoreError,
            "NoSuchFieldsetError": StoreError,
        }.items()
        if hasattr(theirs, name)
    },
    # From the socket, where redis-py lets it through:
    asyncio.IncompleteReadError: StoreUnavailable,
    OSError: StoreUnavailable,
    TimeoutError: StoreUnavailable,
}

REFUSALS: Final = (
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "NOAUTH",
    "NOPERM",
    "BUSY",
    "READONLY",
    "LOADING",
    "max number of clients",
)
"""A server that cannot write now, where redis-py has no class for it."""


def translate(error: Exception, *, secret: str | None) -> Exception:
    """The error as holdfast says it; what is no error of Redis stays as it is."""
    ours = next((ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS), None)
    if ours is None:
        return error
    text = str(error) or type(error).__name__
    if ours is StoreError and any(refusal in text for refusal in REFUSALS):
        ours = StoreUnavailable
    if secret and secret in text:
        # A server that does not know AUTH repeats what it was given; the original must not be shown beside ours.
        return ours(f"redis: {text.replace(secret, '***')}")
    translated = ours(f"redis: {text}")
    translated.__cause__ = error
    return translated
