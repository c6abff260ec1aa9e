"""The official SDKs, each in an environment of its own, take the simulators for their vendors."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.clock import SystemClock
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Reset
from holdfast.testing.intents import charge, message, offer
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.forgeries import Manner, dress, forgeries
from holdfast.testing.simulators.simulator import Request, Response, Simulator, Webhook
from holdfast.testing.simulators.slack import Limits as SlackLimits
from holdfast.testing.simulators.slack import SlackSimulator
from holdfast.testing.simulators.stripe import Limits as StripeLimits
from holdfast.testing.simulators.stripe import StripeSimulator
from holdfast.testing.simulators.telegram import Limits as TelegramLimits
from holdfast.testing.simulators.telegram import TelegramSimulator
from holdfast.testing.simulators.twilio import Limits as TwilioLimits
from holdfast.testing.simulators.twilio import TwilioSimulator
from holdfast.values import Money
from tests.servers.environments import ROOT, environment

PROGRAMS = Path(__file__).parent / "official_sdks"
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOOK = "https://shop.test/hooks?shop=1"
FORGED_WITH_TIME = (
    Manner.WRONG_KEY,
    Manner.ALTERED_BYTE,
    Manner.STALE,
    Manner.MISSING_HEADER,
    Manner.OLD_VERSION,
    Manner.RESERIALISED,
)


async def run(vendor: str, function: str, given: dict[str, object]) -> Any:
    """What the program's function says, run in the SDK's own environment."""
    python = await asyncio.to_thread(environment, f"sdk-{vendor}") / "bin" / "python"
    process = await asyncio.create_subprocess_exec(
        python,
        *("-W", "error::DeprecationWarning:__main__", PROGRAMS / f"use_{vendor}.py", function),
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "NO_PROXY": "*"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            said, complaint = await process.communicate(json.dumps(given).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaint.decode()
    return json.loads(said)


async def use(simulator: Simulator, function: str, **given: object) -> Any:
    """The same against the simulator, over a socket."""
    async with Edge(simulator) as edge:
        return await run(simulator.vendor, function, {"url": edge.url, **simulator.credentials, **given})


def sent_as(simulator: Simulator, webhook: Webhook) -> list[tuple[Manner, tuple[str, dict[str, str], str]]]:
    """The webhook as it is, and as each forger would send it."""
    manners = (Manner.GENUINE, *forgeries(simulator, webhook))
    dressed = [(manner, dress(simulator, webhook, manner, simulator.clock.now())) for manner in manners]
    return [(manner, (url, dict(headers), body.decode())) for manner, (url, headers, body) in dressed]


def passing(manners: Sequence[Manner]) -> list[bool]:
    return [not manner.forged for manner in manners]


# Stripe


async def test_stripes_sdk_creates_reads_lists_replays_and_understands_every_error() -> None:
    # given
    stripe = StripeSimulator(clock=ManualClock(NOW), limits=StripeLimits(calls=0), search_lag=0)

    # when
    said = await use(stripe, "calls")

    # then
    [id, url, total, status] = said["session"]
    assert (id[:10], url.endswith(f"/c/pay/{id}"), total, status) == ("cs_test_a1", True, 12_000, "open")
    assert said["read"] == "Consultation"
    assert (said["same"], said["replayed"]) == (True, "true")
    assert said["statuses"] == ["requires_payment_method", "requires_capture", "succeeded", "succeeded"]
    assert said["net"] == 800 - 23 - 30
    assert said["customers"] == [f"{number}@example.com" for number in (4, 3, 2, 1, 0)]
    assert said["backwards"] == [f"{number}@example.com" for number in (1, 2, 3, 4)]
    assert said["metadata"] == {"6735": "a"}
    assert said["found"]
    assert said["events"] == [
        "payment_intent.succeeded",
        "payment_intent.amount_capturable_updated",
        "payment_intent.payment_failed",
        "payment_intent.created",
    ]
    assert said["pending"]["amount"] == 800 - 53 - 300
    found = {name: error for name, error in said.items() if isinstance(error, dict) and "class" in error}
    errors = {name: (error["class"], error["status"], error["code"]) for name, error in found.items()}
    assert errors == {
        "declined": ("CardError", 402, "card_declined"),
        "other_parameters": ("IdempotencyError", 400, None),
        "missing": ("InvalidRequestError", 404, "resource_missing"),
        "unknown": ("InvalidRequestError", 400, "parameter_unknown"),
        "too_much": ("InvalidRequestError", 400, None),
        "wrong_key": ("AuthenticationError", 401, None),
    }
    assert said["declined"]["decline_code"] == "generic_decline"
    assert all(said[name]["has_request_id"] for name in errors)
    assert stripe.ledger.exactly_once(offer(reference="order-1")).money == Money("120.00", "CHF")
    assert stripe.ledger.captured("order-2", "USD") == Money("5.00", "USD")


async def test_stripes_sdk_charges_tokens_and_keeps_cards() -> None:
    # given
    stripe = StripeSimulator(clock=ManualClock(NOW))

    # when
    said = await use(stripe, "older")

    # then
    assert said == {
        "charges": [True, "succeeded", "4242"],
        "given_back": "succeeded",
        "declined": "card_declined",
        "setup": ["succeeded", True],
        "kept": True,
        "asked": "redirect_to_url",
        "canceled": "canceled",
        "refused": "CardError",
    }
    assert stripe.ledger.exactly_once(charge(reference="order-4")).money == Money("10.00", "USD")
    assert stripe.ledger.captured("order-4", "USD") == Money("0.00", "USD")


async def test_stripes_sdk_works_as_a_module_and_asynchronously() -> None:
    said = await use(StripeSimulator(clock=ManualClock(NOW)), "global_style")
    assert said == ["async@example.com", True]


async def test_stripes_sdk_hears_of_the_limit_at_the_call_after_it() -> None:
    said = await use(StripeSimulator(clock=ManualClock(NOW), limits=StripeLimits(calls=7)), "limited")
    assert (said["after"], said["class"], said["status"]) == (7, "RateLimitError", 429)


async def test_stripes_sdk_retries_a_lost_answer_into_one_charge() -> None:
    # given
    stripe = StripeSimulator(clock=ManualClock(NOW))
    stripe.faults.on("stripe", "payments.create").script(Reset())

    # when
    said = await use(stripe, "lost_answer")

    # then
    assert said == {"status": "succeeded", "replayed": "true"}
    assert stripe.ledger.exactly_once(charge(reference="order-3")).money == Money("10.00", "USD")
    assert [request.path for request in stripe.requests] == ["/v1/payment_intents"] * 2


async def test_stripes_validator_lets_through_what_stripe_signed_and_nothing_else() -> None:
    # given
    stripe = StripeSimulator(webhook_url=HOOK, clock=SystemClock())
    old = stripe.webhook_secret
    stripe.happen("customer.created", {"id": "cus_1", "object": "customer", "metadata": {}})
    webhook = stripe.outbox[0]
    cases = sent_as(stripe, webhook)
    signed = [[headers.get("stripe-signature", ""), body, old] for _, (_, headers, body) in cases]
    new = stripe.roll_secret()
    _, (_, headers, body) = sent_as(stripe, webhook)[0]
    rolled = [[headers["stripe-signature"], body, secret] for secret in (old, new, "whsec_other")]
    stripe.retire_secret()
    after = sent_as(stripe, webhook)
    retired = [[headers.get("stripe-signature", ""), body, new] for _, (_, headers, body) in after]
    left_behind = [retired[0][0], retired[0][1], old]

    # when
    said = await run("stripe", "validate", {"webhooks": [*signed, *rolled, *retired, left_behind]})

    # then
    kind = "customer.created"
    assert {manner for manner, _ in cases} == {Manner.GENUINE, *FORGED_WITH_TIME}
    assert {manner for manner, _ in after} == {Manner.GENUINE, *FORGED_WITH_TIME, Manner.RETIRED_SECRET}
    expected = [passing([manner for manner, _ in one]) for one in (cases, after)]
    accepted = [*expected[0], True, True, False, *expected[1], False]
    assert said == [kind if one else None for one in accepted]


# Slack


async def test_slacks_sdk_creates_reads_lists_and_understands_every_error() -> None:
    # given
    clock = ManualClock(NOW)
    slack = SlackSimulator(clock=clock)

    # when
    said = await use(slack, "calls")

    # then
    assert said == {
        "bot": "B",
        "ts": f"{NOW.timestamp():.6f}",
        "blocks": True,
        "direct": "D",
        "throttled": [429, "ratelimited", "1"],
        "unknown": [200, "channel_not_found", None],
        "no_text": [200, "no_text", None],
        "wrong_token": [200, "invalid_auth", None],
        "no_method": [200, "unknown_method", None],
        "edited": "Refunded",
        "history": ["Refunded"],
        "pages": [["general"], ["alerts"]],
        "deleted": True,
        "after": [],
        "hook": [429, 429],
    }
    assert slack.ledger.exactly_once(message(key="order-1")).facts["text"] == "Paid"
    assert len(slack.ledger) == 2


async def test_slacks_asynchronous_sdk_works() -> None:
    assert await use(SlackSimulator(clock=ManualClock(NOW)), "asynchronous") == ["async", ["grace"]]


async def test_slacks_sdk_uploads_files_in_three_steps() -> None:
    # given
    slack = SlackSimulator(clock=ManualClock(NOW))

    # when
    said = await use(slack, "files")

    # then
    assert said == {
        "file": ["invoice.txt", "Invoice 4711", 10],
        "said": [["Your invoice", ["Invoice 4711"]]],
        "read": "Invoice 4711",
        "alone": ["1.txt", "2.txt"],
        "nowhere": [200, "channel_not_found", None],
        "never_uploaded": [200, "file_not_found", None],
    }
    assert [file.content for file in slack.files.values() if file.is_shown] == [b"CHF 120.00", b"x", b"xx"]
    assert len(slack.ledger) == 1


async def test_slacks_sdk_waits_as_long_as_it_is_told() -> None:
    slack = SlackSimulator(limits=SlackLimits(channel=1))

    said = await use(slack, "patient")

    assert said == [True, True]
    assert [message["text"] for message in slack.messages] == ["one", "two"]
    assert len(slack.requests) == 3


async def test_slacks_validator_lets_through_what_slack_signed_and_nothing_else() -> None:
    # given
    slack = SlackSimulator(webhook_url=HOOK)
    slack.write("general", next(iter(slack.people)), "Hi 1")
    slack.command("general", next(iter(slack.people)), "/refund", "order 1 & 2")
    cases = [case for webhook in slack.outbox for case in sent_as(slack, webhook)]

    # when
    webhooks = [[headers, body, slack.webhook_secret] for _, (_, headers, body) in cases]
    said = await run("slack", "validate", {"webhooks": webhooks})

    # then
    assert {manner for manner, _ in cases} == {Manner.GENUINE, *FORGED_WITH_TIME}
    assert said == passing([manner for manner, _ in cases])


# Twilio


async def test_twilios_sdk_creates_reads_lists_and_understands_every_error() -> None:
    # given
    twilio = TwilioSimulator(clock=ManualClock(NOW), limits=TwilioLimits(calls=0))

    # when
    said = await use(twilio, "calls", later=(NOW + timedelta(hours=1)).isoformat())

    # then
    assert said == {
        "sent": ["SM", "queued", "2026-03-02T12:00:00+00:00", "1", "outbound-api"],
        "read": "Your code is 4711",
        "listed": ["later", "twice", "twice", "number 4", "number 3", "number 2", "Your code is 4711"],
        "to": [True],
        "twice": 2,
        "scheduled": ["scheduled", "canceled"],
        "invalid": [400, 21211, "Invalid 'To' Phone Number: 12"],
        "stopped": [400, 21610, "Attempt to send to unsubscribed recipient"],
        "nothing": [400, 21602, "Message body is required."],
        "not_ours": [400, 21606, said["not_ours"][2]],
        "missing": [404, 20404, said["missing"][2]],
        "wrong_token": said["wrong_token"],
        "account": "active",
        "balance": "USD",
    }
    assert "20003" in said["wrong_token"][0]
    assert len(twilio.ledger.entries(Kind.MESSAGE, key="+41790000009")) == 2


async def test_twilios_asynchronous_sdk_works() -> None:
    assert await use(TwilioSimulator(clock=ManualClock(NOW)), "asynchronous") == [True]


async def test_twilios_sdk_hears_of_the_limit_at_the_call_after_it() -> None:
    twilio = TwilioSimulator(clock=ManualClock(NOW), limits=TwilioLimits(calls=3))
    assert await use(twilio, "limited") == [3, 429, 20429]


async def test_twilios_sdk_cleans_up_what_has_arrived() -> None:
    # given
    clock = ManualClock(NOW)
    twilio = TwilioSimulator(clock=clock)
    sid = twilio.write("+41790000001", "STOP")
    twilio.messages[sid].status = "delivered"

    # then
    assert await use(twilio, "clean_up", sid=sid) == ["delivered", "", True, 20404]


async def test_twilios_validator_lets_through_what_twilio_signed_and_nothing_else() -> None:
    # given
    twilio = TwilioSimulator(webhook_url=HOOK)
    twilio.write("+41790000001", "Ja, bitte: 2 & mehr")
    twilio.write("+41790000001", "")
    cases = [case for webhook in twilio.outbox for case in sent_as(twilio, webhook)]

    # when
    signed = [
        [url, headers.get("x-twilio-signature", ""), body, twilio.auth_token] for _, (url, headers, body) in cases
    ]
    elsewhere = ["https://shop.test/hooks?shop=2", *signed[0][1:]]
    said = await run("twilio", "validate", {"webhooks": [*signed, elsewhere]})

    # then
    assert {manner for manner, _ in cases} == {
        Manner.GENUINE,
        Manner.WRONG_KEY,
        Manner.ALTERED_BYTE,
        Manner.WRONG_URL,
        Manner.MISSING_HEADER,
    }
    assert said == [*passing([manner for manner, _ in cases]), False]


# Telegram


async def test_telegrams_sdk_creates_reads_edits_uploads_and_understands_every_error() -> None:
    # given
    telegram = TelegramSimulator(clock=ManualClock(NOW))

    # when
    said = await use(telegram, "calls")

    # then
    modified = said["not_modified"]
    assert (modified[0], modified[1].startswith("Message is not modified")) == ("BadRequest", True)
    conflict = said["webhook"].pop(2)
    assert (conflict[0], "webhook is active" in conflict[1]) == ("Conflict", True)
    assert said == {
        "me": ["simulated_bot", True],
        "sent": ["Hi Ann", [["bold", 0, 2]]],
        "again": ["RetryAfter", 1],
        "file": "an invoice",
        "photo": 8,
        "by_id": "invoice.txt",
        "album": 1,
        "forwarded": "user",
        "copied": 1,
        "edited": "new",
        "not_modified": modified,
        "reserved": [
            "BadRequest",
            "Can't parse entities: character '.' is reserved and must be escaped with the preceding '\\'",
        ],
        "empty": ["BadRequest", "Message text is empty"],
        "deleted": True,
        "gone": ["BadRequest", "Message to delete not found"],
        "chat": "private",
        "webhook": [True, "https://shop.test/telegram", True],
        "wrong_token": ["InvalidToken", "The token `4711:wrong` was rejected by the server."],
    }
    assert len(telegram.ledger.entries(Kind.MESSAGE)) == 8


async def test_telegrams_sdk_hears_of_people_who_left_groups_that_moved_and_limits() -> None:
    # given
    known = {"1", "2", "-3", "4", "5"}
    telegram = TelegramSimulator(clock=ManualClock(NOW), known=known, limits=TelegramLimits(bot=1))
    telegram.block(1)
    telegram.deactivate(2)
    telegram.migrate(-3, -1003)

    # then
    assert await use(telegram, "broken", chats=[1, 2, -3, 9, 4, 5]) == [
        ["Forbidden", "Forbidden: bot was blocked by the user"],
        ["Forbidden", "Forbidden: user is deactivated"],
        ["ChatMigrated", "Group migrated to supergroup. New chat id: -1003"],
        ["BadRequest", "Chat not found"],
        None,
        ["RetryAfter", 1],
    ]


class Prompt(TelegramSimulator):
    """Somebody presses the button as soon as the bot has answered."""

    def handle(self, request: Request) -> Response:
        before = len(self.messages)
        response = super().handle(request)
        if len(self.messages) > before:
            self.press(1, self.messages[-1].id, "pay:order-1")
        return response


async def test_an_application_of_telegrams_sdk_hears_people_by_polling() -> None:
    # given
    telegram = Prompt()
    telegram.write(1, "/start now")

    # when
    heard = await use(telegram, "application")

    # then
    assert heard == [["/start now", "Somebody"], ["pay:order-1", "Welcome"]]


@pytest.mark.parametrize("vendor", ["slack", "stripe", "telegram", "twilio"])
def test_each_sdk_is_locked_and_ours_is_not_among_its_packages(vendor: str) -> None:
    locked = (ROOT / "requirements" / f"sdk-{vendor}.txt").read_text()
    assert "--hash=sha256:" in locked
    assert "holdfast" not in locked
