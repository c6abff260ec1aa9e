"""Telegram, simulated: one bot, its chats, who blocked it, and limits it means."""

import json
import re
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from math import ceil, isfinite
from typing import ClassVar, Final, TypeVar, cast
from urllib.parse import unquote, urlsplit

from holdfast.clock import Clock
from holdfast.testing.faults import Faults, Status
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.forms import media_type, multipart, pairs
from holdfast.testing.simulators.rates import SlidingWindow
from holdfast.testing.simulators.simulator import Exchange, Headers, Reply, Request, Response, Simulator, Webhook, route
from holdfast.testing.simulators.telegram_text import Entity, Unreadable, read, utf16

LONGEST_TEXT: Final = 4096
LONGEST_CAPTION: Final = 1024
LONGEST_BUTTON: Final = 64
LARGEST_PHOTO: Final = 10 * 1024 * 1024
POLL_PAUSE: Final = 0.2
"""How long a poll that finds nothing is held, at most: it may end before its timeout."""
FORGOTTEN_AFTER: Final = 86_400
QUIET: Final = frozenset(("chat_member", "message_reaction", "message_reaction_count"))
"""Updates that come only to a bot that asks for them by name."""
FILES: Final[Mapping[str, str]] = {
    "sendphoto": "photo",
    "senddocument": "document",
    "sendvideo": "video",
    "sendaudio": "audio",
    "sendvoice": "voice",
    "sendanimation": "animation",
}
_BOT: Final = 4_711_000_001

