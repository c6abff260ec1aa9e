"""What a dispatch holds of a person, and what stays of it once they are forgotten."""

from collections.abc import Sequence
from dataclasses import replace

from holdfast.notifications.models import Address, Dispatch, DispatchState, Message, Recipient, Submission
from holdfast.notifications.record import KIND, decode, encode
from holdfast.outcome import Cause
from holdfast.stores.store import Draft, Record, Records

FORGOTTEN = "forgotten"
MOST = 10_000
"""Messages about one reference that are forgotten at once."""

_OPEN = (DispatchState.QUEUED, DispatchState.SENDING)


class DispatchPrivacy:
    """Forgets message and recipient; keeps states, times, providers and vendors' ids. What waits is told no more."""

    async def find(self, records: Records, reference: str) -> Sequence[Record]:
        """The dispatches whose key is the reference, or `what:reference`."""
        found = {record.key: record for record in await records.find(KIND, "subject", reference, limit=MOST)}
        itself = await records.get(KIND, reference)
        return [*(found | ({itself.key: itself} if itself else {})).values()]

    def subjects(self, record: Record) -> set[str]:
        """Under whose keys deliveries about it rest."""
        steps = decode(record).submissions
        return {f"{step.provider}/{step.vendor_id}" for step in steps if step.vendor_id}

    def scrub(self, record: Record) -> Draft:
        """The dispatch without the person, and never sent again."""
        dispatch = decode(record)
        scrubbed = replace(
            dispatch,
            message=Message(FORGOTTEN, once=dispatch.message.once),
            recipient=Recipient(*(Address(address.channel, FORGOTTEN) for address in dispatch.recipient.addresses)),
            submissions=tuple(map(_scrub, dispatch.submissions)),
        )
        return encode(_ended(scrubbed))


def _scrub(submission: Submission) -> Submission:
    outcome = submission.outcome or Cause.UNKNOWN.value
    return replace(submission, address=FORGOTTEN, error="", moved_to="", outcome=outcome)


def _ended(dispatch: Dispatch) -> Dispatch:
    if dispatch.state not in _OPEN:
        return dispatch
    return replace(dispatch, state=DispatchState.FAILED, reason=FORGOTTEN, retry_at=None)
