"""Typical mistakes of somebody new: each is told by its own error, in words, before anything is sent or kept."""

import asyncio
import logging
import math
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import wraps
from typing import Any

import httpx
import pytest

from holdfast import (
    Address,
    AlertLimits,
    BacklogLimits,
    Cheapest,
    GroupLimit,
    Guard,
    GuardedTransport,
    Holdfast,
    Meetings,
    Message,
    Money,
    Notifications,
    PaymentPaid,
    Payments,
    Policy,
    ReceiverLimits,
    Recipient,
    Rule,
    Secret,
    Secrets,
    Weighted,
    WorkerOptions,
)
from holdfast.errors import (
    ConfigurationError,
    HoldfastError,
    InvalidInput,
    InvalidPolicy,
    MissingCredential,
    NotOpen,
    WrongLoop,
)
from holdfast.providers import LNbits, SwissBitcoinPay, Zoom
from holdfast.telemetry import LoggingSink, Redactor, RetryScheduled
from holdfast.testing import FakeMeetings, FakeNotifications, FakePayments

NINE = datetime(2030, 5, 6, 9, 0, tzinfo=UTC)
HALF_AN_HOUR = timedelta(minutes=30)
ADA = Recipient(email="ada@example.org")
PRICE = Money("120.00", "CHF")


def given(value: Any) -> Any:
    """Something of a type that no checker would let pass."""
    return value


def made(**options: Any) -> Holdfast:
    usual: dict[str, Any] = {
        "store": "memory://",
        "payments": [FakePayments()],
        "meetings": [FakeMeetings()],
        "notifications": [FakeNotifications()],
    }
    return Holdfast(**(usual | options))


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"store": None}, 'store is an address or an open Store, not a NoneType: store="sqlite:///holdfast.db"'),
    ({"store": "sqllite:///x.db"}, "sqllite://... is no store this holdfast has; it has memory://"),
    ({"secret": "a text"}, 'secret is a Secrets, not a str: write secret=Secrets("…")'),
    ({"public_url": "api.example.ch/webhooks"}, "public_url is where vendors call you, a whole address"),
    ({"public_url": "https://api.example.ch?a=b"}, "without a query: https://api.example.ch/webhooks"),
    ({"payments": FakePayments()}, "payments is a list of providers, not a FakePayments: payments=[…]"),
    ({"payments": "stripe"}, "payments is a list of providers, not a str"),
    ({"payments": iter([FakePayments()])}, "payments is a list of providers, not a list_iterator"),
    ({"payments": ["stripe"]}, "payments cannot take a str, which is no provider"),
    ({"payments": [None]}, "payments cannot take a NoneType, which is no provider"),
    ({"payments": [FakePayments]}, r"FakePayments is a class; give a provider made of it: FakePayments(…)"),
    ({"payments": [FakeMeetings()]}, "payments cannot take FakeMeetings, a provider of meetings: give it to meetings="),
    ({"payments": Meetings([FakeMeetings()])}, "payments is a list of providers, not a Meetings"),
    ({"meetings": [FakePayments()]}, "a provider of payments: give it to payments="),
    ({"notifications": [FakePayments()]}, "a provider of payments: give it to payments="),
    ({"policies": {"fake-paymnets": Policy()}}, "policies names fake-paymnets; the providers are: fake-payments"),
    (
        {"policies": {"fake-payments": 5}},
        "policies['fake-payments'] is of the wrong type, int; write Policy(timeout=5)",
    ),
    ({"telemetry": [print]}, "telemetry is of the wrong type, list; write telemetry=Telemetry([sink])"),
    ({"worker": 8}, "worker is of the wrong type, int; write worker=WorkerOptions(concurrency=8)"),
    ({"worker": WorkerOptions}, "worker is of the wrong type, the class WorkerOptions"),
    ({"on_call": "ops@shop.example"}, "on_call is of the wrong type, str; write on_call=Recipient("),
    ({"on_call": Recipient(sms="+41790000000")}, "on_call cannot be told: no notification provider speaks sms"),
    ({"encryption": "a key"}, "encryption is of the wrong type, str"),
    ({"payments": [FakePayments(name="my bank")]}, "'my bank' cannot be the name of a FakePayments: use 1 to 64"),
    (
        {"payments": [SwissBitcoinPay(api_key=given(None), webhook_secret=Secrets("s"))]},
        "swiss-bitcoin-pay: api_key is None",
    ),
    (
        {"worker": WorkerOptions(limits={"delivries/zoom": GroupLimit(concurrency=1)})},
        "limits names delivries/zoom, which is no queue; they are deliveries, events, calls, calls-urgent, timers",
    ),
    ({"sweep_every": 0}, "sweep_every is a number of seconds, above 0, not 0"),
    ({"sweep_every": timedelta(seconds=5)}, "not datetime.timedelta(seconds=5); write 5"),
    ({"reconcile_every": -1}, "reconcile_every is a number of seconds, 0 or more, not -1"),
]


