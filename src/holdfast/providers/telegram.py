"""Telegram: messages from a bot to people who started it, and to groups it is in."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self

from pydantic import BaseModel

from holdfast.errors import Rejected
from holdfast.http.session import Http
from holdfast.http.transports import HttpResponse
from holdfast.http.vendor import CAUSES
from holdfast.http.wire import VendorError, decode_json
from holdfast.notifications.models import Accepted, Message, Moved
from holdfast.notifications.provider import Capabilities, Wire
from holdfast.outcome import Cause, Effect
from holdfast.values import Secret, Secrets, require_env, secret_from_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import SharedSecretHeader

LONGEST_TEXT: Final = 4096
MOVED: Final = "recipient_moved"

# Descriptions "are subject to change" (https://core.telegram.org/bots/api#making-requests): they are compared in lower
# case and by their beginning, and what is not here is only rejected. Every 403 is about the recipient.
REASONS: Final[Mapping[str, str]] = {
    "forbidden": "recipient_gone",
    "bad request: chat not found": "recipient_gone",
    "bad request: private chat not found": "recipient_gone",
    "bad request: chat_id is empty": "recipient_gone",
    "bad request: user not found": "recipient_gone",
    "bad request: message thread not found": "recipient_gone",
    "bad request: message is too long": "content_invalid",
    "bad request: text is too long": "content_invalid",
    "bad request: message text is empty": "content_invalid",
    "bad request: can't parse entities": "content_invalid",
}
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)


class ResponseParameters(BaseModel):
    """What a failure says besides its description."""

    retry_after: float | None = None
    migrate_to_chat_id: int | None = None


class Failure(BaseModel):
    """An answer with `ok: false`; its HTTP status is `error_code` again."""

    description: str = ""
    parameters: ResponseParameters = ResponseParameters()


class Chat(BaseModel):
    """Where a message went."""

    id: int


class SentMessage(BaseModel):
    """A message, as Telegram writes it; its id is unique within the chat."""

    message_id: int
    chat: Chat


class Sent(BaseModel):
    """The answer to `sendMessage`."""

    ok: Literal[True]
    result: SentMessage


class Update(BaseModel, extra="allow"):
    """What a webhook brings: an id, and one field that names what happened."""

    update_id: int

    @property
    def kind(self) -> str:
        """`message`, `my_chat_member`, …, in Telegram's words."""
        return next(iter(self.model_extra or {}), "unknown")


@dataclass(frozen=True, kw_only=True)
class Telegram:
    """Tell people things with a Telegram bot.

    `token` comes from @BotFather; `webhook_secret` is the `secret_token` you gave to `setWebhook`. Addresses are chat
    ids, or `@channel` names.
    """

    token: Secret
    webhook_secret: Secrets | None = None
    name: str = "telegram"
    base_url: str = "https://api.telegram.org"
    """Or a Bot API server of your own."""

    # No method takes a key, none finds a message by one, and ordinary chats know no receipts: `ok` is the last word.
    capabilities = Capabilities(channel="telegram", max_length=LONGEST_TEXT, effect=Effect.ONCE, receipts=False)
    wire = Wire.HTTP
    causes = CAUSES | {
        404: Cause.CREDENTIAL,  # what a token of the wrong form gets: it is part of the path
        421: Cause.CREDENTIAL,  # a Bot API server that is not for this bot
    }
    scheme = SharedSecretHeader("x-telegram-bot-api-secret-token")

    @classmethod
    def from_env(cls) -> Self:
        """With TELEGRAM_BOT_TOKEN; where set, TELEGRAM_WEBHOOK_SECRET (newest first, by commas) and TELEGRAM_URL.

        Raises:
            MissingCredential: The token is unset or empty.
        """
        require_env(
            {
                "TELEGRAM_BOT_TOKEN": "the bot's token, from @BotFather",
            }
        )
        secret = os.environ.get("TELEGRAM_WEBHOOK_SECRET", "").strip()
        return cls(
            token=secret_from_env("TELEGRAM_BOT_TOKEN"),
            webhook_secret=Secrets.from_env("TELEGRAM_WEBHOOK_SECRET") if secret else None,
            base_url=os.environ.get("TELEGRAM_URL", "").strip() or cls.base_url,
        )

    @property
    def webhook_secrets(self) -> Secrets | None:
        return self.webhook_secret

    def headers(self) -> Mapping[str, str]:
        return {}

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"ok": false, "error_code": 429, "description": "…", "parameters": {"retry_after": 3}}`."""
        failure = Failure.model_validate(decode_json(response.content))
        moved_to = failure.parameters.migrate_to_chat_id
        if moved_to is not None:
            return VendorError(code=str(moved_to), message=failure.description, reason=MOVED)
        return VendorError(
            message=failure.description,
            reason=_reason(failure.description) if response.status in (400, 403) else "",
            retry_after=failure.parameters.retry_after,
        )

    async def send(self, http: Http, message: Message, address: str, *, key: str, effect: Effect) -> Accepted | Moved:
        """`sendMessage`, as plain text; a subject becomes the first line."""
        try:
            sent = await http.post(
                f"/bot{self.token.reveal()}/sendMessage",
                Sent,
                operation="send",
                effect=effect,
                json={"chat_id": int(address) if _NUMBER.fullmatch(address) else address, "text": _text(message)},
            )
        except Rejected as error:
            if error.reason == MOVED:  # the group became a supergroup: the same people under another id
                return Moved(address=error.code)
            raise
        return Accepted(vendor_id=f"{sent.result.chat.id}/{sent.result.message_id}")

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        """One update; its id grows by one each time, for each bot. We act on none yet: it is kept for `on_delivery`."""
        update = Update.model_validate(decode_json(request.body))
        return [Delivery(type=update.kind, dedup_key=str(update.update_id), recognised=False, body=request.body)]


def _text(message: Message) -> str:
    """With the subject where there is room for it: the text alone was measured against the limit."""
    whole = f"{message.subject}\n\n{message.text}" if message.subject else message.text
    return whole if len(whole) <= LONGEST_TEXT else message.text


def _reason(description: str) -> str:
    text = description.lower()
    return next((reason for beginning, reason in REASONS.items() if text.startswith(beginning)), "")
