"""What a notification provider is: facts, and a verb that makes one exchange."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from holdfast.notifications.models import Accepted, Channel, Message, Moved
from holdfast.outcome import Effect

WireT = TypeVar("WireT", contravariant=True)


class Wire(StrEnum):
    """The kind of connection a provider speaks; the runtime opens it and hands it in."""

    HTTP = "http"
    SMTP = "smtp"
    NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What an account at a vendor can do, as data."""

    channel: Channel
    max_length: int
    """Characters of text it takes in one message."""
    effect: Effect = Effect.ONCE
    """What sending the same twice does; only vendors with a deduplication key are KEYED."""
    receipts: bool = False


class NotificationProvider(Protocol[WireT]):
    """One account at one vendor that tells people things, over the wire it speaks (HTTP, SMTP)."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def wire(self) -> Wire: ...

    async def send(
        self, wire: WireT, /, message: Message, address: str, *, key: str, effect: Effect
    ) -> Accepted | Moved:
        """Hand the message over: one exchange, declared as `effect`; `key` names the dispatch.

        Raises:
            CallFailed: By cause; `reason` says `recipient_gone` where the address will not work again.
            InvalidInput: This message, or this address, cannot be written the vendor's way; nothing was sent.
        """
        ...
