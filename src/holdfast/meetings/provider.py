"""What a meeting provider is: facts, and verbs that each make one exchange, or none."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from holdfast.http.session import Http, HttpVendor
from holdfast.meetings.models import Feature, MeetingRequest, MeetingSnapshot
from holdfast.values import Secret


class CreateSemantics(StrEnum):
    """What repeating a creation does, and how a lost answer is recovered."""

    REMOTE_KEY = "remote_key"
    NATURAL_KEY = "natural_key"
    SEARCHABLE = "searchable"
    BLIND = "blind"
    LOCAL = "local"


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What an account at a vendor can do, as data."""

    create: CreateSemantics
    features: frozenset[Feature] = frozenset()
    webhooks: bool = False
    elsewhere: frozenset[str] = frozenset()
    """Codes of rejections that say something about this account only: another provider may be asked."""


@runtime_checkable
class MeetingProvider(HttpVendor, Protocol):
    """One account at one vendor that hosts meetings, reached by HTTP."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def create(self, http: Http, request: MeetingRequest) -> MeetingSnapshot:
        """Create the meeting: one exchange."""
        ...

    async def find(self, http: Http, request: MeetingRequest) -> MeetingSnapshot | None:
        """The meeting that carries `request.token`; None: none is shown, which proves nothing."""
        ...

    async def delete(self, http: Http, vendor_id: str) -> None:
        """Delete it; one that is gone already is success."""
        ...

    async def host_url(self, http: Http, vendor_id: str) -> Secret:
        """A fresh link for the host."""
        ...


@runtime_checkable
class LocalMeetingProvider(Protocol):
    """A provider whose rooms exist when somebody opens them: no call, so it cannot be down."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def create(self, request: MeetingRequest, *, now: datetime) -> MeetingSnapshot:
        """Name the room and sign the guest's link."""
        ...

    def host_url(self, vendor_id: str, *, starts_at: datetime, ends_at: datetime, now: datetime) -> Secret:
        """A link for the host."""
        ...
