"""What a plain function's exception means, where no provider's table says so."""

import socket
import ssl
from collections.abc import Callable

from holdfast.errors import CallFailed, NotSent, OutcomeUnknown

Classify = Callable[[BaseException], CallFailed | None]


def classify(error: BaseException) -> CallFailed | None:
    """The exception as a failure; None: it is the caller's own, passes through, and counts for nothing."""
    if isinstance(error, CallFailed):
        return error
    # Other TLS errors prove nothing: a connection can also break after the request.
    if isinstance(error, ConnectionRefusedError | socket.gaierror | ssl.SSLCertVerificationError):
        return NotSent(str(error) or type(error).__name__, hard=True)
    if isinstance(error, TimeoutError):
        return OutcomeUnknown(str(error) or "timed out", reason="timeout", hard=True)
    if isinstance(error, OSError) and error.filename is None:  # with a name it is about a file of the caller's
        return OutcomeUnknown(str(error) or type(error).__name__, hard=True)
    return None
