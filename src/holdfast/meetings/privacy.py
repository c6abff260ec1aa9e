"""What a meeting holds of a person, and what stays of it once they are forgotten."""

from collections.abc import Sequence
from dataclasses import replace

from holdfast.meetings.record import KIND, decode, encode, vendor_index
from holdfast.stores.store import Draft, Record, Records

TOPIC = "Meeting"


class MeetingPrivacy:
    """Forgets topics, links and what was said; keeps times, states, vendors' ids, and the host, who is on your side."""

    async def find(self, records: Records, reference: str) -> Sequence[Record]:
        """The meeting of this reference."""
        record = await records.get(KIND, reference)
        return [record] if record else []

    def subjects(self, record: Record) -> set[str]:
        """Under whose keys deliveries about it rest."""
        attempts = decode(record).attempts
        return {vendor_index(attempt.provider, attempt.vendor_id) for attempt in attempts if attempt.vendor_id}

    def scrub(self, record: Record) -> Draft:
        """The meeting without the guest."""
        meeting = decode(record)
        attempts = tuple(replace(attempt, error="") for attempt in meeting.attempts)
        scrubbed = replace(meeting, topic=TOPIC, join_url="", attempts=attempts)
        return replace(encode(scrubbed), due_at=record.due_at)
