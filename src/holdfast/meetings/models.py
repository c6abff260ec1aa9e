"""What a meeting is: a booking's room, where it is held, and what had to be dropped."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from holdfast.outcome import Cause
from holdfast.values import Reference, Secret


class Feature(StrEnum):
    """What a meeting can be asked to have."""

    WAITING_ROOM = "waiting_room"
    PASSCODE = "passcode"
    CLOUD_RECORDING = "cloud_recording"
    JOIN_BEFORE_HOST = "join_before_host"


class MeetingStatus(StrEnum):
    """Where a meeting stands."""

    CREATING = "creating"
    UNKNOWN = "unknown"
    SCHEDULED = "scheduled"
    STARTED = "started"
    ENDED = "ended"
    CANCELED = "canceled"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class MeetingRequest:
    """What a provider is asked to create."""

    reference: Reference
    token: str
    """Ours, keyed, unguessable, one per attempt: the vendor stores it, and a look-up finds it by it."""
    starts_at: datetime
    duration: timedelta
    topic: str = "Meeting"
    host: str = ""
    """The provider's own id of the host; empty: the provider's default host."""
    features: frozenset[Feature] = frozenset()
    time_zone: str = "UTC"


@dataclass(frozen=True, kw_only=True, slots=True)
class MeetingSnapshot:
    """What the vendor says of one of its meetings, in our words."""

    vendor_id: str
    join_url: str
    token: str = ""
    host_url: Secret | None = None
    passcode: Secret | None = None
    starts_at: datetime | None = None


class TryState(StrEnum):
    """What we know of one effect asked of one provider."""

    SENDING = "sending"
    """Committed before the first byte; past its claim it is `unknown`, whoever died."""
    MADE = "made"
    """The vendor holds it; where it is not the current one, it is deleted."""
    UNKNOWN = "unknown"
    """It may exist at the vendor: it is searched for, and deleted unless the booking still has no meeting."""
    FAILED = "failed"
    """Proven: it does not exist."""
    DELETED = "deleted"
    ABSENT = "absent"
    """Never found again: closed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeetingAttempt:
    """One creation asked of one provider."""

    number: int
    provider: str
    token: str
    state: TryState
    claimed_at: datetime
    claimed_until: datetime
    """After this moment a claim without an answer is unknown."""
    vendor_id: str = ""
    cause: Cause | None = None
    code: str = ""
    """The vendor's own error code, verbatim."""
    error: str = ""
    looks: int = 0
    """How many of the scheduled looks, or how many tries to delete it, are behind us."""
    looked_at: datetime | None = None
    why: str = ""
    """Why this provider was asked, as the route said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Meeting:
    """A booking's meeting. The join URL is for guests; host links are asked for when needed, never stored."""

    reference: Reference
    starts_at: datetime
    duration: timedelta
    topic: str
    host: str = ""
    require: frozenset[Feature] = frozenset()
    prefer: frozenset[Feature] = frozenset()
    time_zone: str = "UTC"
    region: str = ""
    """Where the guests' data has to stay, for a route that cares."""
    status: MeetingStatus = MeetingStatus.CREATING
    provider: str = ""
    vendor_id: str = ""
    join_url: str = ""
    degraded: frozenset[Feature] = frozenset()
    """Preferred, and not delivered by the provider that made it."""
    attempts: tuple[MeetingAttempt, ...] = ()
    created_at: datetime
    version: int = 0

    @property
    def current(self) -> MeetingAttempt | None:
        """The attempt whose link guests were given; None while there is none."""
        made = (attempt for attempt in self.attempts if attempt.vendor_id and attempt.vendor_id == self.vendor_id)
        return next((attempt for attempt in made if attempt.provider == self.provider), None)

    @property
    def route(self) -> tuple[str, ...]:
        """Every provider tried, in order, and what became of it: `zoom:unknown`, `jaas:made`."""
        return tuple(f"{attempt.provider}:{attempt.state}" for attempt in self.attempts)

    @property
    def ends_at(self) -> datetime:
        """When it is planned to be over."""
        return self.starts_at + self.duration
