"""slack_sdk: `WebClient` and `AsyncWebClient`."""

import re
from typing import Any

from holdfast.outcome import Cause, Effect
from holdfast.resilience.sdks.sdk import Asked, Row, Sdk, loaded

# Helpers that ask nothing, or are made of several exchanges, which no one guard can judge.
_NO_EXCHANGE = frozenset({"chat_stream", "files_upload_v2", "validate_response"})
_LOOKS = re.compile(
    r"(?:.*_)?(?:(?:get|info|list|lookup|search|history|replies|members|identity|test)[A-Za-z]*|[a-z]+Info|[a-z]+Logs)"
    r"|search_.+|users_conversations"
)


class SlackSdk(Sdk):
    """Slack's own clients: Slack knows no idempotency key, so whatever is no look-up is done once."""

    name = "slack_sdk"
    clients = frozenset({"slack_sdk.BaseClient", "slack_sdk.AsyncBaseClient", "slack_sdk.LegacyBaseClient"})
    packages = frozenset({"slack_sdk", "aiohttp", "urllib", "http"})
    status, code, headers = ("response", "status_code"), ("response", "data", "error"), ("response", "headers")
    rows = (
        # Slack fails with 200 and a word: https://docs.slack.dev/reference/methods/chat.postMessage#errors
        Row("slack_sdk.SlackApiError", Cause.THROTTLED, codes=frozenset({"ratelimited", "rate_limited"})),
        Row(
            "slack_sdk.SlackApiError",
            Cause.UNKNOWN,
            codes=frozenset({"fatal_error", "internal_error", "request_timeout", "service_unavailable"}),
        ),
        Row(
            "slack_sdk.SlackApiError",
            Cause.CREDENTIAL,
            codes=frozenset(
                {
                    "account_inactive",
                    "ekm_access_denied",
                    "invalid_auth",
                    "missing_scope",
                    "no_permission",
                    "not_authed",
                    "org_login_required",
                    "token_expired",
                    "token_revoked",
                }
            ),
        ),
        # Any other word is a refusal; what is no word is an answer that could not be read.
        Row("slack_sdk.SlackApiError", Cause.UNKNOWN, status=200, codes=frozenset({""})),
        Row("slack_sdk.SlackApiError", Cause.REJECTED, status=200),
        # Found before anything is sent.
        Row("slack_sdk.SlackRequestError", None),
        Row("slack_sdk.SlackObjectFormationError", None),
        Row("slack_sdk.SlackClientConfigurationError", None),
        Row("slack_sdk.BotUserAccessError", None),
    )

    def is_exchange(self, owner: object, name: str) -> bool:
        return name not in _NO_EXCHANGE and callable(getattr(type(owner), name, None))

    def operation(self, asked: Asked) -> str:
        name = str(asked.argument("api_method")) if asked.name == "api_call" else asked.name
        return name.replace(".", "_")

    def effect(self, asked: Asked) -> Effect:
        return Effect.READ if _LOOKS.fullmatch(self.operation(asked)) else Effect.ONCE

    def scope(self, asked: Asked) -> str:
        return self.operation(asked)  # limits are per method: https://docs.slack.dev/apis/web-api/rate-limits

    def retries(self, client: Any) -> str:
        return f"{type(client).__name__}(…, retry_handlers=[])" if client.retry_handlers else ""

    def failed(self, text: str) -> Exception:
        return loaded("slack_sdk.errors", "SlackClientError")(text)
