"""A meeting as a document in the store. What is secret never becomes part of one."""

import base64
import hmac

from pydantic import TypeAdapter

from holdfast.meetings.machine import next_look
from holdfast.meetings.models import Meeting
from holdfast.stores.readable import document, value_of
from holdfast.stores.store import Draft, Record
from holdfast.values import Secret

KIND = "meeting"

_ADAPTER = TypeAdapter(Meeting)
_TOKEN_LENGTH = 26  # of 5 bits each: 130 that nobody guesses


def encode(meeting: Meeting) -> Draft:
    """The meeting, the indexes it is found by, and when it wants to be looked at."""
    return Draft(
        value=document(KIND, _ADAPTER, meeting),
        index={
            "vendor": [
                vendor_index(attempt.provider, attempt.vendor_id) for attempt in meeting.attempts if attempt.vendor_id
            ],
            "token": [attempt.token for attempt in meeting.attempts],
        },
        due_at=next_look(meeting),
        subject=meeting.reference,
    )


def decode(record: Record) -> Meeting:
    """The inverse of `encode`."""
    return value_of(_ADAPTER, record)


def vendor_index(provider: str, vendor_id: str) -> str:
    """What the index `vendor` holds of an attempt."""
    return f"{provider}/{vendor_id}"


def token(secret: Secret, reference: str, provider: str, number: int) -> str:
    """The name an attempt goes by at its vendor: 26 of `0-9 a-v`, which every vendor accepts in every place.

    Keyed, so that nobody derives one from the reference or from another; each attempt's own, so that the search
    for an orphan never finds its successor.
    """
    message = "|".join(("holdfast meeting 1", reference, provider, str(number))).encode()
    mac = hmac.digest(secret.reveal().encode("utf-8", "surrogatepass"), message, "sha256")
    return base64.b32hexencode(mac).decode()[:_TOKEN_LENGTH].lower()
