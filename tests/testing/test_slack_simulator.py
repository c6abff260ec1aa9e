"""Slack's simulator: whom it lets write where, how strictly it counts, what it tells an app."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import jsonschema
import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Status
from holdfast.testing.intents import message
from holdfast.testing.simulators import load_simulator
from holdfast.testing.simulators.simulator import Headers, Request, Response
from holdfast.testing.simulators.slack import Limits, SlackSimulator
from holdfast.testing.simulators.webhooks import WebhookSimulator

SPECS = Path(__file__).parents[3] / "shared" / "specs" / "notifications"
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOOK = "https://shop.test/slack"
UNLIMITED = Limits(tier1=0, tier2=0, tier3=0, tier4=0, channel=0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def slack(clock: ManualClock) -> SlackSimulator:
    return SlackSimulator(seed=7, clock=clock, limits=UNLIMITED, webhook_url=HOOK)


def call(slack: SlackSimulator, method: str, *, token: str | None = None, **body: object) -> Response:
    given = slack.bot_token if token is None else token
    headers = (("authorization", f"Bearer {given}"), ("content-type", "application/json; charset=utf-8"))
    return slack.handle(
        Request(method="POST", target=f"/api/{method}", headers=headers, body=json.dumps(body).encode())
    )


def said(slack: SlackSimulator, method: str, **body: Any) -> Any:
    return json.loads(call(slack, method, **body).body)


def test_it_is_found_by_its_vendors_name() -> None:
    assert load_simulator("slack") is SlackSimulator


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json; charset=utf-8", json.dumps({"channel": "#general", "text": "Hi", "blocks": []})),
        ("application/x-www-form-urlencoded", urlencode({"channel": "general", "text": "Hi", "blocks": "[]"})),
    ],
)
def test_arguments_are_json_or_a_form(slack: SlackSimulator, kind: str, body: str) -> None:
    headers = (("authorization", f"Bearer {slack.bot_token}"), ("content-type", kind))
    answer = slack.handle(Request(method="POST", target="/api/chat.postMessage", headers=headers, body=body.encode()))
    assert json.loads(answer.body)["message"]["text"] == "Hi"


def test_json_without_its_charset_is_warned_about(slack: SlackSimulator) -> None:
    headers = (("authorization", f"Bearer {slack.bot_token}"), ("content-type", "application/json"))
    answer = slack.handle(Request(method="POST", target="/api/auth.test", headers=headers, body=b"{}"))
    assert json.loads(answer.body)["warning"] == "missing_charset"


@pytest.mark.parametrize(
    ("method", "body", "error"),
    [
        ("chat.postMessage", {"channel": "nowhere", "text": "Hi"}, "channel_not_found"),
        ("chat.postMessage", {"channel": "general"}, "no_text"),
        ("chat.postMessage", {"channel": "general", "blocks": "nonsense"}, "invalid_blocks_format"),
        ("chat.postMessage", {"channel": "general", "blocks": [{}]}, "invalid_blocks"),
        ("chat.postMessage", {"channel": "general", "blocks": [{"type": "divider"}] * 51}, "invalid_blocks"),
        ("chat.postMessage", {"channel": "general", "attachments": [{}] * 101}, "too_many_attachments"),
        ("chat.postMessage", {"channel": "general", "text": "Hi", "thread_ts": "1.0"}, "thread_not_found"),
        ("chat.postMessage", {"channel": "U0", "text": "Hi"}, "user_not_found"),
        ("chat.postMessage", {"channel": "old", "text": "Hi"}, "is_archived"),
        ("chat.postMessage", {"channel": "secret", "text": "Hi"}, "not_in_channel"),
        ("chat.postEphemeral", {"channel": "general", "text": "Hi", "user": "U0"}, "user_not_in_channel"),
        ("chat.update", {"channel": "general", "ts": "1.0", "text": "Hi"}, "message_not_found"),
        ("chat.delete", {"channel": "general", "ts": "1.0"}, "message_not_found"),
        ("chat.scheduleMessage", {"channel": "general", "text": "Hi", "post_at": 1}, "time_in_past"),
        ("chat.scheduleMessage", {"channel": "general", "text": "Hi", "post_at": 9_999_999_999}, "time_too_far"),
        ("chat.deleteScheduledMessage", {"scheduled_message_id": "Q0"}, "invalid_scheduled_message_id"),
        ("conversations.list", {"cursor": "!"}, "invalid_cursor"),
        ("conversations.list", {"limit": 1001}, "invalid_limit"),
        ("conversations.open", {}, "users_list_not_supplied"),
        ("conversations.join", {"channel": "old"}, "is_archived"),
        ("conversations.replies", {"channel": "general", "ts": "1.0"}, "thread_not_found"),
        ("users.info", {"user": "U0"}, "user_not_found"),
        ("users.lookupByEmail", {"email": "nobody@example.com"}, "users_not_found"),
        ("chat.shout", {}, "unknown_method"),
        ("api.test", {"error": "mine"}, "mine"),
    ],
)
def test_a_wrong_call_is_refused_in_slacks_words_with_status_200(
    slack: SlackSimulator, method: str, body: dict[str, Any], error: str
) -> None:
    slack.add_channel("old", archived=True)
    slack.add_channel("secret", private=True, member=False)

    answer = call(slack, method, **body)

    assert (answer.status, json.loads(answer.body)["error"]) == (200, error)
    assert slack.messages == []


@pytest.mark.parametrize(("token", "error"), [("", "not_authed"), ("xoxb-wrong", "invalid_auth")])
def test_another_token_is_refused(slack: SlackSimulator, token: str, error: str) -> None:
    assert json.loads(call(slack, "auth.test", token=token).body)["error"] == error


def test_an_app_that_was_thrown_out_hears_of_it(slack: SlackSimulator) -> None:
    assert said(slack, "auth.revoke", test=True)["revoked"] is False
    slack.revoke_token()
    assert said(slack, "auth.test")["error"] == "token_revoked"
    assert [webhook.event for webhook in slack.outbox] == ["tokens_revoked"]


async def test_a_rotating_token_expires_and_is_renewed(clock: ManualClock) -> None:
    # given
    slack = SlackSimulator(clock=clock, token_life=43_200)
    basic = base64.b64encode(f"{slack.client_id}:{slack.client_secret}".encode()).decode()
    headers: Headers = (("authorization", f"Basic {basic}"), ("content-type", "application/x-www-form-urlencoded"))

    def renew(refresh_token: str) -> Any:
        body = urlencode({"grant_type": "refresh_token", "refresh_token": refresh_token}).encode()
        return json.loads(
            slack.handle(Request(method="POST", target="/api/oauth.v2.access", headers=headers, body=body)).body
        )

    # when
    await clock.advance(43_200)
    expired, refresh = said(slack, "auth.test"), slack.refresh_token
    renewed, again = renew(refresh), renew(refresh)

    # then
    assert (expired["error"], again["error"]) == ("token_expired", "invalid_refresh_token")
    assert (renewed["access_token"], renewed["expires_in"]) == (slack.bot_token, 43_200)
    assert said(slack, "auth.test")["ok"]


async def test_one_message_a_second_in_each_channel(clock: ManualClock) -> None:
    slack = SlackSimulator(clock=clock)

    first, second = (call(slack, "chat.postMessage", channel="general", text="Hi") for _ in range(2))
    other = call(slack, "chat.postMessage", channel="alerts", text="Hi")
    await clock.advance(1)

    assert (first.status, second.status, other.status) == (200, 429, 200)
    assert dict(second.headers)["retry-after"] == "1"
    assert json.loads(second.body) == {"ok": False, "error": "ratelimited"}
    assert call(slack, "chat.postMessage", channel="general", text="Hi").status == 200


async def test_each_method_has_its_tier(clock: ManualClock) -> None:
    slack = SlackSimulator(clock=clock)

    statuses = [call(slack, "users.list").status for _ in range(21)]
    await clock.advance(60)

    assert statuses == [200] * 20 + [429]
    assert call(slack, "users.list").status == 200


def test_a_planned_429_says_how_long_in_slacks_way(slack: SlackSimulator) -> None:
    slack.faults.on("slack", "messages.send").script(Status(429, retry_after=7), Status(503))
    headers = (("authorization", f"Bearer {slack.bot_token}"),)
    asked = Request(method="POST", target="/api/chat.postMessage", headers=headers)

    answers = [slack.exchange(asked).response for _ in range(2)]

    assert [(one.status, json.loads(one.body)["error"]) for one in answers if one] == [
        (429, "ratelimited"),
        (503, "service_unavailable"),
    ]
    assert answers[0] is not None
    assert dict(answers[0].headers)["retry-after"] == "7"


def test_threads_edits_reactions_and_history(slack: SlackSimulator) -> None:
    # given
    first = said(slack, "chat.postMessage", channel="general", text="one")
    place = {"channel": first["channel"]}
    said(slack, "chat.postMessage", **place, text="reply", thread_ts=first["ts"])
    said(slack, "chat.postMessage", **place, text="two")

    # when
    edited = said(slack, "chat.update", **place, ts=first["ts"], text="uno")
    reacted = [said(slack, "reactions.add", **place, timestamp=first["ts"], name="eyes").get("error") for _ in range(2)]
    link = said(slack, "chat.getPermalink", **place, message_ts=first["ts"])["permalink"]
    page = said(slack, "conversations.history", **place, limit=1)
    rest = said(slack, "conversations.history", **place, cursor=page["response_metadata"]["next_cursor"])

    # then
    assert edited["message"]["edited"]["user"] == slack.bot_user
    assert reacted == [None, "already_reacted"]
    assert link.endswith(f"/p{first['ts'].replace('.', '')}")
    assert ([one["text"] for one in page["messages"]], page["has_more"]) == (["two"], True)
    assert [one["text"] for one in rest["messages"]] == ["uno"]
    assert [one["text"] for one in said(slack, "conversations.replies", **place, ts=first["ts"])["messages"]] == [
        "uno",
        "reply",
    ]
    assert said(slack, "conversations.history", **place, oldest=first["ts"])["messages"][-1]["text"] == "two"


async def test_a_scheduled_message_is_written_when_it_is_time(slack: SlackSimulator, clock: ManualClock) -> None:
    # given
    at = int((NOW + timedelta(hours=1)).timestamp())
    ids = [said(slack, "chat.scheduleMessage", channel="general", text=text, post_at=at) for text in ("a", "b")]
    said(slack, "chat.deleteScheduledMessage", channel="general", scheduled_message_id=ids[0]["scheduled_message_id"])
    listed = said(slack, "chat.scheduledMessages.list")["scheduled_messages"]

    # when
    before = len(slack.messages)
    await clock.advance(3600)
    slack.tick()

    # then
    assert ([one["text"] for one in listed], before) == (["b"], 0)
    assert [message["text"] for message in slack.messages] == ["b"]


def test_a_person_has_one_conversation_with_the_app(slack: SlackSimulator) -> None:
    person = slack.add_person("ann", "ann@example.com")

    opened = said(slack, "conversations.open", users=person)
    posted = said(slack, "chat.postMessage", channel=person, text="Hi")
    again = said(slack, "conversations.open", users=person)

    assert opened["channel"]["id"] == posted["channel"] == again["channel"]["id"]
    assert again["already_open"]
    assert slack.ledger.exactly_once(message(to=person)).facts == {"to": person, "text": "Hi"}


@pytest.mark.parametrize(
    ("target", "body", "status", "words"),
    [
        ("", b'{"text":"Hi"}', 200, b"ok"),
        ("", b"nonsense", 400, b"invalid_payload"),
        ("", b"[]", 400, b"invalid_payload"),
        ("", b"{}", 400, b"no_text"),
        ("0", b'{"text":"Hi"}', 404, b"no_service"),
    ],
)
def test_the_incoming_webhook_answers_in_plain_text(
    slack: SlackSimulator, target: str, body: bytes, status: int, words: bytes
) -> None:
    answer = slack.handle(Request(method="POST", target=slack.service + target, body=body))
    assert (answer.status, answer.body) == (status, words)


def test_the_incoming_webhook_of_an_archived_channel_is_gone(slack: SlackSimulator) -> None:
    slack.archive("general")
    assert slack.handle(Request(method="POST", target=slack.service, body=b'{"text":"Hi"}')).status == 410


# What it tells an app


def test_an_event_carries_its_envelope_and_a_signature(slack: SlackSimulator) -> None:
    # given
    slack.write("general", next(iter(slack.people)), f"<@{slack.bot_user}> Hi")

    # when
    message, mention = slack.outbox
    headers = dict(slack.sign(message.body, secret=slack.webhook_secret, at=NOW))

    # then
    told = json.loads(message.body)
    assert (told["type"], told["event"]["type"]) == ("event_callback", "message")
    assert json.loads(mention.body)["event"]["type"] == "app_mention"
    signed = f"v0:{int(NOW.timestamp())}:".encode() + message.body
    mac = hmac.new(slack.webhook_secret.encode(), signed, hashlib.sha256).hexdigest()
    assert headers == {"x-slack-request-timestamp": str(int(NOW.timestamp())), "x-slack-signature": f"v0={mac}"}


def test_buttons_and_commands_come_as_forms(slack: SlackSimulator) -> None:
    posted = said(slack, "chat.postMessage", channel="general", text="Refund?")
    person = next(iter(slack.people))

    slack.press(posted["channel"], posted["ts"], person, "refund", "o1")
    slack.command("general", person, "/refund", "o1 & o2")

    pressed, typed = (parse_qs(webhook.body.decode()) for webhook in slack.outbox)
    assert json.loads(pressed["payload"][0])["actions"][0]["value"] == "o1"
    assert typed["text"] == ["o1 & o2"]


async def test_a_refused_event_comes_three_times_more_and_says_so(slack: SlackSimulator, clock: ManualClock) -> None:
    # given
    came: list[dict[str, str]] = []

    async def refuse(url: str, headers: Headers, body: bytes) -> int:
        came.append(dict(headers))
        return 500

    # when
    challenge = slack.verify_url()
    await WebhookSimulator([slack], refuse, clock=clock).deliver()

    # then
    assert len(challenge) == 64
    assert [one.get("x-slack-retry-num") for one in came] == [None, "1", "2", "3"]
    assert came[1]["x-slack-retry-reason"] == "http_error"


def test_a_reset_simulator_has_forgotten_everything(slack: SlackSimulator) -> None:
    said(slack, "chat.postMessage", channel="general", text="Hi")
    slack.revoke_token()
    slack.reset()
    assert (slack.messages, len(slack.outbox), said(slack, "auth.test")["ok"]) == ([], 0, True)


# The published descriptions


def _loosened(schema: object) -> object:
    """Without the ban on fields the description, of 2021, does not know."""
    if isinstance(schema, dict):
        return {name: _loosened(part) for name, part in schema.items() if name != "additionalProperties"}
    return [_loosened(part) for part in schema] if isinstance(schema, list) else schema


def test_what_it_answers_and_tells_fits_the_published_descriptions(slack: SlackSimulator) -> None:
    # given
    if not SPECS.exists():
        pytest.skip("the published API descriptions are not here")
    described = json.loads((SPECS / "slack_web_openapi_v2.json").read_text())
    posted = said(slack, "chat.postMessage", channel="general", text="Hi")
    person, place = next(iter(slack.people)), {"channel": posted["channel"]}
    at = {**place, "ts": posted["ts"]}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("auth.test", {}),
        ("chat.postMessage", {**place, "text": "Hi"}),
        ("chat.update", {**at, "text": "Ho"}),
        ("chat.getPermalink", {**place, "message_ts": posted["ts"]}),
        ("chat.scheduleMessage", {**place, "text": "Hi", "post_at": int(NOW.timestamp()) + 60}),
        ("conversations.list", {}),
        ("conversations.info", place),
        ("conversations.history", place),
        ("conversations.replies", at),
        ("conversations.open", {"users": person}),
        ("conversations.members", place),
        ("users.info", {"user": person}),
        ("users.list", {}),
        ("users.lookupByEmail", {"email": "grace@example.com"}),
        ("chat.delete", at),
    ]

    # then
    for method, body in calls:
        [operation] = described["paths"][f"/{method}"].values()
        schema = {**operation["responses"]["200"]["schema"], "definitions": described["definitions"]}
        jsonschema.Draft4Validator(_loosened(schema)).validate(said(slack, method, **body))
    slack.write("general", person, "Hi")
    wrapper = json.loads((SPECS / "slack_common_event_wrapper_schema.json").read_text())
    jsonschema.Draft7Validator(wrapper).validate(json.loads(slack.outbox[-1].body))
