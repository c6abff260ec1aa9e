"""What the exit codes mean, and which error ends with which."""

from enum import IntEnum

from holdfast.errors import (
    AlreadyReplayed,
    ConfigurationError,
    CredentialRefused,
    HoldfastError,
    InvalidInput,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ReferenceConflict,
    Refused,
    Rejected,
    StoreNotEmpty,
    StoreUnavailable,
    Throttled,
    VersionConflict,
)


class ExitCode(IntEnum):
    """How a command ended, for scripts."""

    OK = 0
    PROBLEM = 1
    """The command ran, and found something wrong."""
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    """Somebody said no, or somebody else was first."""


_BY_ERROR: dict[type[HoldfastError], ExitCode] = {
    ConfigurationError: ExitCode.USAGE,
    InvalidInput: ExitCode.USAGE,
    NotSent: ExitCode.UNREACHABLE,
    OutcomeUnknown: ExitCode.UNREACHABLE,
    StoreUnavailable: ExitCode.UNREACHABLE,
    CredentialRefused: ExitCode.REFUSED,
    Refused: ExitCode.REFUSED,
    Rejected: ExitCode.REFUSED,
    Throttled: ExitCode.REFUSED,
    ReferenceConflict: ExitCode.REFUSED,
    StoreNotEmpty: ExitCode.REFUSED,
    VersionConflict: ExitCode.REFUSED,
    AlreadyReplayed: ExitCode.REFUSED,
    NotFound: ExitCode.PROBLEM,
}


def exit_code(error: HoldfastError) -> ExitCode:
    """The code for this error; `PROBLEM` for what the table does not name."""
    return next((_BY_ERROR[kind] for kind in type(error).__mro__ if kind in _BY_ERROR), ExitCode.PROBLEM)
