"""Telegram, simulated: one bot, its chats, who blocked it, and limits it means."""

import json
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import ClassVar, Final
from urllib.parse import parse_qsl

from holdfast.clock import Clock
from holdfast.testing.faults import Faults
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.simulator import Headers, Request, Response, Simulator, Webhook, route

LONGEST_TEXT: Final = 4096
_BOT: Final = 4_711_000_001


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What this server lets through within any trailing window, as Telegram's FAQ has it; zero switches one off."""

    bot: int = 30
    chat: int = 1
    """In a chat with one person."""
    group: int = 20
    window: float = 1.0
    """Seconds, for `bot` and `chat`."""
    group_window: float = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Posted:
    """A message that reached its chat."""

    id: int
    chat: str
    text: str
    at: datetime


class TelegramSimulator(Simulator):
    """The Bot API of one bot, under `/bot{token}/`; every chat exists unless `known` names those that do.

    In the ledger a message's key is the chat it went to. With a `webhook_url`, blocking and unblocking owe a
    `my_chat_member` update, and `write` a `message`.
    """

    vendor: ClassVar[str] = "telegram"
    retries: ClassVar[tuple[float, ...]] = (0, 1, 2, 4, 8, 16, 32, 60)
    bot_token: ClassVar[str] = f"{_BOT}:AAF-simulated_token_of_no_bot_at_all"

    def __init__(
        self,
        *,
        seed: int = 0,
        ledger: Ledger | None = None,
        faults: Faults | None = None,
        clock: Clock | None = None,
        webhook_secret: str = "",
        webhook_url: str = "",
        limits: Limits = Limits(),
        known: set[str] | None = None,
    ) -> None:
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        self.limits = limits
        self.known = known
        self.messages: list[Posted] = []
        """Every message that was sent, in order."""
        self._forget()

    @property
    def credentials(self) -> Mapping[str, str]:
        return {"bot_token": self.bot_token, "webhook_secret": self.webhook_secret}

    def reset(self) -> None:
        super().reset()
        self.messages.clear()
        self._forget()

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        """No signature: the secret itself."""
        return (("x-telegram-bot-api-secret-token", secret),)

    def not_found(self, request: Request) -> Response:
        return _failure(404, "Not Found")

    # The Bot API

    @route("POST", "/bot{token}/sendMessage", "messages.send")
    def send_message(self, request: Request) -> Response:
        asked = _asked(request)
        chat, text = str(asked.get("chat_id", "")), asked.get("text")
        refusal = (
            self._unauthorized(request)
            or self._too_many_of_all()
            or self._no_such_chat(chat)
            or self._unwritable(text)
            or self._too_many_in(chat)
        )
        return refusal or self._post(chat, str(text))

    @route("POST", "/bot{token}/getMe", "getMe")
    def get_me(self, request: Request) -> Response:
        return self._unauthorized(request) or _result(self._bot())

    @route("GET", "/bot{token}/getMe", "getMe")
    def read_me(self, request: Request) -> Response:
        return self.get_me(request)

    @route("POST", "/bot{token}/setWebhook", "setWebhook")
    def set_webhook(self, request: Request) -> Response:
        asked = _asked(request)
        refusal = self._unauthorized(request)
        if refusal is None:
            self.webhook_url = str(asked.get("url", ""))
            self.webhook_secret = str(asked.get("secret_token", "")) or self.webhook_secret
        return refusal or _result(True)

    # What people do

    def block(self, chat: str | int) -> None:
        """The person blocks the bot, or the group throws it out."""
        self.blocked.add(str(chat))
        self._update("my_chat_member", str(chat), self._membership(str(chat), "kicked"))

    def unblock(self, chat: str | int) -> None:
        """They start it again."""
        self.blocked.discard(str(chat))
        self._update("my_chat_member", str(chat), self._membership(str(chat), "member"))

    def deactivate(self, chat: str | int) -> None:
        """The person deletes their account."""
        self.deactivated.add(str(chat))

    def migrate(self, group: str | int, supergroup: str | int) -> None:
        """The group becomes a supergroup, with another id."""
        self.migrated[str(group)] = int(supergroup)

    def write(self, chat: str | int, text: str) -> None:
        """The person writes to the bot."""
        message = {"message_id": 1, "date": self._unix(), "chat": _chat(str(chat)), "text": text}
        self._update("message", str(chat), message)

    # How

    def _forget(self) -> None:
        self.blocked: set[str] = set()
        self.deactivated: set[str] = set()
        self.migrated: dict[str, int] = {}
        self._updates = 0
        self._last_id: defaultdict[str, int] = defaultdict(int)
        self._sent: deque[float] = deque()
        self._sent_in: defaultdict[str, deque[float]] = defaultdict(deque)

    def _unauthorized(self, request: Request) -> Response | None:
        token = request.params["token"]
        if ":" not in token:
            return _failure(404, "Not Found")
        return None if token == self.bot_token else _failure(401, "Unauthorized")

    def _no_such_chat(self, chat: str) -> Response | None:
        if not chat:
            return _failure(400, "Bad Request: chat_id is empty")
        if chat in self.migrated:
            text = "Bad Request: group chat was upgraded to a supergroup chat"
            return _failure(400, text, migrate_to_chat_id=self.migrated[chat])
        if self.known is not None and chat not in self.known:
            return _failure(400, "Bad Request: chat not found")
        if chat in self.deactivated:
            return _failure(403, "Forbidden: user is deactivated")
        if chat in self.blocked:
            is_group = chat.startswith("-")
            text = "bot was kicked from the group chat" if is_group else "bot was blocked by the user"
            return _failure(403, f"Forbidden: {text}")
        return None

    def _unwritable(self, text: object) -> Response | None:
        if not isinstance(text, str) or not text.strip():
            return _failure(400, "Bad Request: message text is empty")
        return _failure(400, "Bad Request: message is too long") if len(text) > LONGEST_TEXT else None

    def _too_many_of_all(self) -> Response | None:
        return self._throttled(self._sent, self.limits.bot, self.limits.window)

    def _too_many_in(self, chat: str) -> Response | None:
        if chat.startswith("-"):
            return self._throttled(self._sent_in[chat], self.limits.group, self.limits.group_window)
        return self._throttled(self._sent_in[chat], self.limits.chat, self.limits.window)

    def _throttled(self, sent: deque[float], limit: int, window: float) -> Response | None:
        now = self.clock.monotonic()
        while sent and sent[0] <= now - window:
            sent.popleft()
        if not limit or len(sent) < limit:
            return None
        # Whole seconds, as they count; rounded up, so that whoever waits as told is let through.
        seconds = max(1, ceil(sent[-limit] + window - now))
        return _failure(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)

    def _post(self, chat: str, text: str) -> Response:
        now = self.clock.monotonic()
        self._sent.append(now)
        self._sent_in[chat].append(now)
        self._last_id[chat] += 1
        posted = Posted(id=self._last_id[chat], chat=chat, text=text, at=self.clock.now())
        self.messages.append(posted)
        facts = {"address": chat, "text": text}
        self.ledger.record(Kind.MESSAGE, vendor=self.vendor, id=f"{chat}/{posted.id}", key=chat, facts=facts)
        message = {
            "message_id": posted.id,
            "from": self._bot(),
            "chat": _chat(chat),
            "date": self._unix(),
            "text": text,
        }
        return _result(message)

    def _bot(self) -> dict[str, object]:
        return {"id": _BOT, "is_bot": True, "first_name": "Simulated", "username": "simulated_bot"}

    def _membership(self, chat: str, status: str) -> dict[str, object]:
        before = "member" if status == "kicked" else "kicked"
        return {
            "chat": _chat(chat),
            "from": {"id": _chat(chat)["id"], "is_bot": False, "first_name": "Somebody"},
            "date": self._unix(),
            "old_chat_member": {"user": self._bot(), "status": before},
            "new_chat_member": {"user": self._bot(), "status": status},
        }

    def _update(self, kind: str, chat: str, facts: Mapping[str, object]) -> None:
        if not self.webhook_url:
            return
        self._updates += 1
        body = json.dumps({"update_id": 900_000_000 + self._updates, kind: facts}, separators=(",", ":")).encode()
        self.owe(
            Webhook(vendor=self.vendor, url=self.webhook_url, event=kind, about=str(self._updates), key=chat, body=body)
        )

    def _unix(self) -> int:
        return int(self.clock.now().timestamp())


def _asked(request: Request) -> Mapping[str, object]:
    """The arguments: JSON or a form, as the sender likes."""
    if (request.header("content-type") or "").startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(request.body.decode("utf-8", "replace")))
    return request.json()


def _chat(chat: str) -> dict[str, object]:
    if chat.startswith("@"):
        return {"id": -1_000_000_000_001, "type": "channel", "username": chat[1:], "title": chat[1:]}
    number = int(chat) if chat.lstrip("-").isdigit() else 0
    if number < 0:
        return {"id": number, "type": "supergroup" if chat.startswith("-100") else "group", "title": "A group"}
    return {"id": number, "type": "private", "first_name": "Somebody"}


def _result(result: object) -> Response:
    return Response.json({"ok": True, "result": result})


def _failure(status: int, description: str, **parameters: int) -> Response:
    """The HTTP status is the error's code again; parameters only where there are some."""
    body: dict[str, object] = {"ok": False, "error_code": status, "description": description}
    return Response.json(body | ({"parameters": parameters} if parameters else {}), status=status)
