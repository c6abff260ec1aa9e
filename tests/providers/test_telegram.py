"""Telegram against its published API description, and the errors its server writes."""

import json
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.errors import CallFailed, MissingCredential
from holdfast.notifications.models import Accepted, Message, Moved
from holdfast.outcome import Cause, Effect
from holdfast.providers.telegram import Telegram
from holdfast.values import Secret, Secrets
from holdfast.webhooks.request import RawRequest
from tests.providers.connection import NOON, Canned, connection

SPEC = Path(__file__).parents[3] / "shared" / "specs" / "notifications" / "telegram_bot_api.json"
TOKEN = "4711000001:AAF-a_token_of_no_bot_at_all_0123456"
BOT = Telegram(token=Secret(TOKEN), webhook_secret=Secrets("new-secret", "old-secret"))


def answer(result: object) -> bytes:
    return json.dumps({"ok": True, "result": result}).encode()


SENT = answer({"message_id": 7, "date": 1_772_000_000, "chat": {"id": -5, "type": "group", "title": "x"}, "text": "hi"})


def refusal(status: int, description: str, **parameters: int) -> Canned:
    body = {"ok": False, "error_code": status, "description": description}
    return Canned(status=status, content=json.dumps(body | ({"parameters": parameters} if parameters else {})).encode())


async def send(transport: Canned, text: str = "hi", *, to: str = "-5", subject: str = "") -> Accepted | Moved:
    message = Message(text, subject=subject)
    return await BOT.send(connection(BOT, transport), message, to, key="k", effect=Effect.ONCE)


async def refused(transport: Canned) -> CallFailed:
    with pytest.raises(CallFailed) as raised:
        await send(transport)
    return raised.value


async def test_a_message_goes_to_the_bots_own_path() -> None:
    transport = Canned(content=SENT)

    accepted = await send(transport)

    (request,) = transport.requests
    assert request.method == "POST"
    assert request.url == f"https://api.telegram.org/bot{TOKEN}/sendMessage"
    assert json.loads(request.content) == {"chat_id": -5, "text": "hi"}
    assert accepted == Accepted(vendor_id="-5/7")


@pytest.mark.parametrize(("address", "chat_id"), [("4711", 4711), ("-1001", -1001), ("@clinic", "@clinic")])
async def test_numbers_are_sent_as_numbers_and_names_as_names(address: str, chat_id: object) -> None:
    transport = Canned(content=SENT)

    await send(transport, to=address)

    assert json.loads(transport.requests[0].content)["chat_id"] == chat_id


async def test_a_subject_becomes_the_first_line_where_there_is_room() -> None:
    transport = Canned(content=SENT)

    await send(transport, subject="Your booking")
    await send(transport, "x" * 4096, subject="Your booking")

    assert [json.loads(request.content)["text"] for request in transport.requests] == [
        "Your booking\n\nhi",
        "x" * 4096,
    ]


def _spec() -> Mapping[str, Any]:
    if not SPEC.exists():
        pytest.skip("the published API descriptions are not here")
    return cast(Mapping[str, Any], json.loads(SPEC.read_text()))


async def test_what_we_send_is_what_the_api_description_asks_for() -> None:
    fields = {field["name"]: field for field in _spec()["methods"]["sendMessage"]["fields"]}
    transport = Canned(content=SENT)

    await send(transport)

    sent = json.loads(transport.requests[0].content)
    assert sent.keys() <= fields.keys()
    assert {name for name, field in fields.items() if field["required"]} <= sent.keys()
    assert "1-4096 characters" in fields["text"]["description"]
    assert BOT.capabilities.max_length == 4096


def test_what_we_read_is_in_the_api_description() -> None:
    types = {name: {field["name"] for field in kind.get("fields", [])} for name, kind in _spec()["types"].items()}

    assert {"message_id", "chat"} <= types["Message"]
    assert {"retry_after", "migrate_to_chat_id"} <= types["ResponseParameters"]
    assert {"update_id", "message", "my_chat_member"} <= types["Update"]


@pytest.mark.parametrize(
    ("status", "description", "cause", "reason"),
    [
        (400, "Bad Request: chat not found", Cause.REJECTED, "recipient_gone"),
        (400, "Bad Request: chat_id is empty", Cause.REJECTED, "recipient_gone"),
        (400, "Bad Request: message is too long", Cause.REJECTED, "content_invalid"),
        (400, "Bad Request: can't parse entities: what", Cause.REJECTED, "content_invalid"),
        (400, "Bad Request: something new", Cause.REJECTED, ""),
        (401, "Unauthorized", Cause.CREDENTIAL, ""),
        (401, "Unauthorized: invalid token specified", Cause.CREDENTIAL, ""),
        (403, "Forbidden: bot was blocked by the user", Cause.REJECTED, "recipient_gone"),
        (403, "Forbidden: user is deactivated", Cause.REJECTED, "recipient_gone"),
        (403, "Forbidden: bot was kicked from the supergroup chat", Cause.REJECTED, "recipient_gone"),
        (404, "Not Found", Cause.CREDENTIAL, ""),
        (413, "Request Entity Too Large", Cause.REJECTED, ""),
        (421, "Misdirected Request: unallowed token specified", Cause.CREDENTIAL, ""),
        (500, "Internal Server Error", Cause.UNKNOWN, ""),
        (502, "Bad Gateway", Cause.UNKNOWN, ""),
    ],
)
async def test_each_refusal_has_its_cause(status: int, description: str, cause: Cause, reason: str) -> None:
    error = await refused(refusal(status, description))

    assert (error.cause, error.reason, error.status) == (cause, reason, status)
    assert description in str(error)


