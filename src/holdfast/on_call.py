"""Who is on call hears, by the notifications family, of limits that were reached."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from holdfast.errors import ConfigurationError
from holdfast.notifications.client import Notifications
from holdfast.notifications.models import Message, Recipient
from holdfast.payments.events import SpendLimitReached
from holdfast.payments.spend import SpendLimit
from holdfast.queue.events import Subscriptions

HANDLER: Final = "holdfast:on_call"


class OnCall:
    """A handler of its own: it runs in the workers, and what it cannot tell is tried again like every other job."""

    def __init__(
        self, recipient: Recipient, notifications: Notifications, limits: Mapping[str, Sequence[SpendLimit]]
    ) -> None:
        """Raises ConfigurationError: a limit could reach nobody."""
        self._recipient = recipient
        self._notifications = notifications
        for channel in sorted({limit.channel for each in limits.values() for limit in each}):
            self._check(channel)

    def listen(self, subscriptions: Subscriptions) -> None:
        """Be told of what happens."""
        subscriptions.on(SpendLimitReached, self.tell, name=HANDLER)

    async def tell(self, reached: SpendLimitReached) -> None:
        """Send it, under a key of its own, so that it is told once however often the job runs."""
        text = f"{reached.provider} kept {reached.spent} on {reached.day}: your limit of {reached.limit} is reached."
        message = Message(text, subject=f"Fees of {reached.provider}")
        key = f"on_call:{sha256(reached.id.encode()).hexdigest()[:32]}"
        await self._notifications.send(message, to=self._reached_by(reached.channel), key=key)

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
