"""Who is on call hears, by the notifications family, of what a person has to act on."""

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Final

from holdfast.errors import ConfigurationError
from holdfast.notifications.client import Notifications
from holdfast.notifications.models import Message, Recipient
from holdfast.payments.alarms import alarm_of
from holdfast.payments.events import PaymentDisputed, PaymentFlagged, RefundByHand, RefundFailed, SpendLimitReached
from holdfast.payments.spend import SpendLimit
from holdfast.queue.alarms import HANDLER
from holdfast.queue.dead_letters import DeadLetters
from holdfast.queue.events import Event, Subscriptions

TOLD: Final = (PaymentFlagged, PaymentDisputed, RefundByHand, RefundFailed, SpendLimitReached, DeadLetters)
Told = PaymentFlagged | PaymentDisputed | RefundByHand | RefundFailed | SpendLimitReached | DeadLetters


class OnCall:
    """A handler of its own: it runs in the workers, and what it cannot tell is tried again like every other job."""

    def __init__(
        self,
        recipient: Recipient,
        notifications: Notifications,
        limits: Mapping[str, Sequence[SpendLimit]],
        *,
        about: Collection[type[Event]] | None = None,
    ) -> None:
        """`about` are the events they are told of; None: all. Raises ConfigurationError: one could reach nobody."""
        self._recipient = recipient
        self._notifications = notifications
        self._about = [event for event in TOLD if about is None or event in about]
        if unknown := sorted(event.__name__ for event in about or () if event not in TOLD):
            known = ", ".join(event.__name__ for event in TOLD)
            raise ConfigurationError(f"on_call is told of {known}; not of {', '.join(unknown)}: take a handler for it")
        channels = {limit.channel for each in limits.values() for limit in each}
        for channel in sorted({"", *(channels if SpendLimitReached in self._about else ())}):
            self._check(channel)

    def listen(self, subscriptions: Subscriptions) -> None:
        """Be told of what happens."""
        for event in self._about:
            subscriptions.on(event, self.tell, name=HANDLER)

    async def tell(self, event: Told) -> None:
        """Send it, under a key of its own, so that it is told once however often the job runs."""
        alarm = event.alarm() if isinstance(event, DeadLetters) else alarm_of(event)
        to = self._reached_by(event.channel if isinstance(event, SpendLimitReached) else "")
        # With what is told to whom: once an address is mended, the job that tries again is another message.
        what = "\n".join([event.id, alarm.text, *(f"{one.channel} {one.value}" for one in to.addresses)])
        key = f"on_call-{sha256(what.encode()).hexdigest()[:32]}:{_subject(event)}"
        await self._notifications.send(Message(alarm.text, subject=alarm.subject), to=to, key=key)

    def _reached_by(self, channel: str) -> Recipient:
        """On that channel only; on any, where none is named, or the program names another one by now."""
        addresses = [address for address in self._recipient.addresses if channel in ("", address.channel)]
        return Recipient(*addresses) if addresses else self._recipient

    def _check(self, channel: str) -> None:
        addresses = {address.channel for address in self._recipient.addresses}
        if channel and channel not in addresses:
            raise ConfigurationError(f"a spend limit is to be told by {channel}, and on_call has no such address")
        spoken = {provider.capabilities.channel for provider in self._notifications.providers.values()}
        wanted = {channel} if channel else set[str](addresses)
        if not spoken & wanted:
            raise ConfigurationError(
                f"on_call cannot be told: no notification provider speaks {', '.join(sorted(wanted))}"
            )


def _subject(event: Told) -> str:
    """The payment's reference, with which the message is forgotten; what is about none has none."""
    return "" if isinstance(event, SpendLimitReached | DeadLetters) else event.reference