async def test_the_wait_it_asks_for_is_in_the_body() -> None:
    error = await refused(refusal(429, "Too Many Requests: retry after 7", retry_after=7))

    assert (error.cause, error.retry_after) == (Cause.THROTTLED, 7)


@pytest.mark.parametrize("wait", [10**20, -5])
async def test_a_wait_no_calendar_holds_is_cut(wait: int) -> None:
    error = await refused(refusal(429, "Too Many Requests", retry_after=wait))

    assert error.retry_after is not None
    assert 0 <= error.retry_after <= 30 * 86400


async def test_a_group_that_became_a_supergroup_has_moved() -> None:
    upgraded = "Bad Request: group chat was upgraded to a supergroup chat"

    moved = await send(refusal(400, upgraded, migrate_to_chat_id=-1_001_234))

    assert moved == Moved(address="-1001234")


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"ok":false,"parameters":3}'])
async def test_a_refusal_that_cannot_be_read_is_judged_by_its_status(content: bytes) -> None:
    error = await refused(Canned(status=403, content=content))

    assert error.cause is Cause.REJECTED


@pytest.mark.parametrize("content", [b"", b"{}", b'{"ok":false}', b'{"ok":true,"result":true}'])
async def test_a_success_that_cannot_be_read_proves_nothing(content: bytes) -> None:
    assert (await refused(Canned(content=content))).cause is Cause.UNKNOWN


@pytest.mark.parametrize("status", [200, 401, 404, 500])
async def test_the_token_is_in_no_error(status: int) -> None:
    echo = json.dumps({"ok": False, "description": f"no such path /bot{TOKEN}/sendMessage"}).encode()

    error = await refused(Canned(status=status, content=echo))

    shown = "".join(traceback.format_exception(error)) + repr(error.__dict__) + repr(error)
    assert TOKEN not in shown
    assert TOKEN.partition(":")[2] not in shown


def test_the_token_is_not_in_the_repr() -> None:
    assert TOKEN not in repr(BOT)
    assert "new-secret" not in repr(BOT)


# Webhooks


def update(secret: str | None, body: bytes = b'{"update_id":900000001,"message":{"text":"hi"}}') -> RawRequest:
    headers = [("content-type", "application/json")]
    if secret is not None:
        headers.append(("x-telegram-bot-api-secret-token", secret))
    return RawRequest(method="POST", url="https://x/telegram", headers=headers, body=body, received_at=NOON)


@pytest.mark.parametrize(
    ("secret", "valid"), [("new-secret", True), ("old-secret", True), ("other", False), ("", False), (None, False)]
)
def test_an_update_proves_itself_by_the_secret(secret: str | None, valid: bool) -> None:
    assert BOT.webhook_secrets is not None
    assert BOT.scheme.verify(update(secret), BOT.webhook_secrets).valid is valid


def test_an_update_is_kept_under_its_id_and_its_kind() -> None:
    (delivery,) = BOT.parse(update("new-secret"))

    assert (delivery.type, delivery.dedup_key) == ("message", "900000001")
    assert BOT.handshake(update("new-secret")) is None


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b'{"message":{}}'])
def test_an_update_that_cannot_be_read_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the receiver's contract: any ValueError
        BOT.parse(update("new-secret", body))


# Settings


def test_from_env_reads_token_secret_and_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", TOKEN)
    monkeypatch.setenv("TELEGRAM_WEBHOOK_SECRET", "new-secret,old-secret")
    monkeypatch.delenv("TELEGRAM_URL", raising=False)

    assert Telegram.from_env().base_url == "https://api.telegram.org"
    assert len(Telegram.from_env().webhook_secrets or ()) == 2

    monkeypatch.setenv("TELEGRAM_URL", "http://127.0.0.1:8081")
    assert Telegram.from_env().base_url == "http://127.0.0.1:8081"


def test_a_bot_that_only_sends_needs_no_webhook_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", TOKEN)
    monkeypatch.delenv("TELEGRAM_WEBHOOK_SECRET", raising=False)

    assert Telegram.from_env().webhook_secrets is None


def test_without_a_token_it_says_which_variable_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELEGRAM_BOT_TOKEN", raising=False)

    with pytest.raises(MissingCredential, match="TELEGRAM_BOT_TOKEN"):
        Telegram.from_env()
