"""Jobs and records as people may see them: what names somebody, and whatever is secret, is blotted out."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol, cast, runtime_checkable

from holdfast.stores.sealed import SealedJob
from holdfast.stores.store import Job, Json
from holdfast.telemetry import Redactor

HIDDEN: Final = "***"

SHOWN_HEADERS: Final = frozenset(
    {"type", "vendor_id", "attempt_id", "reference", "recognised", "expires", "header.content-type"}
)
"""Of a job's headers only these are shown."""

PRIVATE_FIELDS: Final = frozenset(
    {
        *("address", "bolt11", "city", "comment", "customer", "description", "dob", "email", "first_name", "firstname"),
        *("from", "host_email", "iban", "ip", "ip_address", "last_name", "lastname", "memo", "message", "metadata"),
        *(
            "msisdn",
            "name",
            "note",
            "notes",
            "participant",
            "password",
            "payer",
            "phone",
            "phone_number",
            "postal_code",
        ),
        *("pr", "preimage", "recipient", "return_url", "subject", "surname", "text", "to", "topic", "user_name"),
        *("username", "zip"),
        *("checkout_url", "join_url", "payment_request", "start_url", "api_key", "secret", "token", "access_token"),
    }
)
"""Fields of any body that are never shown, however they are written: `firstName` is `first_name`."""

MOST_DEPTH: Final = 32


@runtime_checkable
class DeclaresPrivateFields(Protocol):
    """A provider whose vendor sends more that is private than every vendor may."""

    @property
    def private_fields(self) -> frozenset[str]:
        """Names of fields in the vendor's bodies."""
        ...


def private_fields_of(provider: object) -> frozenset[str]:
    """What the provider declares."""
    return provider.private_fields if isinstance(provider, DeclaresPrivateFields) else frozenset()


def redacted(job: Job, *, private: Collection[str] = (), redact: Callable[[str], str] | None = None) -> dict[str, Json]:
    """The job for people: listed headers, the body without private fields, no secret.

    `private` are further fields its provider declares; `redact` takes secrets the program knows out of every text.
    """
    clean = redact or Redactor().redact
    return {
        "id": job.id,
        "queue": job.queue,
        "key": clean(job.key),
        "kind": job.kind,
        "handler": job.handler,
        "state": job.state.value,
        "ordering_key": clean(job.ordering_key),
        "attempts": job.attempts,
        "losses": job.losses,
        "generation": job.generation,
        "arrivals": job.arrivals,
        "conflicts": job.conflicts,
        "created_at": job.created_at.isoformat(),
        "due_at": job.due_at.isoformat(),
        "reason": job.reason,
        "error": clean(job.error),
        "headers": {name: clean(value) for name, value in job.headers.items() if name in SHOWN_HEADERS},
        "body": _sealed(job) or body(job.body, private=private, redact=clean),
    }


def _sealed(job: Job) -> Json:
    return {"unreadable": str(job.problem)} if isinstance(job, SealedJob) else None


def body(data: bytes, *, private: Collection[str] = (), redact: Callable[[str], str]) -> Json:
    """The body's JSON without private fields; of anything else only how long it is."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {"bytes": len(data)}
    return hidden(found, private=private, redact=redact)


def hidden(value: object, *, private: Collection[str] = (), redact: Callable[[str], str]) -> Json:
    """The JSON value without what stands under a private name."""
    names = {_plain(name) for name in (*PRIVATE_FIELDS, *private)}
    return _hide(value, names, redact, 0)


def cleaned(value: object, *, redact: Callable[[str], str]) -> Json:
    """The JSON value with nothing taken out but secrets: for the person it is about."""
    return _hide(value, (), redact, 0)


def _hide(value: object, names: Collection[str], redact: Callable[[str], str], depth: int) -> Json:
    if depth > MOST_DEPTH:
        return HIDDEN
    match value:
        case dict():
            items = cast("Mapping[str, object]", value).items()
            return {
                redact(name): HIDDEN if _plain(name) in names and item else _hide(item, names, redact, depth + 1)
                for name, item in items
            }
        case list():
            return [_hide(item, names, redact, depth + 1) for item in cast("list[object]", value)]
        case str():
            return redact(value)
        case float():
            return str(value)
        case _:
            return cast("Json", value)


def _plain(name: str) -> str:
    """`firstName`, `first-name` and `first_name` are one name."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
