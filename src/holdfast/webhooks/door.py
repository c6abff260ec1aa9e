"""What a provider says about its incoming requests."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from holdfast.values import Secrets
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import Scheme


@runtime_checkable
class ReceivesWebhooks(Protocol):
    """A provider whose vendor calls us back."""

    @property
    def name(self) -> str: ...

    @property
    def scheme(self) -> Scheme | None:
        """How the vendor signs; None: it does not, and the URL it was given carries our own MAC."""
        ...

    @property
    def webhook_secrets(self) -> Secrets | None:
        """What `scheme` is verified with; None for an unsigned door."""
        ...

    def handshake(self, request: RawRequest) -> Answer | None:
        """The answer to a verified request that is a set-up question, not a delivery."""
        ...

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        """The deliveries in a verified request. Raises ValueError: it cannot be read, and is kept as `unparsed`."""
        ...
