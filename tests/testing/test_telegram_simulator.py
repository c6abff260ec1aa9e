"""Telegram's simulator: what it answers, how strictly it counts, whom it tells."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import CallFailed, Rejected, Throttled
from holdfast.notifications.client import Notifications
from holdfast.notifications.models import Accepted, DispatchState, Message, Moved, Recipient
from holdfast.outcome import Cause, Effect
from holdfast.providers.telegram import Telegram
from holdfast.runtime import Runtime
from holdfast.stores import open_store
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Reset, Status
from holdfast.testing.intents import message
from holdfast.testing.simulators import load_simulator
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.simulator import Request, Response
from holdfast.testing.simulators.telegram import Limits, TelegramSimulator
from holdfast.values import Secret, Secrets
from holdfast.webhooks.request import RawRequest
from tests.providers.connection import connection

SPEC = Path(__file__).parents[3] / "shared" / "specs" / "notifications" / "telegram_bot_api.json"
TOKEN = TelegramSimulator.bot_token
UNLIMITED = Limits(bot=0, chat=0, group=0)


def call(simulator: TelegramSimulator, method: str = "sendMessage", *, token: str = TOKEN, **body: object) -> Response:
    return simulator.handle(
        Request(
            method="POST",
            target=f"/bot{token}/{method}",
            headers=(("content-type", "application/json"),),
            body=json.dumps(body).encode(),
        )
    )


def said(response: Response) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(response.body)
    assert body["ok"] is (response.status == 200)
    assert body.get("error_code", 200) == response.status
    return body


def bot(simulator: TelegramSimulator) -> Telegram:
    given = simulator.credentials
    return Telegram(token=Secret(given["bot_token"]), webhook_secret=Secrets(given["webhook_secret"]))


async def send(simulator: TelegramSimulator, to: str = "1", text: str = "hi") -> Accepted | Moved:
    provider = bot(simulator)
    http = connection(provider, InProcess(simulator))
    return await provider.send(http, Message(text), to, key="k", effect=Effect.ONCE)


def test_it_is_found_by_its_vendors_name() -> None:
    assert load_simulator("telegram") is TelegramSimulator


def test_a_message_is_in_the_ledger_with_its_address_and_text() -> None:
    simulator = TelegramSimulator(limits=UNLIMITED)

    result = said(call(simulator, chat_id=1, text="hello"))["result"]

    entry = simulator.ledger.exactly_once(message(to="1"))
    assert entry.facts == {"to": "1", "text": "hello"}
    assert (result["message_id"], result["chat"]["id"], result["chat"]["type"]) == (1, 1, "private")


def test_what_it_answers_is_in_the_api_description() -> None:
    if not SPEC.exists():
        pytest.skip("the published API descriptions are not here")
    types = {name: kind.get("fields", []) for name, kind in json.loads(SPEC.read_text())["types"].items()}
    simulator = TelegramSimulator(limits=UNLIMITED)

    for answer, kind in (
        (said(call(simulator, chat_id=1, text="hello"))["result"], "Message"),
        (said(call(simulator, "getMe"))["result"], "User"),
    ):
        assert answer.keys() <= {field["name"] for field in types[kind]}
        assert {field["name"] for field in types[kind] if field["required"]} <= answer.keys()


@pytest.mark.parametrize(("token", "status"), [("1:other", 401), ("no-colon", 404)])
def test_another_token_is_refused(token: str, status: int) -> None:
    assert call(TelegramSimulator(), token=token, chat_id=1, text="hi").status == status


@pytest.mark.parametrize(
    ("body", "description"),
    [
        ({"text": "hi"}, "chat_id is empty"),
        ({"chat_id": 1}, "message text is empty"),
        ({"chat_id": 1, "text": " "}, "message text is empty"),
        ({"chat_id": 1, "text": "x" * 4097}, "message is too long"),
        ({"chat_id": 2, "text": "hi"}, "chat not found"),
    ],
)
def test_a_wrong_request_is_refused_in_telegrams_words(body: dict[str, object], description: str) -> None:
    simulator = TelegramSimulator(known={"1"})

    refusal = said(call(simulator, **body))  # type: ignore[arg-type]  # none of them is the token

    assert (refusal["error_code"], description in refusal["description"]) == (400, True)
    assert simulator.messages == []


async def test_thirty_a_second_and_not_one_more() -> None:
    clock = ManualClock()
    simulator = TelegramSimulator(clock=clock, limits=Limits(chat=0))

    statuses = [call(simulator, chat_id=chat, text="hi").status for chat in range(1, 33)]
    await clock.advance(0.999)
    statuses.append(call(simulator, chat_id=50, text="hi").status)
    await clock.advance(0.001)
    statuses.append(call(simulator, chat_id=50, text="hi").status)

    assert statuses == [200] * 30 + [429, 429, 429, 200]


async def test_one_a_second_in_each_chat() -> None:
    clock = ManualClock()
    simulator = TelegramSimulator(clock=clock)

    first = call(simulator, chat_id=1, text="hi")
    second = said(call(simulator, chat_id=1, text="hi"))
    other = call(simulator, chat_id=2, text="hi")
    await clock.advance(1)
    third = call(simulator, chat_id=1, text="hi")

    assert (first.status, other.status, third.status) == (200, 200, 200)
    assert second["parameters"] == {"retry_after": 1}
    assert len(simulator.messages) == 3


async def test_twenty_a_minute_in_a_group() -> None:
    clock = ManualClock()
    simulator = TelegramSimulator(clock=clock)

    for _ in range(20):
        assert call(simulator, chat_id=-5, text="hi").status == 200
        await clock.advance(1)
    refusal = said(call(simulator, chat_id=-5, text="hi"))
    await clock.advance(refusal["parameters"]["retry_after"])

    assert refusal["parameters"] == {"retry_after": 40}
    assert call(simulator, chat_id=-5, text="hi").status == 200


@pytest.mark.parametrize("limits", [UNLIMITED, Limits(bot=1000, chat=1000)])
def test_limits_can_be_set(limits: Limits) -> None:
    simulator = TelegramSimulator(limits=limits, clock=ManualClock())

    assert {call(simulator, chat_id=1, text="hi").status for _ in range(100)} == {200}


# With the provider


async def test_the_provider_and_the_simulator_understand_each_other() -> None:
    simulator = TelegramSimulator(clock=ManualClock())

    assert await send(simulator) == Accepted(vendor_id="1/1")
    with pytest.raises(Throttled) as throttled:
        await send(simulator)
    assert throttled.value.retry_after == 1


@pytest.mark.parametrize("leave", ["block", "deactivate"])
async def test_a_person_who_left_is_gone(leave: str) -> None:
    simulator = TelegramSimulator(limits=UNLIMITED)
    getattr(simulator, leave)("1")

    with pytest.raises(Rejected) as raised:
        await send(simulator)
    assert raised.value.reason == "recipient_gone"

    if leave == "block":
        simulator.unblock("1")
        assert await send(simulator) == Accepted(vendor_id="1/1")


async def test_a_message_follows_a_group_that_moved() -> None:
    clock = ManualClock()
    simulator = TelegramSimulator(clock=clock)
    simulator.migrate("-5", "-1005")
    provider = Telegram(token=Secret(TOKEN), base_url="http://127.0.0.1:1")
    runtime = Runtime(open_store("memory://", clock=clock), clock=clock, transport=lambda _vendor: InProcess(simulator))

    async with Notifications([provider], runtime=runtime) as notifications:
        dispatch = await notifications.send("hi", to=Recipient(telegram="-5"), key="k")

    assert dispatch.state is DispatchState.ACCEPTED
    assert dispatch.moved == {"telegram": "-1005"}
    assert [message.chat for message in simulator.messages] == ["-1005"]


async def test_a_lost_answer_leaves_a_message_behind() -> None:
    simulator = TelegramSimulator(limits=UNLIMITED)
    simulator.faults.on("telegram", "messages.send").script(Reset(), Status(502))

    causes: list[Cause] = []
    for _ in range(2):
        with pytest.raises(CallFailed) as raised:
            await send(simulator)
        causes.append(raised.value.cause)

    assert causes == [Cause.UNKNOWN, Cause.UNKNOWN]
    assert len(simulator.messages) == 1


# Webhooks


def test_blocking_and_writing_owe_an_update_the_provider_believes() -> None:
    simulator = TelegramSimulator(webhook_url="https://shop.test/telegram", limits=UNLIMITED)
    simulator.block("1")
    simulator.unblock("1")
    simulator.write("1", "hello?")

    provider, now = bot(simulator), datetime(2026, 1, 1, tzinfo=UTC)
    assert provider.webhook_secrets is not None
    kinds: list[tuple[str, str]] = []
    while simulator.outbox:
        webhook = simulator.outbox.popleft()
        headers = (*webhook.headers, *simulator.sign(webhook.body, secret=simulator.webhook_secret, at=now))
        request = RawRequest(method="POST", url=webhook.url, headers=headers, body=webhook.body, received_at=now)
        assert provider.scheme.verify(request, provider.webhook_secrets).valid
        kinds += [(delivery.type, delivery.dedup_key) for delivery in provider.parse(request)]

    assert kinds == [
        ("my_chat_member", "900000001"),
        ("my_chat_member", "900000002"),
        ("message", "900000003"),
    ]


def test_a_webhook_can_be_set_by_its_method() -> None:
    simulator = TelegramSimulator()

    assert said(call(simulator, "setWebhook", url="https://shop.test/telegram", secret_token="s3"))["result"] is True
    simulator.write(1, "hello?")

    assert simulator.outbox[0].url == "https://shop.test/telegram"
    assert simulator.webhook_secret == "s3"


def test_reset_forgets_everything() -> None:
    simulator = TelegramSimulator(webhook_url="https://shop.test/telegram")
    simulator.block("1")
    call(simulator, chat_id=2, text="hi")

    simulator.reset()

    assert simulator.messages == []
    assert not simulator.outbox
    assert call(simulator, chat_id=1, text="hi").status == 200


# What a bot's framework asks for


def test_updates_wait_for_who_polls_until_they_are_confirmed() -> None:
    simulator = TelegramSimulator()
    for text in ("one", "two", "three"):
        simulator.write(1, text)

    first = said(call(simulator, "getUpdates", limit=2))["result"]
    again = said(call(simulator, "getUpdates"))["result"]
    rest = said(call(simulator, "getUpdates", offset=first[-1]["update_id"] + 1))["result"]
    last = said(call(simulator, "getUpdates", offset=-1))["result"]

    assert [one["message"]["text"] for one in first] == ["one", "two"]
    assert again[:2] == first
    assert [one["message"]["text"] for one in rest] == ["three"] == [one["message"]["text"] for one in last]


async def test_updates_are_forgotten_after_a_day() -> None:
    clock = ManualClock()
    simulator = TelegramSimulator(clock=clock)
    simulator.write(1, "old")
    await clock.advance(86_400)
    simulator.write(1, "new")
    assert [one["message"]["text"] for one in said(call(simulator, "getUpdates"))["result"]] == ["new"]


def test_a_poll_that_finds_nothing_is_held_for_a_while() -> None:
    simulator = TelegramSimulator()
    body = b"timeout=10"
    kind = (("content-type", "application/x-www-form-urlencoded"),)
    request = Request(method="POST", target=f"/bot{TOKEN}/getupdates", headers=kind, body=body)
    assert simulator.exchange(request).delay == 0.2
    simulator.write(1, "Hi")
    assert simulator.exchange(request).delay == 0


def test_a_bot_hears_only_what_it_asked_for() -> None:
    simulator = TelegramSimulator()
    call(simulator, "getUpdates", allowed_updates=["callback_query"])
    simulator.write(1, "Hi")
    call(simulator, chat_id=1, text="Pay?")
    simulator.press(1, 2, "yes")
    [update] = said(call(simulator, "getUpdates"))["result"]
    assert update["callback_query"]["message"]["text"] == "Pay?"


def test_what_waited_goes_to_the_webhook_once_it_is_set() -> None:
    simulator = TelegramSimulator()
    simulator.write(1, "Hi")

    refused = said(call(simulator, "setWebhook", url="http://shop.test"))
    call(simulator, "setWebhook", url="https://shop.test")
    told = said(call(simulator, "getWebhookInfo"))["result"]
    dropped = said(call(simulator, "deleteWebhook", drop_pending_updates=True))["result"]

    assert "HTTPS" in refused["description"]
    assert (told["url"], told["pending_update_count"], dropped, len(simulator.outbox)) == (
        "https://shop.test",
        1,
        True,
        0,
    )


@pytest.mark.parametrize(
    ("method", "body", "description"),
    [
        ("sendPhoto", {}, "there is no photo in the request"),
        ("sendPhoto", {"photo": "no-such-id"}, "wrong file identifier"),
        ("sendPhoto", {"photo": "https://x.test/a.png", "caption": "x" * 1025}, "caption is too long"),
        ("sendMediaGroup", {"media": [{"type": "photo", "media": "https://x.test/a.png"}]}, "2-10 media"),
        ("sendMessage", {"text": "a", "reply_markup": "{"}, "can't parse reply markup"),
        (
            "sendMessage",
            {"text": "a", "reply_markup": {"inline_keyboard": [[{"text": "b", "callback_data": "x" * 65}]]}},
            "BUTTON_DATA_INVALID",
        ),
        ("sendMessage", {"text": "a", "reply_parameters": {"message_id": 9}}, "message to be replied not found"),
        ("editMessageText", {"message_id": 9, "text": "a"}, "message to edit not found"),
        ("editMessageText", {"message_id": 1, "text": "a"}, "message can't be edited"),
        ("getFile", {"file_id": "no"}, "invalid file_id"),
        ("setWebhook", {"url": "https://x.test", "secret_token": "a b"}, "unallowed characters"),
    ],
)
def test_what_a_method_cannot_do_it_refuses(method: str, body: dict[str, Any], description: str) -> None:
    simulator = TelegramSimulator(limits=UNLIMITED)
    simulator.write(1, "Hi")

    refusal = said(call(simulator, method, chat_id=1, **body))

    assert (refusal["error_code"], description in refusal["description"]) == (400, True)
    assert simulator.messages == []


def test_a_reply_carries_what_it_answers() -> None:
    simulator = TelegramSimulator(limits=UNLIMITED)
    simulator.write(1, "Hi")
    sent = said(call(simulator, chat_id=1, text="Ho", reply_parameters={"message_id": 1}))["result"]
    assert sent["reply_to_message"]["text"] == "Hi"


async def test_an_old_message_cannot_be_deleted_and_a_missing_one_is_passed_over() -> None:
    clock = ManualClock()
    simulator = TelegramSimulator(clock=clock, limits=UNLIMITED)
    call(simulator, chat_id=1, text="Hi")
    await clock.advance(2 * 86_400 + 1)
    assert "can't be deleted" in said(call(simulator, "deleteMessage", chat_id=1, message_id=1))["description"]
    assert said(call(simulator, "deleteMessages", chat_id=1, message_ids=[1, 2]))["result"] is True
    assert simulator.stored == {}


def test_twenty_edits_a_minute_in_a_group() -> None:
    simulator = TelegramSimulator(clock=ManualClock())
    call(simulator, chat_id=-5, text="0")
    statuses = [call(simulator, "editMessageText", chat_id=-5, message_id=1, text=str(n)).status for n in range(1, 22)]
    assert statuses == [200] * 20 + [429]


def test_a_caption_is_edited_and_a_location_is_sent() -> None:
    simulator = TelegramSimulator(limits=UNLIMITED)
    call(simulator, "sendPhoto", chat_id=1, photo="https://x.test/a.png", caption="a")
    edited = said(call(simulator, "editMessageCaption", chat_id=1, message_id=1, caption="<b>b</b>", parse_mode="HTML"))
    located = said(call(simulator, "sendLocation", chat_id=1, latitude=47.4, longitude=8.5))
    assert (edited["result"]["caption"], edited["result"]["caption_entities"][0]["type"]) == ("b", "bold")
    assert located["result"]["location"] == {"latitude": 47.4, "longitude": 8.5}


@pytest.mark.parametrize(("status", "description"), [(502, "Bad Gateway"), (429, "Too Many Requests: retry after 3")])
def test_a_planned_failure_has_telegrams_shape(status: int, description: str) -> None:
    simulator = TelegramSimulator()
    simulator.faults.on("telegram").script(Status(status, retry_after=3))
    answer = simulator.exchange(Request(method="GET", target=f"/bot{TOKEN}/getMe")).response
    assert answer is not None
    assert said(answer)["description"] == description


def test_every_update_is_in_the_api_description() -> None:
    if not SPEC.exists():
        pytest.skip("the published API descriptions are not here")
    types = {name: kind.get("fields", []) for name, kind in json.loads(SPEC.read_text())["types"].items()}
    simulator = TelegramSimulator(limits=UNLIMITED)
    call(simulator, chat_id=1, text="Pay?")
    simulator.write(1, "/start")
    simulator.press(1, 1, "yes")
    simulator.block(1)

    for update in said(call(simulator, "getUpdates"))["result"]:
        [(kind, told)] = [(name, value) for name, value in update.items() if name != "update_id"]
        name = {"message": "Message", "callback_query": "CallbackQuery", "my_chat_member": "ChatMemberUpdated"}[kind]
        assert told.keys() <= {field["name"] for field in types[name]}
        assert {field["name"] for field in types[name] if field["required"]} <= told.keys()
    banned = told["new_chat_member"]
    assert {field["name"] for field in types["ChatMemberBanned"] if field["required"]} <= banned.keys()
