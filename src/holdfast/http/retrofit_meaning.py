"""What a request and its answer mean to the guard, whatever client sends it: effect, credential, refusal, pauses."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Final

from holdfast.errors import CallFailed
from holdfast.http.vendor import CAUSES, cause_of
from holdfast.outcome import Cause, Effect
from holdfast.resilience.retry import parse_milliseconds, parse_retry_after

REPEATABLE: Final = (Cause.THROTTLED, Cause.UNKNOWN)
"""Causes of statuses after which the guard may wait and ask again; any other answer is final."""

_EFFECTS: Final = {
    "GET": Effect.READ,
    "HEAD": Effect.READ,
    "OPTIONS": Effect.READ,
    "PUT": Effect.IDEMPOTENT,
    "DELETE": Effect.IDEMPOTENT,
}


def effect_of(method: str, headers: Mapping[str, str]) -> Effect:
    """What HTTP says of the method; any other is done once, or once per its `Idempotency-Key`."""
    keyed = Effect.KEYED if headers.get("idempotency-key") else Effect.ONCE
    return _EFFECTS.get(method, keyed)


def credential_of(headers: Mapping[str, str], salt: bytes) -> str:
    """A name for the request's `Authorization`, so that only it pauses; nobody finds the secret by trying."""
    secret = headers.get("authorization")
    return blake2b(secret.encode(), digest_size=6, key=salt).hexdigest() if secret else ""


def refusal_of(status: int, headers: Mapping[str, str], *, name: str, method: str, now: datetime) -> CallFailed | None:
    """What an answer says that is a failure; None: it is none."""
    if status < 400:
        return None
    cause = cause_of(CAUSES, status, "")
    after = parse_milliseconds(headers.get("retry-after-ms"))
    if after is None:
        after = parse_retry_after(headers.get("retry-after"), date=headers.get("date"), now=now)
    return CallFailed.of(
        cause,
        f"{name}: {method} was answered with {status}",
        status=status,
        retry_after=after,
        hard=status >= 500 and cause is Cause.UNKNOWN,
    )
