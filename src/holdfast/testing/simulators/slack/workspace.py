"""What is in a Slack workspace: channels, messages, and how much it lets through."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

TIERS: Final[Mapping[str, int]] = {
    "chat.delete": 3,
    "chat.deleteScheduledMessage": 3,
    "chat.scheduledMessages.list": 3,
    "chat.scheduleMessage": 3,
    "chat.update": 3,
    "conversations.history": 3,
    "conversations.info": 3,
    "conversations.join": 3,
    "conversations.list": 2,
    "conversations.members": 4,
    "conversations.open": 3,
    "conversations.replies": 3,
    "files.completeUploadExternal": 4,
    "files.getUploadURLExternal": 4,
    "files.info": 4,
    "reactions.add": 3,
    "users.info": 4,
    "users.list": 2,
    "users.lookupByEmail": 3,
}
"""The tier of each limited method; `chat.postMessage` has a limit of its own, the others none worth naming."""

Thing = dict[str, Any]
"""An object as Slack writes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Calls let through within any minute by tier, and messages within any second by channel; zero: no limit."""

    tier1: int = 1
    tier2: int = 20
    tier3: int = 50
    tier4: int = 100
    channel: int = 1

    def of(self, tier: int) -> int:
        """Calls a minute."""
        return (0, self.tier1, self.tier2, self.tier3, self.tier4)[tier]


LIMITS: Final = Limits()
"""Slack's own."""


@dataclass(kw_only=True, slots=True)
class Channel:
    """A place to write to: a channel, or the conversation with one person."""

    id: str
    name: str
    created: int
    person: str = ""
    """Whom it is with, where it is a direct conversation."""
    is_member: bool = True
    is_archived: bool = False
    is_private: bool = False
    messages: list[Thing] = field(default_factory=list[Thing])

    def to_json(self) -> Thing:
        """As in a list."""
        shown: Thing = {"id": self.id, "created": self.created, "is_archived": self.is_archived}
        if self.person:
            return {**shown, "is_im": True, "is_org_shared": False, "user": self.person, "is_user_deleted": False}
        text = {"creator": "", "last_set": 0, "value": ""}
        return {
            **shown,
            "creator": "U00000000",
            "is_channel": not self.is_private,
            "is_ext_shared": False,
            "is_general": self.name == "general",
            "is_group": self.is_private,
            "is_im": False,
            "is_member": self.is_member,
            "is_mpim": False,
            "is_org_shared": False,
            "is_pending_ext_shared": False,
            "is_private": self.is_private,
            "is_shared": False,
            "name": self.name,
            "name_normalized": self.name,
            "num_members": 3,
            "pending_shared": [],
            "previous_names": [],
            "purpose": text,
            "topic": text,
            "unlinked": 0,
        }


@dataclass(kw_only=True, slots=True)
class UploadedFile:
    """A file, from the moment an address for it was asked for."""

    id: str
    name: str
    length: int
    created: int
    upload: str
    """The path its bytes go to."""
    title: str = ""
    content: bytes | None = None
    """What was uploaded."""
    is_shown: bool = False
    """Its upload was completed."""