@pytest.mark.parametrize(("options", "words"), OPTIONS, ids=[words[:40] for _, words in OPTIONS])
def test_a_wrong_option_of_the_hub_is_named_with_the_right_one(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(**options)

    assert words in str(caught.value)


def test_providers_may_come_as_the_values_of_a_dict() -> None:
    hub = made(
        payments={"pay": FakePayments()}.values(),
        meetings={"meet": FakeMeetings()}.values(),
        notifications={"tell": FakeNotifications()}.values(),
    )

    assert [len(family.providers) for family in (hub.payments, hub.meetings, hub.notifications)] == [1, 1, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"store": b"postgresql://shop:hunter2@localhost/shop"},
        {"public_url": "https://shop:hunter2@api.example.ch/webhooks?key=hunter2"},
    ],
    ids=["store", "public_url"],
)
def test_a_wrong_address_is_not_told_with_what_is_secret_in_it(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(**options)

    assert "hunter2" not in str(caught.value)


VALUES: list[tuple[Callable[[], object], type[HoldfastError], str]] = [
    (lambda: WorkerOptions(concurrency=-1), ConfigurationError, "concurrency is a whole number, 1 or more, not -1"),
    (lambda: WorkerOptions(handler_timeout=-1), ConfigurationError, "handler_timeout is a number of seconds, above 0"),
    (lambda: WorkerOptions(retry_cap=float("nan")), ConfigurationError, "retry_cap is a number of seconds, 0 or more"),
    (lambda: WorkerOptions(lease=1), ConfigurationError, "heartbeat is shorter than lease, not 2 to 1 seconds"),
    (
        lambda: WorkerOptions(limits={"deliveries": given(2)}),
        ConfigurationError,
        "limits['deliveries'] is of the wrong type",
    ),
    (lambda: BacklogLimits(hard=-1), ConfigurationError, "hard is a number above 0, not -1; math.inf means no limit"),
    (lambda: ReceiverLimits(rate=0), ConfigurationError, "rate is requests a second, more than 0, not 0"),
    (lambda: AlertLimits(window=0), InvalidInput, "greater than zero, not 10, 0 and 60.0"),
    (
        lambda: Meetings([FakeMeetings()], deadline=-1),
        ConfigurationError,
        "deadline of meetings is a number of seconds",
    ),
    (lambda: Notifications([FakeNotifications()], deadline=0), ConfigurationError, "deadline of notifications is"),
    (
        lambda: Notifications([FakeNotifications()], expires_in=given(5)),
        ConfigurationError,
        "expires_in of notifications is a timedelta above 0, not 5",
    ),
    (lambda: Notifications([given(Zoom)]), ConfigurationError, "Zoom is a class; give a provider made of it"),
    (lambda: Secrets(given(None)), MissingCredential, "a secret is None; is its variable set?"),
    (lambda: Message(given(5)), InvalidInput, "the text of a message is a str, not int"),
    (lambda: Recipient(given("ada@example.org")), InvalidInput, "a str is no Address: Recipient(email=…)"),
    (
        lambda: Address(given("mail"), "ada@example.org"),
        InvalidInput,
        "'mail' is no channel; there are telegram, email, sms",
    ),
    (lambda: Rule("lnbits"), InvalidInput, 'providers of a Rule are several: providers=["lnbits"]'),
    (
        lambda: Rule(["lnbits"], regions=given("CH")),
        InvalidInput,
        'regions of a Rule are several: regions=frozenset({"CH"})',
    ),
    (lambda: Guard(given(Policy())), InvalidPolicy, "the first argument is the provider's name, a text"),
    (lambda: Guard("crm", given(5)), InvalidPolicy, "the policy of crm is a Policy, not 5: Policy(deadline=5)"),
    (lambda: GuardedTransport(given(Policy())), InvalidPolicy, "the first argument is the service's name, a text"),
    (lambda: GuardedTransport("crm", given(5)), InvalidPolicy, "the policy of crm is a Policy, not 5"),
    (lambda: GuardedTransport(inner=given(httpx.Client)), InvalidPolicy, "inner is a transport, not a type"),
    (lambda: Policy(timeout=-1), InvalidPolicy, "timeout is between 0.001 and 86400 seconds, not -1"),
    (lambda: made(payments=Payments([FakePayments()], route=given(Cheapest))), ConfigurationError, "is no route"),
    (
        lambda: made(payments=Payments([FakePayments()], route=Weighted({"fake-paymnets": 5}))),
        ConfigurationError,
        "the route names fake-paymnets, and the payment providers are: fake-payments",
    ),
    (
        lambda: made(payments=Payments([FakePayments()], route=Cheapest({"twilio": Decimal(1)}))),
        ConfigurationError,
        "the route names twilio",
    ),
    (lambda: Payments([FakePayments()], deadline=-1), ConfigurationError, "deadline is a number of seconds, above 0"),
    (lambda: Payments([FakePayments()], resolve=given("8")), ConfigurationError, "resolve is a number of seconds"),
    (lambda: Payments([FakePayments()], poll=[]), ConfigurationError, "poll is the growing waits between looks"),
    (lambda: Payments([FakePayments()], poll=given([30])), ConfigurationError, "[timedelta(seconds=5), …]"),
    (
        lambda: made(payments=[LNbits(base_url="lnbits.example", invoice_key=Secret("key"))]),
        ConfigurationError,
        "lnbits: the base URL must begin with https://",
    ),
]


@pytest.mark.parametrize(("wrong", "kind", "words"), VALUES, ids=[words[:40] for _, _, words in VALUES])
def test_a_wrong_value_is_refused_when_it_is_made(
    wrong: Callable[[], object], kind: type[HoldfastError], words: str
) -> None:
    with pytest.raises(kind) as caught:
        wrong()

    assert words in str(caught.value)


def test_no_limit_and_no_address_have_a_spelling() -> None:
    assert BacklogLimits(hard=given(math.inf)).hard == math.inf
    assert made(public_url="").payments is not None
    assert Payments([FakePayments()], poll=given(timedelta(seconds=each) for each in (5, 30)))


CALLS: list[tuple[Callable[[Holdfast], Awaitable[object]], str]] = [
    (
        lambda hub: hub.payments.create("order-1", given(120.0)),
        'what is due is a Money, not float: Money("120.00", "CHF")',
    ),
    (lambda hub: hub.payments.create("order 1", PRICE), "'order 1' is no reference: use 1 to 64 characters"),
    (
        lambda hub: hub.payments.create("order-1", PRICE, metadata=given(["vip"])),
        'metadata is of the wrong type, list; write metadata={"booking": "4711"}',
    ),
    (
        lambda hub: hub.payments.create("order-1", PRICE, payer=given("ada@example.org")),
        "payer is of the wrong type, str; write payer=Payer(",
    ),
    (lambda hub: meet(hub, starts_at=datetime(2030, 5, 6, 9)), "starts_at has no time zone"),  # the mistake
    (lambda hub: meet(hub, starts_at="2030-05-06"), "starts_at is a datetime with a time zone, not a str"),
    (lambda hub: meet(hub, duration=30), "duration is a timedelta, not 30: timedelta(minutes=30)"),
    (lambda hub: meet(hub, topic=None), "a topic has 1 to 200 characters"),
    (lambda hub: meet(hub, require={"waitingroom"}), "require names 'waitingroom', which is no feature of a meeting"),
    (lambda hub: meet(hub, prefer="passcode"), 'prefer is a set of features: prefer={"passcode"}'),
    (
        lambda hub: meet(hub, prefer="pass"),
        "prefer names 'pass', which is no feature of a meeting; there are waiting_room",
    ),
    (lambda hub: hub.notifications.send("hello", to=given("ada@example.org"), key="k"), "is sent to a Recipient"),
    (lambda hub: hub.notifications.send(given(5), to=ADA, key="k"), "a Message, or its text"),
    (lambda hub: hub.notifications.send("hello", to=ADA, key="a b"), "'a b' is no key: use 1 to 128 characters"),
    (lambda hub: hub.notifications.send("hello", to=Recipient(sms="+41"), key="k"), "no provider speaks sms"),
]


def meet(hub: Holdfast, **asked: Any) -> Awaitable[object]:
    given: dict[str, Any] = {"starts_at": NINE, "duration": HALF_AN_HOUR} | asked
    return hub.meetings.create("booking-1", **given)


@pytest.mark.parametrize(("wrong", "words"), CALLS, ids=[words[:40] for _, words in CALLS])
async def test_a_wrong_argument_is_refused_before_anything_is_sent_or_kept(
    wrong: Callable[[Holdfast], Awaitable[object]], words: str
) -> None:
    wallet, room, mail = FakePayments(), FakeMeetings(), FakeNotifications()
    async with made(payments=[wallet], meetings=[room], notifications=[mail]) as hub:
        with pytest.raises(InvalidInput) as caught:
            await wrong(hub)

        assert words in str(caught.value)
        assert [wallet.requests, room.requests, mail.sent] == [[], [], []]
        assert [await hub.store.records.list(kind) for kind in ("payment", "meeting", "dispatch")] == [[], [], []]


async def test_a_family_without_a_provider_says_how_to_give_it_one() -> None:
    async with made(meetings=[]) as hub:
        with pytest.raises(ConfigurationError, match=r"no meeting provider has been given: Holdfast\(meetings=\["):
            await meet(hub)


# Handlers


async def confirm(paid: PaymentPaid) -> None:
    """A handler."""


async def nothing() -> None:
    """A handler that forgot its event."""


HANDLERS: list[tuple[Callable[[Holdfast], object], str]] = [
    (
        lambda hub: hub.on(given("payment.paid")),
        "on() takes the class of an event, such as PaymentPaid, not 'payment.paid'",
    ),
    (
        lambda hub: hub.on(given(confirm)),
        "on() takes the class of an event, such as PaymentPaid, not <function confirm",
    ),
    (lambda hub: hub.on(PaymentPaid)(nothing), "the handler nothing is called with (event), and does not take that"),
    (lambda hub: hub.on(PaymentPaid)(given(None)), "a handler of payment.paid is a function, not None"),
    (
        lambda hub: (hub.on(PaymentPaid)(confirm), hub.on(PaymentPaid)(confirm)),
        "two handlers of payment.paid are named",
    ),
    (lambda hub: hub.on_delivery("lnbit"), "no provider named lnbit receives webhooks; there are: lnbits"),
    (
        lambda hub: (hub.on_delivery("lnbits")(given(confirm)), hub.on_delivery("lnbits")(given(confirm))),
        "the deliveries * of lnbits have a handler; call the second from it",
    ),
]


@pytest.mark.parametrize(("wrong", "words"), HANDLERS, ids=[words[:40] for _, words in HANDLERS])
def test_a_handler_that_could_never_run_is_refused_when_it_is_registered(
    wrong: Callable[[Holdfast], object], words: str
) -> None:
    hub = made(payments=[LNbits(base_url="http://127.0.0.1", invoice_key=Secret("key"))])

    with pytest.raises(ConfigurationError) as caught:
        wrong(hub)

    assert words in str(caught.value)


def test_a_handler_whose_decorator_gives_it_the_rest_is_taken() -> None:
    async def confirm_in(paid: PaymentPaid, session: object) -> None:
        """What its decorator calls."""

    @wraps(confirm_in)
    async def decorated(paid: PaymentPaid) -> None:
        await confirm_in(paid, object())

    assert made().on(PaymentPaid)(decorated) is decorated


def test_a_missing_table_says_how_to_make_it() -> None:
    paid = PaymentPaid(
        id="payment/a/3/payment.paid", reference="a", at=NINE, due=PRICE, received=PRICE, provider="fake"
    )

    with closing(sqlite3.connect(":memory:")) as database, pytest.raises(sqlite3.OperationalError) as caught:
        paid.handled_in(database).__enter__()

    [note] = caught.value.__notes__
    assert note == "is the table there? make it once, with your migrations: holdfast.handled_ddl(…)"


# Lifetime


async def test_a_hub_that_was_never_opened_says_how() -> None:
    with pytest.raises(NotOpen, match=r"`async with hub:`, or give hub\.lifespan to your app"):
        await made().payments.create("order-1", PRICE)


async def test_a_hub_that_was_closed_says_so() -> None:
    async with made() as hub:
        pass

    with pytest.raises(NotOpen, match="async with hub"):
        await hub.payments.create("order-1", PRICE)


async def test_another_thread_is_told_how_to_come_in() -> None:
    async with made() as hub:
        with pytest.raises(WrongLoop, match=r"asyncio\.run_coroutine_threadsafe\(…, loop\)"):
            await asyncio.to_thread(lambda: asyncio.run(hub.payments.create("order-1", PRICE)))


def test_a_coroutine_function_is_no_plain_function_and_is_not_begun() -> None:
    begun: list[int] = []

    async def fetch() -> None:
        begun.append(1)

    with pytest.raises(InvalidInput, match=r"fetch is async: without an await nothing would be guarded"):
        Guard("crm").sync.read(given(fetch))

    assert begun == []


async def test_a_plain_function_is_told_where_it_belongs() -> None:
    with pytest.raises(TypeError) as caught:
        await Guard("crm").read(given(lambda: 5))

    assert caught.value.__notes__ == [
        "a guard awaits what it calls; for a plain function use guard.sync, which has the same verbs"
    ]


async def test_an_await_that_goes_wrong_within_the_function_is_the_functions_own() -> None:
    async def fetch() -> None:
        await given(5)

    with pytest.raises(TypeError, match="await") as caught:
        await Guard("crm").read(fetch)

    assert not hasattr(caught.value, "__notes__")


# Log lines


def test_a_log_line_names_itself_where_nobody_set_logging_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger("holdfast"), "handlers", [])

    LoggingSink(Redactor())(RetryScheduled("zoom", "create", 1, 0.123456))

    assert capsys.readouterr().err == "holdfast.retry provider=zoom operation=create attempt=1 after=0.123\n"
