"""Twilio's simulator: what it takes, when it arrives, who wants no more of it, and how it signs what it tells."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import jsonschema
import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Reset, Status
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators import load_simulator
from holdfast.testing.simulators.forgeries import Manner, forgeries
from holdfast.testing.simulators.simulator import Request, Response
from holdfast.testing.simulators.twilio import Limits, TwilioSimulator, segments

SPEC = Path(__file__).parents[3] / "shared" / "specs" / "notifications" / "twilio_api_v2010.json"
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
ANN = "+41790000001"
SMS = {"To": ANN, "From": "+15005550006", "Body": "Hi"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def twilio(clock: ManualClock) -> TwilioSimulator:
    return TwilioSimulator(seed=7, clock=clock, limits=Limits(calls=0, segments=0), webhook_url="https://shop.test/sms")


def request(
    twilio: TwilioSimulator, method: str, path: str, form: dict[str, str] | None = None, *, user: str = ""
) -> Request:
    basic = b64encode((user or f"{twilio.account_sid}:{twilio.auth_token}").encode()).decode()
    headers = (("authorization", f"Basic {basic}"), ("content-type", "application/x-www-form-urlencoded"))
    target = f"/2010-04-01/Accounts/{twilio.account_sid}{path}"
    return Request(method=method, target=target, headers=headers, body=urlencode(form or {}).encode())


def say(twilio: TwilioSimulator, method: str, path: str, form: dict[str, str] | None = None) -> Response:
    return twilio.handle(request(twilio, method, path, form))


def send(twilio: TwilioSimulator, **form: str) -> Any:
    return json.loads(say(twilio, "POST", "/Messages.json", SMS | form).body)


def status(twilio: TwilioSimulator, sid: str) -> str:
    return str(json.loads(say(twilio, "GET", f"/Messages/{sid}.json").body)["status"])


def test_it_is_found_by_its_vendors_name() -> None:
    assert load_simulator("twilio") is TwilioSimulator


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"To": ""}, 21604),
        ({"From": ""}, 21603),
        ({"Body": ""}, 21602),
        ({"Body": "x" * 1601}, 21617),
        ({"To": "12"}, 21211),
        ({"To": "+15005550001"}, 21211),
        ({"To": "+15005550002"}, 21612),
        ({"To": "+15005550003"}, 21408),
        ({"To": "+15005550004"}, 21610),
        ({"To": "+15005550009"}, 21614),
        ({"From": "+15005550001"}, 21212),
        ({"From": "+15005550007"}, 21606),
        ({"From": "+15005550008"}, 21611),
        ({"From": "", "MessagingServiceSid": "MG0"}, 21701),
        ({"ScheduleType": "fixed", "SendAt": "2026-03-02T13:00:00Z"}, 35118),
    ],
)
def test_a_wrong_message_is_refused_with_twilios_code(twilio: TwilioSimulator, form: dict[str, str], code: int) -> None:
    answer = say(twilio, "POST", "/Messages.json", SMS | form)

    told = json.loads(answer.body)
    assert (told["code"], told["status"], told["more_info"]) == (
        code,
        answer.status,
        f"https://www.twilio.com/docs/errors/{code}",
    )
    assert len(twilio.ledger) == 0


def test_what_is_asked_twice_is_sent_twice(twilio: TwilioSimulator) -> None:
    twilio.faults.on("twilio", "messages.send").script(Reset())
    for _ in range(2):
        twilio.exchange(request(twilio, "POST", "/Messages.json", SMS))
    assert len(twilio.ledger.entries(Kind.MESSAGE, key=ANN)) == 2


@pytest.mark.parametrize("user", ["", "wrong:wrong", "nonsense"])
def test_another_account_is_refused(twilio: TwilioSimulator, user: str) -> None:
    asked = request(twilio, "GET", "/Messages.json", user=user or ":")
    assert (twilio.handle(asked).status, json.loads(twilio.handle(asked).body)["code"]) == (401, 20003)


def test_an_api_key_is_as_good_as_the_token(twilio: TwilioSimulator) -> None:
    given = twilio.credentials
    asked = request(twilio, "GET", "/Balance.json", user=f"{given['api_key_sid']}:{given['api_key_secret']}")
    assert twilio.handle(asked).status == 200


@pytest.mark.parametrize("path", ["/Messages/SM0.json", "/Calls.json"])
def test_what_there_is_not_is_not_found(twilio: TwilioSimulator, path: str) -> None:
    assert json.loads(say(twilio, "GET", path).body)["code"] == 20404


async def test_a_message_leaves_and_arrives_and_its_callbacks_say_so(
    twilio: TwilioSimulator, clock: ManualClock
) -> None:
    # given
    sid = send(twilio, StatusCallback="https://shop.test/status?o=1")["sid"]

    # when
    seen = [status(twilio, sid)]
    for _ in range(2):
        await clock.advance(1)
        seen.append(status(twilio, sid))

    # then
    assert seen == ["queued", "sent", "delivered"]
    told = [parse_qs(webhook.body.decode())["MessageStatus"] for webhook in twilio.outbox]
    assert (told, {webhook.url for webhook in twilio.outbox}) == (
        [["sent"], ["delivered"]],
        {"https://shop.test/status?o=1"},
    )


async def test_who_cannot_be_reached_is_not(twilio: TwilioSimulator, clock: ManualClock) -> None:
    twilio.unreachable(ANN, 30005)
    sid = send(twilio)["sid"]
    await clock.advance(2)
    found = json.loads(say(twilio, "GET", f"/Messages/{sid}.json").body)
    assert (found["status"], found["error_code"]) == ("undelivered", 30005)


async def test_a_number_sends_a_segment_a_second_and_gives_up_what_waits_too_long(clock: ManualClock) -> None:
    # given
    twilio = TwilioSimulator(clock=clock, limits=Limits(calls=0, segments=1))
    first, second = send(twilio, Body="x" * 306)["sid"], send(twilio)["sid"]
    third = send(twilio, ValidityPeriod="2")["sid"]

    # when
    await clock.advance(2)

    # then
    assert [status(twilio, sid) for sid in (first, second, third)] == ["delivered", "queued", "failed"]
    await clock.advance(1)
    assert status(twilio, second) == "sent"


async def test_a_scheduled_message_waits_and_can_be_called_off(twilio: TwilioSimulator, clock: ManualClock) -> None:
    # given
    at = {"ScheduleType": "fixed", "SendAt": (NOW + timedelta(hours=1)).isoformat(), "From": ""}
    at["MessagingServiceSid"] = twilio.service_sid
    kept, called_off = (send(twilio, **at)["sid"] for _ in range(2))

    # when
    say(twilio, "POST", f"/Messages/{called_off}.json", {"Status": "canceled"})
    await clock.advance(3602)

    # then
    assert (status(twilio, kept), status(twilio, called_off)) == ("delivered", "canceled")
    assert say(twilio, "POST", f"/Messages/{kept}.json", {"Status": "canceled"}).status == 409


async def test_who_says_stop_gets_nothing_more_until_they_say_start(twilio: TwilioSimulator) -> None:
    twilio.write(ANN, " stop ")
    refused = send(twilio)
    twilio.write(ANN, "START")

    assert (refused["code"], send(twilio)["status"]) == (21610, "queued")
    assert parse_qs(twilio.outbox[0].body.decode())["OptOutType"] == ["STOP"]


async def test_what_has_arrived_can_be_emptied_and_deleted(twilio: TwilioSimulator, clock: ManualClock) -> None:
    sid = send(twilio)["sid"]
    early = [say(twilio, "DELETE", f"/Messages/{sid}.json"), say(twilio, "POST", f"/Messages/{sid}.json", {"Body": ""})]
    await clock.advance(2)

    emptied = json.loads(say(twilio, "POST", f"/Messages/{sid}.json", {"Body": ""}).body)
    deleted = say(twilio, "DELETE", f"/Messages/{sid}.json")

    assert [answer.status for answer in early] == [409, 409]
    assert (emptied["body"], deleted.status, deleted.body) == ("", 204, b"")
    assert say(twilio, "GET", f"/Messages/{sid}.json").status == 404


async def test_lists_are_in_pages_and_by_number_and_day(twilio: TwilioSimulator, clock: ManualClock) -> None:
    # given
    for number in range(5):
        send(twilio, Body=f"n{number}", To=f"+4179000000{number}")
    await clock.advance(86_400)
    send(twilio, Body="tomorrow")

    def listed(query: str) -> Any:
        return json.loads(say(twilio, "GET", f"/Messages.json?{query}").body)

    def bodies(**query: str) -> list[str]:
        return [one["body"] for one in listed(urlencode(query))["messages"]]

    # when
    first = listed("PageSize=4")
    second = listed(first["next_page_uri"].partition("?")[2])

    # then
    assert [one["body"] for one in first["messages"]] == ["tomorrow", "n4", "n3", "n2"]
    assert [one["body"] for one in second["messages"]] == ["n1", "n0"]
    assert (second["next_page_uri"], second["start"], second["end"]) == (None, 4, 5)
    assert "Page=0" in second["previous_page_uri"]
    assert bodies(To="+41790000003") == ["n3"]
    assert bodies(DateSent="2026-03-03") == bodies(**{"DateSent>": "2026-03-03"})
    assert "tomorrow" not in bodies(**{"DateSent<": "2026-03-02"})
    assert listed("PageSize=0")["code"] == 20001


async def test_so_many_calls_a_second_and_not_one_more(clock: ManualClock) -> None:
    twilio = TwilioSimulator(clock=clock, limits=Limits(calls=3))
    answers = [say(twilio, "GET", "/Balance.json") for _ in range(4)]
    await clock.advance(1)
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert json.loads(answers[-1].body)["code"] == 20429
    assert say(twilio, "GET", "/Balance.json").status == 200


@pytest.mark.parametrize(("planned", "code"), [(429, 20429), (503, 20503), (500, 20500)])
def test_a_planned_failure_has_twilios_code(twilio: TwilioSimulator, planned: int, code: int) -> None:
    twilio.faults.on("twilio").script(Status(planned, retry_after=2))
    response = twilio.exchange(request(twilio, "GET", "/Balance.json")).response
    assert response is not None
    assert (json.loads(response.body)["code"], dict(response.headers)["retry-after"]) == (code, "2")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("x" * 160, 1),
        ("x" * 161, 2),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("ç" * 70, 1),
        ("ç" * 71, 2),
        ("😀" * 36, 2),
    ],
)
def test_long_texts_and_rare_letters_take_more_segments(text: str, count: int) -> None:
    assert segments(text) == count


def test_a_signature_is_over_the_address_and_the_sorted_fields(twilio: TwilioSimulator) -> None:
    # the example of Twilio's documentation
    form = "CallSid=CA1234567890ABCDE&Caller=%2B14158675310&Digits=1234&From=%2B14158675310&To=%2B18005551212"
    url = "https://example.com/myapp.php?foo=1&bar=2#rc=3"

    signed = twilio.sign(form.encode(), secret="12345", at=NOW, url=url)
    doubled = twilio.sign(b"a=2&a=1&a=1", secret="12345", at=NOW, url=url)

    assert dict(signed)["x-twilio-signature"] == "L/OH5YylLD5NRKLltdqwSvS0BnU="
    assert doubled == twilio.sign(b"a=1&a=2", secret="12345", at=NOW, url=url)


def test_an_old_callback_still_verifies_so_no_forger_needs_a_new_one(twilio: TwilioSimulator) -> None:
    twilio.write(ANN, "Hi 1")
    found = forgeries(twilio, twilio.outbox[0])
    assert found == [Manner.WRONG_KEY, Manner.ALTERED_BYTE, Manner.WRONG_URL, Manner.MISSING_HEADER]


def test_a_reset_simulator_has_forgotten_everything(twilio: TwilioSimulator) -> None:
    twilio.write(ANN, "STOP")
    twilio.reset()
    assert (twilio.messages, len(twilio.outbox)) == ({}, 0)
    assert send(twilio)["status"] == "queued"


def test_what_it_answers_fits_the_published_description(twilio: TwilioSimulator) -> None:
    # given
    if not SPEC.exists():
        pytest.skip("the published API descriptions are not here")
    schemas = json.loads(SPEC.read_text())["components"]["schemas"]
    sid = send(twilio)["sid"]
    answers = {
        "api.v2010.account.message": say(twilio, "GET", f"/Messages/{sid}.json"),
        "api.v2010.account.message.message_feedback": say(
            twilio, "POST", f"/Messages/{sid}/Feedback.json", {"Outcome": "confirmed"}
        ),
        "api.v2010.account": say(twilio, "GET", ".json"),
        "api.v2010.account.balance": say(twilio, "GET", "/Balance.json"),
    }

    # then
    for name, answer in answers.items():
        told, described = json.loads(answer.body), schemas[name]["properties"]
        assert told.keys() == described.keys()
        for field, value in told.items():
            reference = described[field].get("$ref", "").rpartition("/")[2]
            schema = schemas[reference] if reference else described[field]
            if value is None:
                assert schema.get("nullable", True)
            else:
                kind = {key: schema[key] for key in ("type", "enum") if key in schema}
                jsonschema.validate(value, kind)
    listed = json.loads(say(twilio, "GET", "/Messages.json").body)
    path = json.loads(SPEC.read_text())["paths"]["/2010-04-01/Accounts/{AccountSid}/Messages.json"]
    described = path["get"]["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert listed.keys() == described.keys()


@pytest.mark.parametrize("query", ["PageSize=x", "Page=x", "DateSent=x", "DateSent%3E=x"])
def test_a_number_or_a_date_that_is_none_is_refused(twilio: TwilioSimulator, query: str) -> None:
    send(twilio)
    assert json.loads(say(twilio, "GET", f"/Messages.json?{query}").body)["code"] == 20001
