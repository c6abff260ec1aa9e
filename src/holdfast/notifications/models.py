"""What is told to whom, and what became of it."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, get_args

from holdfast.errors import InvalidInput

Channel = Literal["telegram", "email", "sms", "slack", "pagerduty", "push"]
CHANNELS: Final[tuple[str, ...]] = get_args(Channel)


@dataclass(frozen=True, slots=True)
class Message:
    """What to tell.

    Raises:
        InvalidInput: The text is empty, or no text at all.
    """

    text: str
    subject: str = field(default="", kw_only=True)
    once: bool = field(default=False, kw_only=True)
    """Rather lost than told twice; otherwise a lost answer is answered by telling again."""

    def __post_init__(self) -> None:
        for name in ("text", "subject"):
            value: object = getattr(self, name)
            if not isinstance(value, str):
                raise InvalidInput(f"the {name} of a message is a str, not {type(value).__name__}")
        if not self.text.strip():
            raise InvalidInput("a message needs a text")
        try:
            (self.text + self.subject).encode()
        except UnicodeEncodeError:
            raise InvalidInput("the message holds half a character, a lone surrogate") from None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a person is reached on one channel: a chat id, an e-mail address, a number.

    Raises:
        InvalidInput: There is no such channel.
    """

    channel: Channel
    value: str

    def __post_init__(self) -> None:
        if self.channel not in CHANNELS:
            raise InvalidInput(f"{self.channel!r} is no channel; there are {', '.join(CHANNELS)}")


@dataclass(frozen=True, slots=True)
class Recipient:
    """A person and their addresses, in order of preference.

    `Recipient(telegram="4711", email="ada@example.org")`

    Raises:
        InvalidInput: No address, or something that is none.
    """

    addresses: tuple[Address, ...]

    def __init__(
        self, *addresses: Address, telegram: str | int | None = None, email: str | None = None, sms: str | None = None
    ) -> None:
        for one in addresses:
            if not isinstance(one, Address):  # pyright: ignore[reportUnnecessaryIsInstance]
                kind = type(one).__name__
                raise InvalidInput(f'a {kind} is no Address: Recipient(email=…), Recipient(Address("slack", …))')
        named: tuple[tuple[Channel, str | int | None], ...] = (("telegram", telegram), ("email", email), ("sms", sms))
        given = addresses + tuple(Address(channel, str(value)) for channel, value in named if value)
        if not given:
            raise InvalidInput("a recipient needs an address: Recipient(email=...), Recipient(telegram=...)")
        object.__setattr__(self, "addresses", given)

    def on(self, channel: Channel) -> str | None:
        """The address on that channel."""
        return next((address.value for address in self.addresses if address.channel == channel), None)


class DispatchState(StrEnum):
    """How far a dispatch came; the order of receipts does not matter."""

    QUEUED = "queued"
    SENDING = "sending"
    ACCEPTED = "accepted"
    """A provider took it; it may still fail to arrive."""
    DELIVERED = "delivered"
    UNKNOWN = "unknown"
    """It may have been told, and must not be told twice."""
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One exchange of a dispatch with one provider."""

    number: int
    provider: str
    channel: Channel
    address: str
    started_at: datetime
    until: datetime
    """After this moment, without an outcome, it is unknown."""
    outcome: str = ""
    """Empty while it runs; `accepted`, `moved`, or the cause of its failure."""
    reason: str = ""
    error: str = ""
    not_before: datetime | None = None
    """The provider asked not to be asked again before."""
    vendor_id: str = ""
    moved_to: str = ""
    """The address the vendor gave instead of ours; keep it for the next message."""
    why: str = ""
    """Why this provider was asked, as the route said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispatch:
    """One message to one recipient, and every exchange made for it."""

    key: str
    message: Message
    recipient: Recipient
    region: str = ""
    """Where the recipient's data has to stay, for a route that cares."""
    state: DispatchState = DispatchState.QUEUED
    submissions: tuple[Submission, ...] = ()
    reason: str = ""
    """Why it failed: `recipient_gone`, `expired`, …; empty while it has not."""
    rounds: int = 0
    """How often every channel was tried in vain."""
    retry_at: datetime | None = None
    """When a queued one is tried again."""
    created_at: datetime
    expires_at: datetime
    version: int = 0
    """Of the record, as read: every change is one more."""

    @property
    def provider(self) -> str:
        """Who took it; empty when nobody did."""
        return next((step.provider for step in reversed(self.submissions) if step.outcome == "accepted"), "")

    @property
    def route(self) -> tuple[str, ...]:
        """Every provider tried, in order, and what became of it: `telegram:throttled`, `smtp:accepted`."""
        return tuple(f"{step.provider}:{step.outcome or 'sending'}" for step in self.submissions)

    @property
    def moved(self) -> dict[Channel, str]:
        """Addresses of the recipient that changed, and what they are now."""
        return {step.channel: step.moved_to for step in self.submissions if step.moved_to}


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """A provider's word that it took the message."""

    vendor_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """A provider's word that the recipient has another address now; nothing was sent."""

    address: str
