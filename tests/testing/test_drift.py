"""Drift: shapes without values, what counts as a change, and how the command tells it."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from holdfast.cli.app import app
from holdfast.errors import (
    CredentialRefused,
    InsecureSetup,
    InvalidInput,
    MissingCredential,
    NotSent,
    Refused,
    Rejected,
)
from holdfast.testing.clock import ManualClock
from holdfast.testing.drift import SANDBOXES, Baseline, Shape, check, compare, record, shape_of
from holdfast.testing.faults import Status
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.simulator import Request, Response, Simulator
from holdfast.testing.simulators.slack import SlackSimulator
from holdfast.testing.simulators.stripe import Limits, StripeSimulator
from holdfast.testing.simulators.telegram import TelegramSimulator
from holdfast.testing.simulators.twilio import TwilioSimulator

FORM = (("content-type", "application/x-www-form-urlencoded"),)


def changes(before: object, now: object) -> list[str]:
    return [str(change) for change in compare(shape_of(before), shape_of(now))]


# Shapes


def test_a_shape_holds_no_value_but_the_words_of_enumerations() -> None:
    # given
    answer = {
        "id": "pi_123",
        "object": "payment_intent",
        "amount": 4711,
        "name": "grace",
        "metadata": {"order": "o-1", "email": "ada@example.org"},
        "by_user": {"U0123ABCD": {"text": "secret"}},
        "last_payment_error": None,
        "data": [{"status": "succeeded"}, {"status": "canceled"}],
    }

    # when
    text = shape_of(answer).model_dump_json(exclude_defaults=True)

    # then
    for value in ("pi_123", "4711", "grace", "o-1", "order", "ada@", "U0123ABCD", "secret"):
        assert value not in text
    for word in ("payment_intent", "succeeded", "canceled", "last_payment_error"):
        assert word in text


@pytest.mark.parametrize("value", ["Visa", "pi_123", "two words", "a" * 41, ""])
def test_only_lower_case_words_are_taken_for_an_enumeration(value: str) -> None:
    assert shape_of({"status": value}).fields["status"].words is None


def test_more_than_a_few_words_are_any_string() -> None:
    many = [{"type": "x" * (number + 1)} for number in range(13)]
    shape = shape_of(many).items
    assert shape is not None
    assert shape.fields["type"].words is None


@pytest.mark.parametrize("deeper", [lambda inside: {"a": inside}, lambda inside: [inside]], ids=["objects", "lists"])
def test_nesting_without_end_is_cut_off(deeper: Callable[[object], object]) -> None:
    # given
    deep: object = 1
    for _ in range(5000):
        deep = deeper(deep)

    # when
    shape: Shape | None = shape_of(deep)
    depth = 0
    while shape is not None:
        depth += 1
        shape = shape.items or shape.fields.get("a")

    # then
    assert depth == 41


# What counts as a change


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"a": 1}, {"a": 1, "b": "x"}, ["+ b: string"]),
        ({"a": 1, "b": "x"}, {"a": 1}, ["- b: string"]),
        ({"a": 1}, {"a": "1"}, ["~ a: integer, and now string"]),
        ({"a": 1}, {"a": None}, ["~ a: may now be null"]),
        ({"a": 1}, {"a": 1.5}, ["~ a: integer, and now number"]),
        ({"a": [{"b": 1}]}, {"a": [{"b": []}]}, ["~ a[].b: integer, and now array"]),
        ([{"a": 1}, {"a": 1}], [{"a": 1}, {}], ["- [].a: no longer always there"]),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": True}}, ["+ a.c: boolean"]),
        ([{"a": 1}, None], [{}, None], ["- [].a: integer"]),
        ({"status": "paid"}, {"status": "lost"}, ["+ status: the word lost, beside paid"]),
        ({"status": "paid"}, {"status": "PAID"}, ["~ status: one of paid, and now any string"]),
        ({"metadata": {"a": "x"}}, {"metadata": {"b": 1}}, ["~ metadata.*: string, and now integer"]),
        ([1], {"a": 1}, ["~ the answer: array, and now object"]),
        ({"a": [1, None]}, {"a": ["x", 2]}, ["~ a[]: integer or null, and now integer or string"]),
    ],
)
def test_added_gone_and_changed_is_told_with_its_place(before: object, now: object, told: list[str]) -> None:
    assert changes(before, now) == told


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1.5}, {"a": 2}),
        ({"a": None}, {"a": {"b": 1}}),
        ({"a": []}, {"a": [{"b": 1}]}),
        ({"a": [{"b": 1}]}, {"a": []}),
        ([{"a": 1}, {"a": None}], [{"a": 1}]),
        ([{"a": 1}, {}], [{}, {}]),
        ([{"status": "paid"}, {"status": "open"}], [{"status": "open"}]),
        ({"metadata": {"a": "x"}}, {"metadata": {"b": "y", "c": "z"}}),
        ({"metadata": {}}, {"metadata": {"b": "y"}}),
        ({"name": "ada"}, {"name": "Grace Hopper"}),
    ],
)
def test_other_data_in_the_same_shapes_is_no_change(before: object, now: object) -> None:
    assert changes(before, now) == []


def test_a_baseline_reads_back_as_it_was_written_and_the_same_shapes_are_the_same_text() -> None:
    # given
    shape = shape_of({"b": [{"status": "paid"}, {"status": None}], "a": {"metadata": {"x": 1}}})
    again = shape_of({"a": {"metadata": {"y": 2}}, "b": [{"status": None}, {"status": "paid"}]})
    baselines = [
        Baseline(vendor="stripe", base_url="http://x", reads={"/v1": {"status": 200, "shape": one}})  # type: ignore[dict-item]  # read as JSON is
        for one in (shape, again)
    ]

    # when
    text = baselines[0].dump()

    # then
    assert Baseline.load(text) == baselines[0]
    assert baselines[1].dump() == text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"vendor":"stripe","reads":{}, "format": 2}', "\x00", "[" * 5000])
def test_what_is_no_baseline_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InvalidInput, match="this is no baseline"):
        Baseline.load(text)


# Against a vendor


class Newer(StripeSimulator):
    """Stripe after an unannounced change."""

    def answer(self, request: Request) -> Response:
        response = super().answer(request)
        if request.path != "/v1/balance":
            return response
        said = json.loads(response.body)
        said["livemode"] = "false"
        said["refunded"] = []
        del said["pending"]
        return Response.json(said, status=response.status)


def stripe_with_a_payment(kind: type[StripeSimulator] = StripeSimulator) -> StripeSimulator:
    stripe = kind(clock=ManualClock(), limits=Limits(calls=0))
    headers = (*FORM, ("authorization", f"Bearer {stripe.api_key}"))
    body = b"amount=1000&currency=chf&metadata[order_id]=order-4711"
    assert stripe.handle(Request(method="POST", target="/v1/payment_intents", headers=headers, body=body)).status == 200
    return stripe


def variables_of(simulator: Simulator) -> dict[str, str]:
    known = dict(simulator.credentials)
    return {env: known.get(name, "host@example.org") for name, env in SANDBOXES[simulator.vendor].settings.items()}


async def recorded(simulator: Simulator, variables: Mapping[str, str] | None = None) -> Baseline:
    given = variables_of(simulator) if variables is None else variables
    async with Edge(simulator) as edge:
        return await asyncio.to_thread(record, simulator.vendor, base_url=edge.url, variables=given)


async def test_a_sandbox_that_is_as_it_was_shows_no_change_whatever_it_holds() -> None:
    # given
    stripe = stripe_with_a_payment()
    baseline = await recorded(stripe)
    other = stripe_with_a_payment()

    # when
    async with Edge(other) as edge:
        found = await asyncio.to_thread(check, baseline, base_url=edge.url, variables=variables_of(other))

    # then
    assert found == []
    assert {"/v1/balance", "/v1/payment_intents?limit=20", "/v1/payment_intents/{intent}"} <= {*baseline.reads}
    assert "/v1/charges/{charge}" not in baseline.reads


async def test_what_a_vendor_changed_unannounced_is_found() -> None:
    # given
    baseline = await recorded(stripe_with_a_payment())

    # when
    async with Edge(stripe_with_a_payment(Newer)) as edge:
        given = variables_of(stripe_with_a_payment())
        found = await asyncio.to_thread(check, baseline, base_url=edge.url, variables=given)

    # then
    assert [(change.read, str(change)) for change in found] == [
        ("/v1/balance", "~ livemode: boolean, and now string"),
        ("/v1/balance", "- pending: array"),
        ("/v1/balance", "+ refunded: array"),
    ]


@pytest.mark.parametrize("kind", [SlackSimulator, StripeSimulator, TelegramSimulator, TwilioSimulator])
async def test_only_reads_are_sent_and_no_secret_or_value_is_kept(kind: type[Simulator]) -> None:
    # given
    simulator = kind(clock=ManualClock())

    # when
    baseline = await recorded(simulator)

    # then
    assert {request.method for request in simulator.requests} == {"GET"}
    assert len(baseline.reads) >= 3
    assert not len(simulator.ledger)
    text = baseline.dump()
    for secret in simulator.credentials.values():
        assert secret not in text


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Status(401), CredentialRefused), (Status(429), Refused), (Status(503), Refused), (Status(404), Rejected)],
)
async def test_what_says_nothing_of_shapes_is_an_error_and_shows_no_token(
    fault: Status, error: type[Exception]
) -> None:
    # given
    telegram = TelegramSimulator(clock=ManualClock())
    telegram.faults.on("telegram").always(fault)

    # when
    with pytest.raises(error) as raised:
        await recorded(telegram)

    # then
    assert telegram.bot_token not in str(raised.value)
    assert "getMe" in str(raised.value)


async def test_a_failure_that_is_answered_200_is_not_recorded() -> None:
    with pytest.raises(Rejected, match=r"GET /api/auth\.test was answered with a failure"):
        await recorded(SlackSimulator(clock=ManualClock()), {"SLACK_BOT_TOKEN": "xoxb-wrong"})


async def test_a_read_that_is_gone_is_a_change() -> None:
    # given
    telegram = TelegramSimulator(clock=ManualClock())
    baseline = await recorded(telegram)
    telegram.faults.on("telegram", "getMyCommands").always(Status(404))

    # when
    async with Edge(telegram) as edge:
        found = await asyncio.to_thread(check, baseline, base_url=edge.url, variables=variables_of(telegram))

    # then
    assert [str(change) for change in found] == ["~ the answer: answered 200, and now 404"]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InvalidInput, match="nothing is known of what to read at paypal; there are lnbits, slack"):
        record("paypal")
    with pytest.raises(MissingCredential, match="STRIPE_API_KEY is not set"):
        record("stripe", variables={})
    with pytest.raises(InvalidInput, match="name the one of your server"):
        record("lnbits", variables={"LNBITS_INVOICE_KEY": "x"})
    with pytest.raises(InsecureSetup, match="https"):
        record("stripe", base_url="http://stripe.example", variables={"STRIPE_API_KEY": "sk_test_x"})
    with pytest.raises(NotSent, match=r"GET /v1/balance: no answer \(ConnectError\)"):
        record("stripe", base_url="http://127.0.0.1:1", variables={"STRIPE_API_KEY": "sk_test_x"})


async def test_an_address_is_kept_without_its_password() -> None:
    telegram = TelegramSimulator(clock=ManualClock())
    async with Edge(telegram) as edge:
        url, given = edge.url.replace("//", "//me:pass@"), variables_of(telegram)
        baseline = await asyncio.to_thread(record, "telegram", base_url=url, variables=given)

        assert baseline.base_url == edge.url


# The command


async def command(*arguments: str, env: Mapping[str, str]) -> Result:
    runner = CliRunner()
    return await asyncio.to_thread(runner.invoke, app, ["drift", *arguments], env={**env, "COLUMNS": "200"})


async def test_the_command_records_then_ends_with_0_or_1_and_a_readable_diff(tmp_path: Path) -> None:
    # given
    file, stripe = tmp_path / "baseline.json", stripe_with_a_payment()
    env = variables_of(stripe)
    async with Edge(stripe) as edge:
        kept = await command("record", "--provider", "stripe", "--base-url", edge.url, "--out", str(file), env=env)
        same = await command("check", str(file), env=env)

    # when
    async with Edge(stripe_with_a_payment(Newer)) as edge:
        other = await command("check", str(file), "--base-url", edge.url, env=env)
        told = await command("check", str(file), "--base-url", edge.url, "--json", env=env)

    # then
    assert (kept.exit_code, kept.stdout) == (0, "")
    assert (same.exit_code, same.stdout) == (0, "")
    assert (other.exit_code, other.stdout) == (
        1,
        "GET /v1/balance\n  ~ livemode: boolean, and now string\n  - pending: array\n  + refunded: array\n",
    )
    assert "stripe: 3 changes in the shapes of" in other.stderr
    assert [one["place"] for one in json.loads(told.stdout)["changes"]] == ["livemode", "pending", "refunded"]


async def test_whatever_goes_wrong_ends_with_2_and_a_sentence(tmp_path: Path) -> None:
    # given
    file, key = tmp_path / "baseline.json", {"STRIPE_API_KEY": "sk_test_x"}
    file.write_text("{}")
    nobody = ("--base-url", "http://127.0.0.1:1")

    # when
    ends = [
        await command("check", str(file), env=key),
        await command("check", str(tmp_path / "none.json"), env=key),
        await command("record", "--provider", "paypal", "--out", str(file), env=key),
        await command("record", "--provider", "stripe", "--out", str(file), *nobody, env=key),
        await command("record", "--provider", "stripe", "--out", str(file), env={"STRIPE_API_KEY": ""}),
    ]

    # then
    assert [(end.exit_code, end.stdout) for end in ends] == [(2, "")] * len(ends)
    assert all(end.stderr for end in ends)
    assert file.read_text() == "{}"
