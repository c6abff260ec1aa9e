"""What a provider says about its incoming requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import getattr_static
from typing import Final, Protocol, TypeGuard, runtime_checkable

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


VERBS: Final = ("name", "scheme", "webhook_secrets", "handshake", "parse")
_ABSENT: Final = object()


def receives_webhooks(provider: object) -> TypeGuard[ReceivesWebhooks]:
    """Whether it is a `ReceivesWebhooks`, without asking it for anything.

    On Python 3.11 `isinstance` runs properties. Where secrets come from may be slow or down, and that is for the moment
    in which a request is verified: the vendor comes again. A hub is made, and a payment too, without them. Only what
    stands for another, as a proxy does, has to be asked.
    """
    stands_for_another = hasattr(type(provider), "__getattr__")
    return all(
        getattr_static(provider, verb, _ABSENT) is not _ABSENT or (stands_for_another and hasattr(provider, verb))
        for verb in VERBS
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DoorFacts:
    """How a vendor reads what it is answered, and what it sends, where that is not as with most."""

    accepted: int = 200
    """It is ours now, and the vendor is done."""
    refused: int = 401
    """It was not believed."""
    later: int = 503
    """The vendor is to come again; `Retry-After` says when."""
    max_body: int | None = None
    """Bytes of one body; None: as many as from others."""


@runtime_checkable
class SupportsDoorFacts(Protocol):
    """A provider whose vendor differs from most in how it calls us."""

    @property
    def door(self) -> DoorFacts: ...


@runtime_checkable
class SupportsProbes(Protocol):
    """A provider whose vendor looks with GET or HEAD whether somebody is there, before it posts anything."""

    def probe(self, request: RawRequest) -> Answer | None:
        """The answer; None: it is no such question. Nothing in the request is proven."""
        ...
