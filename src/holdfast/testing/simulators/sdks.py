"""How a client is pointed at a simulated vendor: the official SDK where there is one, else holdfast's own settings."""

from collections.abc import Mapping
from typing import Final

_LINES: Final[Mapping[str, str]] = {
    "lnbits": "LNBITS_URL={url} LNBITS_INVOICE_KEY={invoice_key}",
    "slack": 'slack_sdk.WebClient(token="{token}", base_url="{url}/api/")',
    "smtp": "SMTP_URL={url}",
    "stripe": 'stripe.StripeClient("{api_key}", base_addresses={{"api": "{url}"}})',
    "swiss-bitcoin-pay": "SBP_URL={url} SBP_API_KEY={api_key} SBP_WEBHOOK_SECRET={webhook_secret}",
    "telegram": 'telegram.Bot("{bot_token}", base_url="{url}/bot", base_file_url="{url}/file/bot")',
    "twilio": 'client = twilio.rest.Client("{account_sid}", "{auth_token}"); client.api.base_url = "{url}"',
    "zoom": "ZOOM_URL={url}/v2 ZOOM_TOKEN_URL={url}/oauth/token",
}


def pointing(vendor: str, url: str, credentials: Mapping[str, str]) -> str:
    """The line of code, or the settings, that make a client call `url`; just the address where none is known."""
    return _LINES.get(vendor, "{url}").format(url=url, **credentials)
