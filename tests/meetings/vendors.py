"""Meeting vendors in memory, which do what a test tells them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from holdfast.http.session import Http
from holdfast.http.vendor import HttpDefaults
from holdfast.meetings.models import Feature, MeetingRequest, MeetingSnapshot
from holdfast.meetings.provider import Capabilities, CreateSemantics
from holdfast.values import Secret

SEARCHABLE = Capabilities(
    create=CreateSemantics.SEARCHABLE, features=frozenset({Feature.WAITING_ROOM, Feature.PASSCODE})
)
LOCAL = Capabilities(create=CreateSemantics.LOCAL)


async def nothing() -> None:
    """Neither wait nor fail."""


@dataclass(kw_only=True, eq=False)
class Vendor(HttpDefaults):
    """Keeps meetings; `before` and `after` run before and after the effect of a creation, and may wait or raise."""

    name: str = "vendor"
    base_url: str = "http://127.0.0.1:9"
    capabilities: Capabilities = SEARCHABLE
    before: Callable[[], Awaitable[object]] = nothing
    after: Callable[[], Awaitable[object]] = nothing
    looking: Callable[[], Awaitable[object]] = nothing
    deleting: Callable[[], Awaitable[object]] = nothing
    live: dict[str, MeetingSnapshot] = field(default_factory=dict[str, MeetingSnapshot])
    requests: list[MeetingRequest] = field(default_factory=list[MeetingRequest])
    finds: int = 0
    deleted: list[str] = field(default_factory=list[str])

    async def create(self, http: Http, request: MeetingRequest) -> MeetingSnapshot:
        self.requests.append(request)
        await self.before()
        vendor_id = f"{self.name}-{len(self.requests)}"
        self.live[vendor_id] = MeetingSnapshot(
            vendor_id=vendor_id, join_url=f"https://{self.name}.example/{vendor_id}", token=request.token
        )
        await self.after()
        return self.live[vendor_id]

    async def find(self, http: Http, request: MeetingRequest) -> MeetingSnapshot | None:
        self.finds += 1
        await self.looking()
        return next((held for held in self.live.values() if held.token == request.token), None)

    async def delete(self, http: Http, vendor_id: str) -> None:
        await self.deleting()
        self.deleted.append(vendor_id)
        self.live.pop(vendor_id, None)

    async def host_url(self, http: Http, vendor_id: str) -> Secret:
        return Secret(f"https://{self.name}.example/{vendor_id}?host=yes")


@dataclass(kw_only=True, eq=False)
class LocalVendor:
    """Rooms that need no call."""

    name: str = "local"
    capabilities: Capabilities = LOCAL

    def create(self, request: MeetingRequest, *, now: datetime) -> MeetingSnapshot:
        return MeetingSnapshot(vendor_id=request.token, join_url=f"https://local.example/{request.token}")

    def host_url(self, vendor_id: str, *, starts_at: datetime, ends_at: datetime, now: datetime) -> Secret:
        return Secret(f"https://local.example/{vendor_id}?until={ends_at:%H%M}")
