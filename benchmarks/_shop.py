"""A hub whose vendor signs as Stripe does, for `holdfast receive benchmarks._shop:hub`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from benchmarks._load import SECRET
from holdfast import BacklogLimits, Holdfast, Secrets
from holdfast.http.vendor import HttpDefaults
from holdfast.payments.provider import Capabilities
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacPairs


class Event(BaseModel):
    """An event, as Stripe writes it."""

    id: str
    type: str
    data: "Data"


class Data(BaseModel):
    """What it is about."""

    object: "Object"


class Object(BaseModel):
    """A PaymentIntent, of which only this is looked at: the rest is fetched."""

    id: str
    metadata: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class StripeLike(HttpDefaults):
    """Takes webhooks that are signed as Stripe's are."""

    name: str = "stripe-like"
    base_url: str = "http://127.0.0.1:1"
    capabilities = Capabilities(currencies=None)
    scheme = HmacPairs("stripe-signature")
    webhook_secrets = Secrets(SECRET)

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        event = Event.model_validate_json(request.body)
        about = event.data.object
        return [
            Delivery(
                type=event.type,
                dedup_key=event.id,
                vendor_id=about.id,
                reference=about.metadata.get("reference", ""),
                body=request.body,
            )
        ]

    async def create(self, http: Any, request: Any) -> Any:
        raise NotImplementedError

    async def fetch(self, http: Any, vendor_id: str) -> Any:
        raise NotImplementedError


hub = Holdfast(
    store=os.environ.get("BENCHMARK_STORE", "memory://"),
    secret=Secrets("a secret of the benchmark's own"),
    public_url="http://127.0.0.1/webhooks",
    payments=[StripeLike()],
    backlog=BacklogLimits(hard=10_000_000),  # nobody works on them
)