Json = dict[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What this server lets through within any trailing window, as Telegram's FAQ has it; zero switches one off."""

    bot: int = 30
    chat: int = 1
    """In a chat with one person."""
    group: int = 20
    edits: int = 20
    """In a group."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a method is asked: texts by name, and files."""

    fields: Mapping[str, object]
    files: Mapping[str, tuple[str, bytes]]

    def text(self, name: str) -> str:
        """As a text; empty where it was not sent."""
        value = self.fields.get(name)
        return "" if value is None else str(value)

    def json(self, name: str) -> object:
        """As JSON, which a form sends as text.

        Raises:
            Refused: It is none.
        """
        value = self.fields.get(name)
        if not isinstance(value, str):
            return value
        try:
            found: object = json.loads(value) if value else None
        except ValueError:
            raise Refused(400, f"Bad Request: can't parse {name.replace('_', ' ')} JSON object") from None
        return found

    def number(self, name: str) -> float:
        """As a number; 0 where it is none, as Telegram takes it."""
        try:
            found = float(self.text(name))
        except ValueError:
            return 0
        return found if isfinite(found) else 0

    def many(self, name: str) -> list[object]:
        """As a JSON list; empty where it was not sent.

        Raises:
            Refused: It is none.
        """
        found: object = self.json(name) or cast(list[object], [])
        if not isinstance(found, list):
            raise Refused(400, f"Bad Request: can't parse {name.replace('_', ' ')} JSON object")
        return cast(list[object], found)

    def flag(self, name: str) -> bool:
        """As yes or no."""
        return self.text(name).lower() in ("true", "1")


class Refused(Exception):
    """Telegram says no."""

    def __init__(self, status: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.response = _failure(status, description, **parameters)


TelegramT = TypeVar("TelegramT", bound="TelegramSimulator")
_Method = Callable[[TelegramT, Request], Response]


def bot_method(name: str, operation: str = "") -> Callable[[_Method[TelegramT]], _Method[TelegramT]]:
    """The Bot API's method of that name, by GET and by POST."""

    def mark(method_of: _Method[TelegramT]) -> _Method[TelegramT]:
        path, planned = f"/bot{{token}}/{name}", operation or name
        return route("GET", path, planned)(route("POST", path, planned)(method_of))

    return mark


class TelegramSimulator(Simulator):
    """The Bot API of one bot, under `/bot{token}/`; every chat exists unless `known` names those that do.

    In the ledger a message's key is the chat it went to. What people do owes an update to the `webhook_url`; without
    one, updates wait for `getUpdates`.
    """

    vendor: ClassVar[str] = "telegram"
    hosts: ClassVar[tuple[str, ...]] = ("api.telegram.org",)
    retries: ClassVar[tuple[float, ...]] = (0, 2, 4, 8, 16, 32, 64, *[90] * 956)
    """At once, then doubling, and every one to two minutes until the update is a day old."""
    patience: ClassVar[float] = 60
    largest_body: ClassVar[int] = 51 * 1024 * 1024
    bot_token: ClassVar[str] = f"{_BOT}:AAF-simulated_token_of_no_bot_at_all"

    def __init__(
        self,
        *,
        seed: int = 0,
        ledger: Ledger | None = None,
        faults: Faults | None = None,
        clock: Clock | None = None,
        journal: Journal | None = None,
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
            journal=journal,
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

    def retry_after(self, number: int, reply: Reply) -> float | None:
        """A receiver that says when is asked then, but within the hour."""
        after, asked = super().retry_after(number, reply), reply.header("retry-after") or ""
        return min(float(asked), 3600) if after is not None and asked.isdigit() else after

    # Every call

    def answer(self, request: Request) -> Response:
        try:
            return super().answer(request)
        except Refused as refused:
            return refused.response

    def exchange(self, request: Request) -> Exchange:
        """The same; a poll that finds nothing is held for a while."""
        exchange = super().exchange(request)
        nothing = exchange.response is not None and exchange.response.body == _result([]).body
        if nothing and self.operation(request) == "getUpdates":
            patience = max(0, _asked(request).number("timeout"))
            return replace(exchange, delay=exchange.delay + min(patience, POLL_PAUSE))
        return exchange

    def limited(self, wait: float) -> Response:
        """Whole seconds, as they count; rounded up, so that whoever waits as told is let through."""
        return self.failure(Status(429, retry_after=max(1, ceil(wait))))

    def failure(self, fault: Status) -> Response:
        """How long to wait is in the body, not in a header."""
        if fault.status == 429:
            seconds = ceil(fault.retry_after or 1)
            return _failure(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)
        names = {500: "Internal Server Error", 502: "Bad Gateway", 504: "Gateway Timeout"}
        return _failure(fault.status, names.get(fault.status, "Internal Server Error"))

    def not_found(self, request: Request) -> Response:
        return _failure(404, "Not Found")

    def _match(self, request: Request) -> tuple[str, str, Mapping[str, str]] | None:
        """The methods' names may be written in any case."""
        for method, pattern, operation, name in self._routes:
            found = re.fullmatch(pattern.pattern, request.path, re.IGNORECASE) if method == request.method else None
            if found:
                return operation, name, found.groupdict()
        return None

    # The bot and its updates

    @bot_method("getMe")
    def get_me(self, request: Request) -> Response:
        self._authorize(request)
        more = {"can_join_groups": True, "can_read_all_group_messages": False, "supports_inline_queries": False}
        return _result({**self._bot(), **more, "can_connect_to_business": False, "has_main_web_app": False})

    @bot_method("logOut")
    @bot_method("close")
    @bot_method("sendChatAction")
    @bot_method("answerCallbackQuery")
    def agree(self, request: Request) -> Response:
        """Nothing comes of it here."""
        self._authorize(request)
        return _result(True)

    @bot_method("setMyCommands")
    def set_commands(self, request: Request) -> Response:
        self._authorize(request)
        self.commands[:] = cast(list[Json], _asked(request).many("commands"))
        return _result(True)

    @bot_method("getMyCommands")
    def get_commands(self, request: Request) -> Response:
        self._authorize(request)
        return _result(self.commands)

    @bot_method("setWebhook")
    def set_webhook(self, request: Request) -> Response:
        self._authorize(request)
        asked = _asked(request)
        url = asked.text("url")
        parts = urlsplit(url)
        if url and parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
            raise Refused(400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook")
        secret = asked.text("secret_token")
        if not re.fullmatch(r"[A-Za-z0-9_-]{0,256}", secret):
            raise Refused(400, "Bad Request: secret token contains unallowed characters")
        if asked.flag("drop_pending_updates"):
            self.pending.clear()
        self._allow(asked)
        self.webhook_url, self.webhook_secret = url, secret or self.webhook_secret
        while url and self.pending:
            self._owe(self.pending.popleft()[1])
        return _result(True)

    @bot_method("deleteWebhook")
    def delete_webhook(self, request: Request) -> Response:
        self._authorize(request)
        if _asked(request).flag("drop_pending_updates"):
            self.pending.clear()
            self.outbox.clear()
        self.webhook_url = ""
        return _result(True)

    @bot_method("getWebhookInfo")
    def webhook_info(self, request: Request) -> Response:
        self._authorize(request)
        waiting = len(self.outbox) if self.webhook_url else len(self.pending)
        told: Json = {"url": self.webhook_url, "has_custom_certificate": False, "pending_update_count": waiting}
        return _result(told | ({"max_connections": 40, "ip_address": "127.0.0.1"} if self.webhook_url else {}))

    @bot_method("getUpdates")
    def get_updates(self, request: Request) -> Response:
        """Those from `offset` on; the ones before are confirmed by it."""
        self._authorize(request)
        if self.webhook_url:
            text = "can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
            raise Refused(409, f"Conflict: {text}")
        asked = _asked(request)
        offset, limit = int(asked.number("offset")), int(asked.number("limit") or 100)
        self._allow(asked)
        while offset < 0 and len(self.pending) > -offset:
            self.pending.popleft()
        while offset > 0 and self.pending and int(str(self.pending[0][1]["update_id"])) < offset:
            self.pending.popleft()
        return _result([update for _, update in list(self.pending)[: max(1, min(limit, 100))]])

    # Messages

    @bot_method("sendMessage", "messages.send")
    def send_message(self, request: Request) -> Response:
        chat, asked = self._chat_to_write_to(request)
        text, entities = self._readable(asked, "text", "parse_mode", "entities")
        self._check_text(text)
        self._pass_chat(chat)
        return _result(self._post(chat, text, {"text": text, **_some(entities=entities)}, asked))

    @bot_method("sendPhoto", "messages.send")
    @bot_method("sendDocument", "messages.send")
    @bot_method("sendVideo", "messages.send")
    @bot_method("sendAudio", "messages.send")
    @bot_method("sendVoice", "messages.send")
    @bot_method("sendAnimation", "messages.send")
    def send_file(self, request: Request) -> Response:
        """An upload, the address of a file, or the id of one sent before."""
        chat, asked = self._chat_to_write_to(request)
        kind = FILES[request.path.rpartition("/")[2].lower()]
        content = {**self._file(kind, asked.text(kind), asked), **self._caption(asked)}
        self._pass_chat(chat)
        return _result(self._post(chat, asked.text("caption"), content, asked))

    @bot_method("sendMediaGroup", "messages.send")
    def send_album(self, request: Request) -> Response:
        """Each of its parts is a message, and counts as one."""
        chat, asked = self._chat_to_write_to(request)
        media = [cast(Json, one) for one in asked.many("media") if isinstance(one, dict)]
        if not 2 <= len(media) <= 10:
            raise Refused(400, "Bad Request: there must be 2-10 media in the album")
        parts = [
            {**self._file(str(one.get("type")), str(one.get("media")), asked), **_some(caption=one.get("caption"))}
            for one in media
        ]
        self._pass_chat(chat)
        album = str(self.random().getrandbits(53))
        grouped: list[Json] = [{**part, "media_group_id": album} for part in parts]
        return _result([self._post(chat, str(part.get("caption", "")), part, asked) for part in grouped])

    @bot_method("sendLocation", "messages.send")
    def send_location(self, request: Request) -> Response:
        chat, asked = self._chat_to_write_to(request)
        where = {name: asked.number(name) for name in ("latitude", "longitude")}
        self._pass_chat(chat)
        return _result(self._post(chat, "", {"location": where}, asked))

    @bot_method("forwardMessage", "messages.send")
    @bot_method("copyMessage", "messages.send")
    def send_again(self, request: Request) -> Response:
        """The content of another message; a copy's answer is its id alone."""
        chat, asked = self._chat_to_write_to(request)
        copies = request.path.lower().endswith("copymessage")
        verb = "copy" if copies else "forward"
        original = self._stored(asked.text("from_chat_id"), asked.text("message_id"), verb)
        content = {name: value for name, value in original.items() if name not in _ENVELOPE}
        if not copies:
            origin = {"type": "user", "sender_user": original.get("from", self._bot()), "date": original["date"]}
            content["forward_origin"] = origin
        self._pass_chat(chat)
        sent = self._post(chat, str(content.get("text", "")), content, asked)
        return _result({"message_id": sent["message_id"]} if copies else sent)

    @bot_method("editMessageText", "messages.update")
    @bot_method("editMessageCaption", "messages.update")
    @bot_method("editMessageReplyMarkup", "messages.update")
    def edit_message(self, request: Request) -> Response:
        chat, asked = self._chat_to_write_to(request)
        message = self._stored(chat, asked.text("message_id"), "edit")
        if cast(Json, message.get("from", {})).get("id") != _BOT:
            raise Refused(400, "Bad Request: message can't be edited")
        what = request.path.lower().rpartition("editmessage")[2]
        before = dict(message)
        if what == "text":
            text, entities = self._readable(asked, "text", "parse_mode", "entities")
            self._check_text(text)
            message |= {"text": text, **_some(entities=entities)}
        elif what == "caption":
            message |= self._caption(asked)
        message.pop("reply_markup", None)
        message |= self._markup(asked)
        if {**before, "edit_date": 0} == {**message, "edit_date": 0}:
            text = "specified new message content and reply markup are exactly the same as a current content and reply"
            raise Refused(400, f"Bad Request: message is not modified: {text} markup of the message")
        if chat.startswith("-"):
            self._pass(self._edits_in[chat])
        message["edit_date"] = self._unix()
        return _result(message)

    @bot_method("deleteMessage", "messages.delete")
    def delete_message(self, request: Request) -> Response:
        chat, asked = self._chat_to_write_to(request)
        message = self._stored(chat, asked.text("message_id"), "delete")
        if int(str(message["date"])) < self._unix() - 2 * FORGOTTEN_AFTER:
            raise Refused(400, "Bad Request: message can't be deleted for everyone")
        del self.stored[chat, int(asked.text("message_id"))]
        return _result(True)

    @bot_method("deleteMessages", "messages.delete")
    def delete_messages(self, request: Request) -> Response:
        """Those there are; the others are passed over."""
        chat, asked = self._chat_to_write_to(request)
        for id in asked.many("message_ids"):
            self.stored.pop((chat, int(id) if isinstance(id, int) else 0), None)
        return _result(True)

    # Chats and files

    @bot_method("getChat")
    def get_chat(self, request: Request) -> Response:
        chat, _ = self._chat_to_write_to(request)
        gifts = ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels")
        more = {"accent_color_id": 0, "max_reaction_count": 11, "accepted_gift_types": dict.fromkeys(gifts, False)}
        return _result({**_chat(chat), **more})

    @bot_method("getChatMember")
    def get_member(self, request: Request) -> Response:
        _, asked = self._chat_to_write_to(request)
        user = {"id": int(asked.number("user_id")), "is_bot": False, "first_name": "Somebody"}
        return _result({"status": "member", "user": user})

    @bot_method("getFile")
    def get_file(self, request: Request) -> Response:
        self._authorize(request)
        id = _asked(request).text("file_id")
        if id not in self.files:
            raise Refused(400, "Bad Request: invalid file_id")
        name, content = self.files[id]
        told = {"file_id": id, "file_unique_id": id[-16:], "file_size": len(content), "file_path": f"files/{id}/{name}"}
        return _result(told)

    @route("GET", "/file/bot{token}/files/{id}/{name}", "getFile")
    def download(self, request: Request) -> Response:
        self._authorize(request)
        found = self.files.get(request.params["id"])
        if found is None:
            return self.not_found(request)
        return Response(headers=(("content-type", "application/octet-stream"),), body=found[1])

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
        """The person writes to the bot; a word that begins with `/` is a command."""
        message: Json = {**self._envelope(str(chat)), "from": _person(str(chat)), "text": text}
        entities: list[Entity] = [
            {"type": "bot_command", "offset": utf16(text[: found.start()]), "length": utf16(found[0])}
            for found in re.finditer(r"(?<!\S)/\w+", text)
        ]
        message |= _some(entities=entities)
        self.stored[str(chat), int(str(message["message_id"]))] = message
        self._update("message", str(chat), message)

    def press(self, chat: str | int, message_id: int, data: str) -> None:
        """The person presses a button under one of the bot's messages."""
        about = {
            "id": str(self.random().getrandbits(62)),
            "from": _person(str(chat)),
            "message": self._stored(str(chat), str(message_id), "press"),
            "chat_instance": str(self.random().getrandbits(62)),
            "data": data,
        }
        self._update("callback_query", str(chat), about)

    # How

    def _forget(self) -> None:
        self.blocked: set[str] = set()
        self.deactivated: set[str] = set()
        self.migrated: dict[str, int] = {}
        self.commands: list[Json] = []
        self.stored: dict[tuple[str, int], Json] = {}
        """Every message there is, in both directions, by chat and id."""
        self.files: dict[str, tuple[str, bytes]] = {}
        """Name and content by file id."""
        self.pending: deque[tuple[float, Json]] = deque()
        """Updates that wait for `getUpdates`, and since when."""
        self._allowed: frozenset[str] | None = None
        self._updates = 0
        self._last_id: defaultdict[str, int] = defaultdict(int)
        limits = self.limits
        self._sent = self.window(limits.bot, limits.window)
        self._sent_in: dict[str, SlidingWindow] = {}
        self._edits_in: defaultdict[str, SlidingWindow] = defaultdict(
            lambda: self.window(limits.edits, limits.group_window)
        )

    def _authorize(self, request: Request) -> None:
        token = unquote(request.params["token"])  # some clients escape its colon
        if ":" not in token:
            raise Refused(404, "Not Found")
        if token != self.bot_token:
            raise Refused(401, "Unauthorized")

    def _chat_to_write_to(self, request: Request) -> tuple[str, Asked]:
        """The chat, where the bot may write there, and what is asked."""
        self._authorize(request)
        asked = _asked(request)
        chat = asked.text("chat_id")
        self._look(self._sent)
        if not chat:
            raise Refused(400, "Bad Request: chat_id is empty")
        if chat in self.migrated:
            text = "Bad Request: group chat was upgraded to a supergroup chat"
            raise Refused(400, text, migrate_to_chat_id=self.migrated[chat])
        if self.known is not None and chat not in self.known:
            raise Refused(400, "Bad Request: chat not found")
        if chat in self.deactivated:
            raise Refused(403, "Forbidden: user is deactivated")
        if chat in self.blocked:
            is_group = chat.startswith("-")
            text = "bot was kicked from the group chat" if is_group else "bot was blocked by the user"
            raise Refused(403, f"Forbidden: {text}")
        return chat, asked

    def _readable(self, asked: Asked, text: str, mode: str, entities: str) -> tuple[str, list[Entity]]:
        given = cast(list[Entity], asked.many(entities))
        try:
            plain, found = read(asked.text(text), asked.text(mode))
        except Unreadable as error:
            raise Refused(400, f"Bad Request: can't parse entities: {error}") from None
        return plain, found or given

    def _check_text(self, text: str) -> None:
        if not text.strip():
            raise Refused(400, "Bad Request: message text is empty")
        if len(text) > LONGEST_TEXT:
            raise Refused(400, "Bad Request: message is too long")

    def _caption(self, asked: Asked) -> Json:
        text, entities = self._readable(asked, "caption", "parse_mode", "caption_entities")
        if len(text) > LONGEST_CAPTION:
            raise Refused(400, "Bad Request: message caption is too long")
        return _some(caption=text, caption_entities=entities)

    def _markup(self, asked: Asked) -> Json:
        """An inline keyboard is part of the message; other keyboards are the person's."""
        markup = asked.json("reply_markup")
        keyboard: object = cast(Json, markup).get("inline_keyboard") if isinstance(markup, dict) else None
        rows = cast(list[object], keyboard if isinstance(keyboard, list) else [])
        for row in rows:
            for button in cast(list[object], row if isinstance(row, list) else []):
                data = cast(Json, button).get("callback_data", "") if isinstance(button, dict) else ""
                if len(str(data).encode()) > LONGEST_BUTTON:
                    raise Refused(400, "Bad Request: BUTTON_DATA_INVALID")
        return {"reply_markup": {"inline_keyboard": keyboard}} if keyboard else {}

    def _file(self, kind: str, given: str, asked: Asked) -> Json:
        name, content = f"{kind}.bin", b""
        upload = asked.files.get(given.removeprefix("attach://")) or asked.files.get(kind)
        if given and not given.startswith(("attach://", "http://", "https://")):
            if given not in self.files:
                raise Refused(400, "Bad Request: wrong file identifier/HTTP URL specified")
            id, (name, content) = given, self.files[given]
        elif given or upload:
            name, content = upload or (given.rpartition("/")[2] or name, b"")
            id = f"AgACAgQAAxkB{self.random().getrandbits(160):040x}"
        else:
            raise Refused(400, f"Bad Request: there is no {kind} in the request")
        if kind == "photo" and len(content) > LARGEST_PHOTO:
            raise Refused(400, "Bad Request: file is too big")
        self.files[id] = (name, content)
        about: Json = {"file_id": id, "file_unique_id": id[-16:], "file_size": len(content)}
        match kind:
            case "photo":
                return {"photo": [{**about, "width": 90, "height": 90}, {**about, "width": 800, "height": 800}]}
            case "video" | "animation":
                return {kind: {**about, "width": 800, "height": 600, "duration": 1, "file_name": name}}
            case "audio" | "voice":
                return {kind: {**about, "duration": 1}}
            case _:
                return {"document": {**about, "file_name": name, "mime_type": "application/octet-stream"}}

    def _stored(self, chat: str, id: str, verb: str) -> Json:
        found = self.stored.get((chat, int(id))) if id.isdigit() else None
        if found is None:
            raise Refused(400, f"Bad Request: message to {verb} not found")
        return found

    def _pass_chat(self, chat: str) -> None:
        if chat not in self._sent_in:
            limits, is_group = self.limits, chat.startswith("-")
            limit = limits.group if is_group else limits.chat
            self._sent_in[chat] = self.window(limit, limits.group_window if is_group else limits.window)
        self._look(self._sent_in[chat])

    def _pass(self, window: SlidingWindow) -> None:
        self._look(window)
        window.take()

    def _look(self, window: SlidingWindow) -> None:
        if wait := window.wait():
            seconds = max(1, ceil(wait))
            raise Refused(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)

    def _post(self, chat: str, text: str, content: Mapping[str, object], asked: Asked) -> Json:
        answered = self._replied_to(chat, asked)
        markup = self._markup(asked)
        self._sent.take()
        self._sent_in[chat].take()
        message: Json = {**self._envelope(chat), "from": self._bot(), **content, **markup, **answered}
        posted = Posted(id=int(str(message["message_id"])), chat=chat, text=text, at=self.clock.now())
        self.stored[chat, posted.id] = message
        self.messages.append(posted)
        facts = {"to": chat, "text": text}
        self.ledger.record(Kind.MESSAGE, vendor=self.vendor, id=f"{chat}/{posted.id}", key=chat, facts=facts)
        return message

    def _replied_to(self, chat: str, asked: Asked) -> Json:
        parameters = asked.json("reply_parameters")
        wanted = cast(Json, parameters) if isinstance(parameters, dict) else {}
        id = str(wanted.get("message_id") or asked.text("reply_to_message_id"))
        found = self.stored.get((chat, int(id))) if id.isdigit() else None
        if id and found is None and not wanted.get("allow_sending_without_reply"):
            raise Refused(400, "Bad Request: message to be replied not found")
        return {"reply_to_message": found} if found is not None else {}

    def _envelope(self, chat: str) -> Json:
        self._last_id[chat] += 1
        return {"message_id": self._last_id[chat], "chat": _chat(chat), "date": self._unix()}

    def _bot(self) -> Json:
        return {"id": _BOT, "is_bot": True, "first_name": "Simulated", "username": "simulated_bot"}

    def _membership(self, chat: str, status: str) -> Json:
        before = "member" if status == "kicked" else "kicked"
        return {
            "chat": _chat(chat),
            "from": _person(chat),
            "date": self._unix(),
            "old_chat_member": self._member(before),
            "new_chat_member": self._member(status),
        }

    def _member(self, status: str) -> Json:
        return {"user": self._bot(), "status": status, **({"until_date": 0} if status == "kicked" else {})}

    def _allow(self, asked: Asked) -> None:
        if asked.text("allowed_updates"):
            self._allowed = frozenset(map(str, asked.many("allowed_updates"))) or None

    def _update(self, kind: str, chat: str, facts: Mapping[str, object]) -> None:
        if (self._allowed is None and kind in QUIET) or (self._allowed is not None and kind not in self._allowed):
            return
        self._updates += 1
        update: Json = {"update_id": 900_000_000 + self._updates, kind: facts}
        if self.webhook_url:
            self._owe(update)
            return
        now = self.clock.monotonic()
        while self.pending and self.pending[0][0] <= now - FORGOTTEN_AFTER:
            self.pending.popleft()
        self.pending.append((now, update))

    def _owe(self, update: Json) -> None:
        kind = next(name for name in update if name != "update_id")
        about = cast(Json, update[kind])
        chat = cast(Json, about.get("chat") or cast(Json, about.get("message", {})).get("chat", {}))
        body = json.dumps(update, separators=(",", ":")).encode()
        self.owe(
            Webhook(
                vendor=self.vendor,
                url=self.webhook_url,
                event=kind,
                about=str(int(str(update["update_id"])) - 900_000_000),
                key=str(chat.get("id", "")),
                body=body,
            )
        )

    def _unix(self) -> int:
        return int(self.clock.now().timestamp())


_ENVELOPE: Final = frozenset(("message_id", "chat", "date", "edit_date", "from", "reply_markup", "reply_to_message"))


def _asked(request: Request) -> Asked:
    """The arguments: JSON, a form with or without files, or the query, as the sender likes."""
    if media_type(request) == "multipart/form-data":
        texts, files = multipart(request)
        return Asked(fields={**dict(pairs(request)), **texts}, files=files)
    try:
        sent: object = json.loads(request.body) if media_type(request) == "application/json" else {}
    except ValueError:
        raise Refused(400, "Bad Request: can't parse the JSON of the request") from None
    return Asked(fields={**dict(pairs(request)), **cast(Json, sent if isinstance(sent, dict) else {})}, files={})


def _some(**values: object) -> Json:
    """Those that are not empty."""
    return {name: value for name, value in values.items() if value}


def _person(chat: str) -> Json:
    """Whoever writes there."""
    return {"id": _chat(chat)["id"], "is_bot": False, "first_name": "Somebody"}


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
