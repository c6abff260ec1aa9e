"""What each vendor's sandbox is asked, and with what: reads only, and credentials from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """One GET; `{names}` in its path are settings, or what an earlier read kept."""

    path: str
    keep: Mapping[str, str] = field(default_factory=dict[str, str])
    """What later reads need of the answer: a name, and where it is, as in `data.0.id`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sandbox:
    """A vendor, as far as it is read."""

    vendor: str
    base_url: str = ""
    """Empty where everybody has a server of their own."""
    settings: Mapping[str, str]
    """What paths and headers name, and the environment variable it comes from."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    basic: tuple[str, str] | None = None
    """User and password of HTTP's basic authentication."""
    verdict: str = ""
    """The field that is true in every success, where a failure is answered 200 as well."""
    reads: tuple[Read, ...]


def _list_and_first(path: str, one: str, item: str, *, query: str) -> tuple[Read, Read]:
    """The list, then its first element by itself."""
    return Read(path=f"{path}?{query}", keep={one: item}), Read(path=f"{path}/{{{one}}}")


_STRIPE: Final = {
    "customer": "customers",
    "product": "products",
    "price": "prices",
    "intent": "payment_intents",
    "charge": "charges",
    "refund": "refunds",
    "session": "checkout/sessions",
    "dispute": "disputes",
    "event": "events",
    "endpoint": "webhook_endpoints",
}
_TWILIO: Final = "/2010-04-01/Accounts/{account_sid}"

SANDBOXES: Final[Mapping[str, Sandbox]] = {
    sandbox.vendor: sandbox
    for sandbox in (
        Sandbox(
            vendor="lnbits",
            settings={"invoice_key": "LNBITS_INVOICE_KEY"},
            headers={"x-api-key": "{invoice_key}"},
            reads=(
                *_list_and_first("/api/v1/payments", "payment", "0.payment_hash", query="limit=20"),
                Read(path="/api/v1/rate/CHF"),
            ),
        ),
        Sandbox(
            vendor="slack",
            base_url="https://slack.com",
            settings={"token": "SLACK_BOT_TOKEN"},
            headers={"authorization": "Bearer {token}"},
            verdict="ok",
            reads=(
                Read(path="/api/auth.test"),
                Read(path="/api/conversations.list?limit=20", keep={"channel": "channels.0.id"}),
                Read(path="/api/conversations.info?channel={channel}"),
                Read(path="/api/conversations.history?limit=20&channel={channel}"),
                Read(path="/api/users.list?limit=20"),
            ),
        ),
        Sandbox(
            vendor="stripe",
            base_url="https://api.stripe.com",
            settings={"api_key": "STRIPE_API_KEY"},
            headers={"authorization": "Bearer {api_key}"},
            reads=(
                Read(path="/v1/balance"),
                *(
                    read
                    for one, many in _STRIPE.items()
                    for read in _list_and_first(f"/v1/{many}", one, "data.0.id", query="limit=20")
                ),
            ),
        ),
        Sandbox(
            # It lists nothing: name a checkout that is there.
            vendor="swiss-bitcoin-pay",
            base_url="https://api.swiss-bitcoin-pay.ch",
            settings={"api_key": "SBP_API_KEY", "checkout": "SBP_CHECKOUT"},
            headers={"api-key": "{api_key}"},
            reads=(Read(path="/checkout/{checkout}"),),
        ),
        Sandbox(
            vendor="telegram",
            base_url="https://api.telegram.org",
            settings={"bot_token": "TELEGRAM_BOT_TOKEN"},
            verdict="ok",
            reads=(
                Read(path="/bot{bot_token}/getMe"),
                Read(path="/bot{bot_token}/getWebhookInfo"),
                Read(path="/bot{bot_token}/getMyCommands"),
            ),
        ),
        Sandbox(
            vendor="twilio",
            base_url="https://api.twilio.com",
            settings={"account_sid": "TWILIO_ACCOUNT_SID", "auth_token": "TWILIO_AUTH_TOKEN"},
            basic=("{account_sid}", "{auth_token}"),
            reads=(
                Read(path=f"{_TWILIO}.json"),
                Read(path=f"{_TWILIO}/Balance.json"),
                Read(path=f"{_TWILIO}/Messages.json?PageSize=20", keep={"message": "messages.0.sid"}),
                Read(path=f"{_TWILIO}/Messages/{{message}}.json"),
            ),
        ),
        Sandbox(
            # A new token ends the one before it at some accounts, so this takes one and asks for none.
            vendor="zoom",
            base_url="https://api.zoom.us",
            settings={"token": "ZOOM_ACCESS_TOKEN", "host": "ZOOM_HOST"},
            headers={"authorization": "Bearer {token}"},
            reads=(
                Read(path="/v2/users/{host}/meetings?page_size=30", keep={"meeting": "meetings.0.id"}),
                Read(path="/v2/meetings/{meeting}"),
            ),
        ),
    )
}
"""By vendor."""
