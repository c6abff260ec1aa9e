"""A dispatch as a document in the store."""

from pydantic import TypeAdapter

from holdfast.notifications.machine import next_look
from holdfast.notifications.models import Dispatch
from holdfast.queue.subjects import of_key
from holdfast.stores.readable import document, value_of
from holdfast.stores.store import Draft, Record

KIND = "dispatch"

_ADAPTER = TypeAdapter(Dispatch)


def encode(dispatch: Dispatch) -> Draft:
    """The dispatch, the index it is found by, and when it wants to be looked at."""
    return Draft(
        value=document(KIND, _ADAPTER, dispatch),
        index={
            "vendor": [f"{one.provider}/{one.vendor_id}" for one in dispatch.submissions if one.vendor_id],
            "subject": [of_key(dispatch.key)],
        },
        due_at=next_look(dispatch),
        subject=of_key(dispatch.key),
    )


def decode(record: Record) -> Dispatch:
    """The inverse of `encode`."""
    return value_of(_ADAPTER, record)
