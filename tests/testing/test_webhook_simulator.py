"""The webhook simulator: every kind of mischief, chosen by the seed, and forgeries that can be told."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.simulators.forgeries import dress, forgeries, reserialised
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.simulators.post import Poster
from holdfast.testing.simulators.simulator import Headers, Simulator, Webhook
from holdfast.testing.simulators.swiss_bitcoin_pay import SwissBitcoinPaySimulator
from holdfast.testing.simulators.telegram import TelegramSimulator
from holdfast.testing.simulators.webhooks import Manner, Mischief, WebhookSimulator
from holdfast.testing.simulators.zoom import ZoomSimulator

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Timed(Simulator):
    """A vendor that signs time and body, and tries three times."""

    vendor = "timed"
    retries = (1, 10)

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        stamp = f"{at.timestamp():.0f}"
        digest = hmac.new(secret.encode(), stamp.encode() + body, hashlib.sha256).hexdigest()
        return (("time", stamp), ("signature", digest))


@dataclass
class Receiver:
    """Answers in turn, the last answer for ever; keeps what came."""

    statuses: Sequence[int] = (200,)
    came: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def __call__(self, url: str, headers: Headers, body: bytes) -> int:
        self.came.append((url, dict(headers), body))
        return self.statuses[min(len(self.came), len(self.statuses)) - 1]


def owe(simulator: Simulator, count: int = 1) -> None:
    for number in range(count):
        webhook = Webhook(
            vendor=simulator.vendor,
            url="http://127.0.0.1/hook/a1b2",
            event="paid",
            about=f"id-{number}",
            key=f"o{number}",
            body=f'{{"n":{number}}}'.encode(),
        )
        simulator.owe(webhook)


async def test_without_mischief_each_is_sent_once_in_order_and_rightly_signed() -> None:
    # given
    timed, receiver = Timed(clock=ManualClock(NOW)), Receiver()
    owe(timed, 3)

    # when
    sent = await WebhookSimulator([timed], receiver, clock=ManualClock(NOW)).deliver()

    # then
    assert [body for _, _, body in receiver.came] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
    assert receiver.came[0][1].items() >= dict(timed.sign(b'{"n":0}', secret=timed.webhook_secret, at=NOW)).items()
    assert all(one.manner is Manner.GENUINE and one.accepted for one in sent)


@pytest.mark.parametrize(
    ("mischief", "manners", "fired"),
    [
        (Mischief(duplicate=1), ["genuine", "duplicate"], {"timed.webhook_duplicate": 1}),
        (Mischief(drop=1), [], {"timed.webhook_drop": 1}),
        (Mischief(delay=1), ["genuine"], {"timed.webhook_delay": 1}),
        (Mischief(together=1), ["genuine", "duplicate"], {"timed.webhook_duplicate": 1}),
    ],
)
async def test_each_mischief_does_what_it_says_and_is_counted(
    mischief: Mischief, manners: list[str], fired: dict[str, int]
) -> None:
    timed = Timed()
    owe(timed)
    sent = await WebhookSimulator([timed], Receiver(), mischief=mischief).deliver()
    assert [one.manner for one in sent] == manners
    assert timed.faults.fired == fired


async def test_delays_let_others_overtake_and_the_seed_says_which() -> None:
    async def order(seed: int) -> list[str]:
        timed = Timed(seed=seed)
        owe(timed, 12)
        mischief = Mischief(delay=0.5)
        sent = await WebhookSimulator([timed], Receiver(), mischief=mischief, seed=seed).deliver()
        return [one.webhook.about for one in sent]

    assert await order(7) == await order(7)
    assert await order(7) != await order(8)
    assert await order(7) != sorted(await order(7))


async def test_a_refused_webhook_is_tried_again_as_often_as_the_vendor_does() -> None:
    # given
    timed, receiver = Timed(), Receiver(statuses=[500, 0, 500])
    owe(timed)

    # when
    sent = await WebhookSimulator([timed], receiver).deliver()

    # then
    assert [(one.manner, one.status) for one in sent] == [("genuine", 500), ("retry", 0), ("retry", 500)]


async def test_a_forged_one_is_sent_before_the_genuine_one_and_never_again() -> None:
    # given
    timed, receiver = Timed(clock=ManualClock(NOW)), Receiver(statuses=[401, 200])
    owe(timed)
    simulator = WebhookSimulator([timed], receiver, mischief=Mischief(forge=1), clock=ManualClock(NOW))

    # when
    sent = await simulator.deliver()

    # then
    assert [one.manner.forged for one in sent] == [True, False]
    assert simulator.accepted_forgeries == []
    assert timed.faults.fired == {"timed.webhook_forge": 1}


async def test_a_forged_one_that_is_accepted_is_not_forgotten() -> None:
    timed = Timed()
    owe(timed)
    simulator = WebhookSimulator([timed], Receiver(), mischief=Mischief(forge=1))
    await simulator.deliver()
    assert len(simulator.accepted_forgeries) == 1


def test_what_can_be_forged_depends_on_what_the_vendor_signs() -> None:
    webhook = Webhook(vendor="x", url="http://x/1", event="e", about="a", key="k", body=b'{"n":1}')
    always = [Manner.WRONG_KEY, Manner.ALTERED_BYTE]
    absent, rewritten = Manner.MISSING_HEADER, Manner.RESERIALISED
    assert forgeries(Timed(), webhook) == [*always, Manner.STALE, absent, rewritten]
    assert forgeries(SwissBitcoinPaySimulator(), webhook) == [*always, absent, Manner.OLD_VERSION, rewritten]
    assert forgeries(TelegramSimulator(), webhook) == [Manner.WRONG_KEY, absent]
    assert forgeries(LNbitsSimulator(), webhook) == [Manner.WRONG_URL]


@pytest.mark.parametrize("manner", [Manner.WRONG_KEY, Manner.ALTERED_BYTE, Manner.STALE])
def test_a_forged_signature_does_not_fit_now_and_the_bytes_sent(manner: Manner) -> None:
    # given
    timed = Timed(clock=ManualClock(NOW))
    webhook = Webhook(vendor="timed", url="http://x/1", event="e", about="a", key="k", body=b'{"n":1}')

    # when
    _, headers, body = dress(timed, webhook, manner, NOW)

    # then
    assert dict(timed.sign(body, secret=timed.webhook_secret, at=NOW)).items() - dict(headers).items()


async def test_a_skewed_clock_is_off_by_less_than_a_receiver_must_bear() -> None:
    # given
    timed, receiver = Timed(clock=ManualClock(NOW)), Receiver()
    owe(timed, 20)

    # when
    clock = ManualClock(NOW)
    sent = await WebhookSimulator([timed], receiver, mischief=Mischief(skew=1), clock=clock).deliver()

    # then
    off = [float(headers["time"]) - NOW.timestamp() for _, headers, _ in receiver.came]
    assert -240 <= min(off) < 0 < max(off) <= 240
    assert [round(one.skew) for one in sent] == off


def test_a_body_rewritten_says_the_same_in_other_bytes() -> None:
    for body in (b'{"n": 1, "a": [1.5, null]}', b'{"n":1,"a":[1.5,null]}', b'"{\\"n\\": 1}"'):
        again = reserialised(body)
        assert again != body or body.startswith(b'"')
        assert json.loads(again) == json.loads(body)
    assert parse_qsl(reserialised(b"Body=Hi+you&n=")) == parse_qsl(b"Body=Hi+you&n=")
    assert reserialised(b"Body=Hi") != b"Body=Hi"
    assert reserialised(b"") == b""


def test_a_header_that_is_missing_leaves_the_others_and_an_old_version_the_value() -> None:
    # given
    zoom = ZoomSimulator(clock=ManualClock(NOW))
    webhook = Webhook(vendor="zoom", url="http://x/1", event="e", about="a", key="k", body=b"{}", headers=())
    genuine = dict(dress(zoom, webhook, Manner.GENUINE, NOW)[1])

    # when
    missing = [
        dict(dress(zoom, replace(webhook, about=str(number)), Manner.MISSING_HEADER, NOW)[1]) for number in range(20)
    ]
    old = dict(dress(zoom, webhook, Manner.OLD_VERSION, NOW)[1])

    # then
    assert {frozenset(one) for one in missing} == {frozenset({name}) for name in genuine}
    assert old == genuine | {"x-zm-signature": "v1=" + genuine["x-zm-signature"].removeprefix("v0=")}


def test_a_wrong_url_differs_in_one_character() -> None:
    webhook = Webhook(vendor="lnbits", url="http://x/a.0", event="e", about="a", key="k", body=b"{}")
    url, _, _ = dress(LNbitsSimulator(), webhook, Manner.WRONG_URL, NOW)
    assert url == "http://x/a.1"


async def test_a_lie_comes_through_the_right_door_about_something_unpaid() -> None:
    # given
    sbp, receiver = SwissBitcoinPaySimulator(clock=ManualClock(NOW)), Receiver()
    key = {"api-key": sbp.api_key}
    ids = [await _checkout(sbp, key, number) for number in (1, 2)]
    sbp.pay(ids[0])

    # when
    sent = await WebhookSimulator([sbp], receiver, mischief=Mischief(lie=1)).deliver()

    # then
    assert [(one.manner, one.webhook.about) for one in sent] == [("lie", ids[1]), ("genuine", ids[0])]
    assert b'"status":"settled"' in receiver.came[0][2]
    assert sbp.checkouts[ids[1]].status == "open"


async def _checkout(sbp: SwissBitcoinPaySimulator, headers: dict[str, str], number: int) -> str:
    from holdfast.testing.simulators.simulator import Request

    body = f'{{"title":"t","amount":1,"unit":"CHF","webhook":{{"url":"http://127.0.0.1/{number}"}}}}'.encode()
    request = Request(method="POST", target="/checkout", headers=tuple(headers.items()), body=body)
    return str(Request(method="", target="", body=sbp.handle(request).body).json()["id"])


async def test_calm_ends_the_mischief() -> None:
    timed = Timed()
    simulator = WebhookSimulator([timed], Receiver(), mischief=Mischief(drop=1))
    simulator.calm()
    owe(timed)
    assert len(await simulator.deliver()) == 1


async def test_mischief_may_be_for_one_vendor_only() -> None:
    timed, sbp = Timed(), SwissBitcoinPaySimulator()
    owe(timed)
    owe(sbp)
    sent = await WebhookSimulator([timed, sbp], Receiver(), mischief={"timed": Mischief(drop=1)}).deliver()
    assert [one.webhook.vendor for one in sent] == ["swiss-bitcoin-pay"]


async def test_running_sends_what_is_due_when_it_is_due() -> None:
    # given
    clock = ManualClock(NOW)
    timed, receiver = Timed(clock=clock), Receiver(statuses=[500, 200])
    simulator = WebhookSimulator([timed], receiver, clock=clock)
    owe(timed)

    # when
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(simulator.run())
        await clock.advance(0.5)
        early = len(receiver.came)
        await clock.advance(1)
        running.cancel()

    # then
    assert (early, len(receiver.came)) == (1, 2)


async def test_a_poster_says_the_status_or_zero() -> None:
    # given
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"}"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n" if len(asked) == 1 else b"")
        writer.close()
        await writer.wait_closed()

    asked: list[bytes] = []
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?a=b"

    # when
    post = Poster()
    replies = [await post(url, (("x-sig", "1"),), b'{"n":1}') for _ in range(2)]
    server.close()
    await server.wait_closed()
    replies.append(await post(url, (), b"{}"))

    # then
    assert [(reply.status, reply.failure) for reply in replies] == [
        (204, ""),
        (0, "no HTTP answer"),
        (0, "ConnectionRefusedError"),
    ]
    assert asked[0].startswith(b"POST /hook?a=b HTTP/1.1\r\n")
    assert b"x-sig: 1\r\n" in asked[0]
