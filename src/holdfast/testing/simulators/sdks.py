"""How a client is pointed at a simulated vendor: the official SDK where there is one, else holdfast's own settings."""

from collections.abc import Mapping
from typing import Final

_LINES: Final[Mapping[str, str]] = {
    "btcpay": "BTCPAY_URL={url} BTCPAY_STORE_ID={store_id} BTCPAY_API_KEY={api_key} "
    "BTCPAY_WEBHOOK_SECRET={webhook_secret} BTCPAY_WEBHOOK_ID={webhook_id}",
    "coinbase": "COINBASE_URL={url}/api/v1 CDP_API_KEY_ID={api_key_id} CDP_API_KEY_SECRET={api_key_secret} "
    "COINBASE_WEBHOOK_SECRET={webhook_secret}",
    "lnbits": "LNBITS_URL={url} LNBITS_INVOICE_KEY={invoice_key}",
    "lnd": "LND_URL={url} LND_MACAROON={macaroon} LND_PREIMAGE_KEY={preimage_key} LND_NETWORK={network}",
    "mtn-momo": "MOMO_URL={url} MOMO_SUBSCRIPTION_KEY={subscription_key} MOMO_API_USER={api_user} "
    "MOMO_API_KEY={api_key} MOMO_ENVIRONMENT={environment} MOMO_CURRENCY={currency}",
    "opennode": "OPENNODE_URL={url}/v1 OPENNODE_API_KEY={api_key}",
    "orange-money": "ORANGE_URL={url} ORANGE_CLIENT_ID={client_id} ORANGE_CLIENT_SECRET={client_secret} "
    "ORANGE_MERCHANT_KEY={merchant_key} ORANGE_COUNTRY={country} ORANGE_CURRENCY={currency}",
    "paypal": "PAYPAL_URL={url} PAYPAL_CLIENT_ID={client_id} PAYPAL_CLIENT_SECRET={client_secret} "
    "PAYPAL_WEBHOOK_ID={webhook_id} PAYPAL_MERCHANT_ID={merchant_id}",
    "paystack": "PAYSTACK_URL={url} PAYSTACK_SECRET_KEY={api_key} PAYSTACK_EMAIL={email}",
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
