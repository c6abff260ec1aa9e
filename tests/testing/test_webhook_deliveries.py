"""What the vendors owe, delivered as a test wants it: twice, late, shuffled, forged, or not at all."""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from holdfast.testing.clock import ManualClock
from holdfast.testing.deliveries import Door, Webhooks, seconds
from holdfast.testing.faults import ClockSkew
from holdfast.testing.journal import Journal, WebhookRecord
from holdfast.testing.simulators import load_simulator
from holdfast.testing.simulators.courier import LATE, Sent
from holdfast.testing.simulators.forgeries import Manner
from holdfast.testing.simulators.receivers import App
from holdfast.testing.simulators.simulator import Reply, Simulator, Webhook
from holdfast.testing.simulators.slack import SlackSimulator
from holdfast.testing.simulators.stripe import StripeSimulator
from holdfast.testing.simulators.zoom import ZoomSimulator
from holdfast.testing.virtual_clock import VirtualClock

VENDORS = ("lnbits", "slack", "stripe", "swiss-bitcoin-pay", "telegram", "twilio", "zoom")
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOOKS = "https://shop.test/hooks"
Answer = int | tuple[int, bytes] | tuple[int, bytes, dict[str, str]] | Exception


class Backend:
    """An ASGI app that keeps what comes and answers in turn, the last answer for ever."""

    def __init__(self, *answers: Answer, takes: float = 0, clock: VirtualClock | None = None) -> None:
        self.answers = list(answers) or [200]
        self.takes = takes
        self.clock = clock
        self.came: list[tuple[str, dict[str, str], bytes]] = []
        self.at: list[float] = []
        self.pieces: list[int] = []
        self.scopes: list[Any] = []
        self.busy = self.most_busy = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        number = len(self.came)
        self.came.append(("", {}, b""))
        self.at.append(self.clock.elapsed if self.clock else 0)
        self.scopes.append(scope)
        body, pieces, more = b"", 0, True
        while more:
            message = await receive()
            body, pieces, more = body + message["body"], pieces + 1, message["more_body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.came[number] = (scope["path"], headers, body)
        self.pieces.append(pieces)
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        await (self.clock.sleep(self.takes) if self.clock else asyncio.sleep(0))
        self.busy -= 1
        answer = self.answers[min(number, len(self.answers) - 1)]
        if isinstance(answer, Exception):
            raise answer
        status, text, more_headers = (*((answer,) if isinstance(answer, int) else answer), b"", {})[:3]
        told = [(name.encode(), value.encode()) for name, value in (more_headers or {}).items()]
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": text})

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.came]

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.came]


def made(vendor: str, **options: Any) -> Simulator:
    options.setdefault("clock", ManualClock(NOW))
    return load_simulator(vendor)(webhook_url=f"{HOOKS}/{vendor}", **options)


def owe(simulator: Simulator, count: int = 1, *, url: str | None = None) -> None:
    """Webhooks that can be told apart, in the vendor's own format as far as that is signed."""
    for number in range(count):
        form = simulator.vendor == "twilio"
        body = f"n={number}&Body=Hi+there" if form else json.dumps({"id": f"evt_{number}", "n": number})
        webhook = Webhook(
            vendor=simulator.vendor,
            url=simulator.webhook_url if url is None else url,
            event="paid",
            about=f"id-{number}",
            key=f"o{number}",
            body=body.encode(),
        )
        simulator.owe(webhook)


def post_of(*simulators: Simulator, seed: int = 0, **options: Any) -> Webhooks:
    options.setdefault("clock", simulators[0].clock)
    return Webhooks(simulators, seed=seed, **options)


def told(sent: Sequence[Sent]) -> list[tuple[int, str, int]]:
    return [(one.number, str(one.manner), one.status) for one in sent]


# Doors


async def test_webhooks_go_to_the_path_their_vendor_was_told_or_to_the_one_given() -> None:
    # given
    stripe, backend = made("stripe"), Backend()
    webhooks = post_of(stripe)

    # when
    owe(stripe)
    await webhooks.to(backend).deliver()
    owe(stripe)
    await webhooks.to(backend, "/other?shop=1").deliver()
    owe(stripe, url="")
    await webhooks.to(backend).deliver()

    # then
    assert backend.paths == ["/hooks/stripe", "/other", "/"]
    assert [scope["query_string"] for scope in backend.scopes] == [b"", b"shop=1", b""]
    assert [headers["host"] for _, headers, _ in backend.came] == ["shop.test", "shop.test", "app.test"]


async def test_the_signed_address_is_the_one_it_is_sent_to() -> None:
    # given
    twilio, backend = made("twilio"), Backend()
    owe(twilio)

    # when
    await post_of(twilio).to(backend, "/sms").deliver()

    # then
    [(_, headers, body)] = backend.came
    right = twilio.sign(body, secret=twilio.webhook_secret, at=NOW, url="https://shop.test/sms")
    assert set(dict(right).items()) <= set(headers.items())


async def test_an_app_that_is_mounted_below_a_path_is_told_so() -> None:
    class Mounted(Backend):
        root_path = "/hooks"

    stripe, backend = made("stripe"), Mounted()
    owe(stripe)
    await post_of(stripe).to(backend).deliver()
    assert (backend.scopes[0]["root_path"], backend.scopes[0]["path"]) == ("/hooks", "/hooks/stripe")


async def test_a_path_that_names_a_vendor_is_for_its_webhooks_only() -> None:
    # given
    stripe, zoom, backend = made("stripe"), made("zoom"), Backend()
    owe(stripe)
    owe(zoom)
    webhooks = post_of(stripe, zoom)

    # when
    one = await webhooks.to(backend, "/hooks/zoom").deliver()
    waiting = [webhook.vendor for webhook in webhooks.waiting]
    other = await webhooks.to(backend, "/anything", vendor="stripe").deliver()

    # then
    assert (told(one), waiting, told(other)) == ([(1, "genuine", 200)], ["stripe"], [(0, "genuine", 200)])


async def test_a_function_without_arguments_makes_the_app_anew_after_each_death_of_it_only() -> None:
    # given
    stripe, apps, deaths = made("stripe"), list[Backend](), [False, False, True, False]

    def make() -> App:
        apps.append(Backend(200 if apps else 500))
        return apps[-1]

    async def runner(call: Callable[[], Awaitable[Reply]]) -> Reply | int:
        reply = await call()
        return 0 if deaths.pop(0) else reply

    webhooks = post_of(stripe)
    webhooks.runner = runner
    owe(stripe)

    # when
    sent = await webhooks.to(make).deliver()

    # then
    assert [one.status for one in sent] == [500, 500, 0, 200]
    assert [len(app.came) for app in apps] == [3, 1]
    assert sent[2].failure == "the receiver died"


async def test_a_factory_may_be_asynchronous_and_an_app_is_never_taken_for_one() -> None:
    # given
    stripe, backend = made("stripe"), Backend()

    async def make() -> App:
        return backend

    async def plain(scope: Any, receive: Any, send: Any, flavour: str = "") -> None:
        await backend(scope, receive, send)

    # when
    webhooks = post_of(stripe)
    for app in (make, backend, plain, lambda: plain):
        owe(stripe)
        await webhooks.to(app).deliver()

    # then
    assert [one.status for one in webhooks.sent] == [200] * 4
    assert len(backend.came) == 4


async def test_two_that_come_while_the_app_starts_meet_one_process() -> None:
    # given
    stripe, apps = made("stripe"), list[Backend]()

    async def make() -> App:
        apps.append(app := Backend())
        await asyncio.sleep(0)
        return app

    owe(stripe)

    # when
    await post_of(stripe).to(make).deliver(together=True)

    # then
    assert [len(app.came) for app in apps] == [2, 0]


async def test_a_door_that_is_told_of_a_restart_makes_the_app_anew() -> None:
    # given
    stripe, apps = made("stripe"), list[Backend]()

    def make() -> App:
        apps.append(Backend())
        return apps[-1]

    door = post_of(stripe).to(make)

    # when
    for _ in range(2):
        owe(stripe)
        await door.deliver()
    door.restart()
    owe(stripe)
    await door.deliver()

    # then
    assert [len(app.came) for app in apps] == [2, 1]


async def test_an_address_is_reached_over_a_real_socket_with_the_public_name_in_the_request() -> None:
    # given
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"}"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()
        await writer.wait_closed()

    asked: list[bytes] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    stripe = made("stripe")
    webhooks = post_of(stripe)

    # when
    for door in (webhooks.to(url), webhooks.to(f"{url}/mine"), webhooks.to(url, "/given")):
        owe(stripe)
        await door.deliver()
    server.close()
    await server.wait_closed()
    owe(stripe)
    gone = await webhooks.to(url).deliver()

    # then
    lines = [request.split(b"\r\n")[0] for request in asked]
    assert lines == [b"POST /hooks/stripe HTTP/1.1", b"POST /mine HTTP/1.1", b"POST /given HTTP/1.1"]
    assert b"host: shop.test\r\n" in asked[0]
    assert [one.status for one in webhooks.sent] == [200, 200, 200, *[0] * len(gone)]
    assert gone[0].failure == "ConnectionRefusedError"


async def test_a_server_outside_of_the_loop_is_waited_for_while_virtual_time_stands() -> None:
    # given
    class Slow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            asked.append(self.path)
            Event().wait(0.05)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    asked: list[str] = []
    clock = VirtualClock(NOW)
    zoom = made("zoom", clock=clock)
    owe(zoom)

    # when
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        url = f"http://127.0.0.1:{server.server_port}"
        [sent] = await post_of(zoom).to(url).deliver(late="1h")
        await asyncio.to_thread(server.shutdown)
        serving.join()

    # then
    assert (sent.status, asked, clock.elapsed) == (200, ["/hooks/zoom"], 3600)


async def test_bodies_come_in_several_pieces_now_and_then_and_are_whole() -> None:
    stripe, backend = made("stripe"), Backend()
    owe(stripe, 40)
    await post_of(stripe).to(backend).deliver()
    assert {1, 3} < set(backend.pieces)
    assert [json.loads(body)["n"] for body in backend.bodies] == list(range(40))


@pytest.mark.parametrize("raises", [KeyError("order"), None])
async def test_what_the_app_raises_is_a_500_and_told(raises: Exception | None) -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        """Answers nothing."""

    zoom = made("zoom")
    owe(zoom)
    webhooks = post_of(zoom)
    [first, *_] = await webhooks.to(Backend(raises) if raises else silent).deliver()
    assert (first.status, first.failure) == (500, "KeyError: 'order'" if raises else "the app gave no answer")


async def test_a_framework_that_listens_for_the_end_while_it_answers_is_not_told_too_early() -> None:
    # given
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            while (message := await receive())["type"] == "http.request":
                pass
            heard.append(message["type"])

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen())
            await asyncio.sleep(0)
            heard.append("answer")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    stripe = made("stripe")
    owe(stripe)

    # when
    await post_of(stripe).to(app).deliver()

    # then
    assert heard == ["answer", "http.disconnect"]


# Manners


async def test_what_is_owed_is_numbered_over_all_vendors_and_sent_in_that_order() -> None:
    # given
    stripe, zoom, backend = made("stripe"), made("zoom"), Backend()
    webhooks = Webhooks({"stripe": stripe, "zoom": zoom}, clock=stripe.clock)
    for simulator in (zoom, stripe, zoom):
        owe(simulator)

    # when
    first = await webhooks.to(backend).deliver()
    owe(stripe)
    again = await webhooks.to(backend).deliver()

    # then
    assert backend.paths == [f"/hooks/{vendor}" for vendor in ("zoom", "stripe", "zoom", "stripe")]
    assert [one.number for one in [*first, *again]] == [0, 1, 2, 3]
    assert (webhooks.owed, webhooks.waiting) == (4, [])


async def test_duplicates_follow_and_together_they_come_at_the_same_moment() -> None:
    # given
    stripe, one_by_one, at_once = made("stripe"), Backend(), Backend()
    webhooks = post_of(stripe)

    # when
    owe(stripe, 2)
    apart = await webhooks.to(one_by_one).deliver(duplicate=2)
    owe(stripe)
    alone = await webhooks.to(at_once).deliver(together=True)
    owe(stripe)
    together = await webhooks.to(at_once).deliver(duplicate=2, together=True)

    # then
    assert [one.number for one in apart] == [0, 0, 0, 1, 1, 1]
    assert [str(one.manner) for one in apart[:3]] == ["genuine", "duplicate", "duplicate"]
    assert (one_by_one.most_busy, len(alone), len(together), at_once.most_busy) == (1, 2, 3, 3)


async def test_shuffled_they_come_in_an_order_the_seed_decides() -> None:
    async def order(seed: int) -> list[int]:
        stripe = made("stripe")
        owe(stripe, 12)
        sent = await post_of(stripe, seed=seed).to(Backend()).deliver(shuffle=True, duplicate=1)
        return [one.number for one in sent]

    assert await order(7) == await order(7)
    assert await order(7) != await order(8)
    assert sorted(await order(7)) == sorted([*range(12), *range(12)])
    assert await order(7) != sorted(await order(7))


@pytest.mark.parametrize(
    ("drop", "dropped"),
    [(True, {0, 1, 2}), ({1}, {1}), (lambda webhook: webhook.key == "o2", {2}), (False, set())],
)
async def test_what_is_dropped_is_never_sent_and_remembered(drop: Any, dropped: set[int]) -> None:
    stripe = made("stripe")
    owe(stripe, 3)
    webhooks = post_of(stripe)
    sent = await webhooks.to(Backend()).deliver(drop=drop)
    assert {one.number for one in sent} == {0, 1, 2} - dropped
    assert {webhooks.number(webhook) for webhook in webhooks.dropped} == dropped
    assert webhooks.waiting == []


async def test_late_ones_come_late_on_a_virtual_clock_and_are_signed_then() -> None:
    # given
    clock = VirtualClock(NOW)
    stripe, backend = made("stripe", clock=clock), Backend(clock=clock)
    owe(stripe)

    # when
    [sent] = await post_of(stripe).to(backend).deliver(late="72h")

    # then
    assert backend.at == [72 * 3600]
    assert sent.at == NOW + timedelta(hours=72)
    assert f"t={int(sent.at.timestamp())}," in backend.came[0][1]["stripe-signature"]


async def test_a_clock_that_runs_already_goes_on() -> None:
    clock = VirtualClock(NOW)
    stripe, backend = made("stripe", clock=clock), Backend(500, 200, clock=clock)
    owe(stripe)
    async with clock.running():
        await clock.sleep(10)
        await post_of(stripe).to(backend).deliver()
    assert backend.at == [10, 3610]


async def test_without_a_virtual_clock_nobody_waits_and_what_is_late_comes_last() -> None:
    # given
    stripe, zoom = made("stripe"), made("zoom", clock=ManualClock(NOW))
    webhooks, backend = post_of(stripe, zoom), Backend(500, 200)
    owe(stripe, 2)
    webhooks.order(0, "late")

    # when
    sent = await webhooks.to(backend).deliver()

    # then
    assert [(one.number, one.tries) for one in sent] == [(1, 0), (0, 0), (1, 1)]
    assert {one.at for one in sent} == {NOW}


@pytest.mark.parametrize(("skew", "off"), [("-10m", -600), ("45s", 45), (timedelta(minutes=2), 120), (3, 3)])
async def test_a_skewed_clock_is_in_the_signature(skew: Any, off: int) -> None:
    zoom, backend = made("zoom"), Backend()
    owe(zoom)
    [sent] = await post_of(zoom).to(backend).deliver(skew=skew)
    assert int(backend.came[0][1]["x-zm-request-timestamp"]) - NOW.timestamp() == off
    assert sent.skew == off


async def test_a_vendor_whose_clock_goes_wrong_signs_with_it() -> None:
    zoom, backend = made("zoom"), Backend()
    zoom.faults.on("zoom").always(ClockSkew(600))
    owe(zoom)
    await post_of(zoom).to(backend).deliver()
    assert int(backend.came[0][1]["x-zm-request-timestamp"]) - NOW.timestamp() == 600


async def test_given_events_are_sent_also_when_they_were_before_and_the_others_wait() -> None:
    # given
    stripe = made("stripe")
    owe(stripe, 3)
    webhooks = post_of(stripe)
    door = webhooks.to(Backend())
    second = webhooks.waiting[1]

    # when
    once, again = await door.deliver([second]), await door.deliver([second])

    # then
    assert [one.number for one in [*once, *again]] == [1, 1]
    assert [webhooks.number(webhook) for webhook in webhooks.waiting] == [0, 2]


async def test_a_lie_goes_before_and_has_no_number_of_its_own() -> None:
    # given
    stripe = made("stripe")
    assert isinstance(stripe, StripeSimulator)
    owe(stripe)
    stripe.resources["pi_1"] = {
        **{"id": "pi_1", "object": "payment_intent", "status": "requires_payment_method", "amount": 100},
        "metadata": {},
    }
    webhooks = post_of(stripe)

    # when
    sent = await webhooks.to(Backend()).deliver(lie=True)
    owe(stripe)
    after = await webhooks.to(Backend()).deliver()

    # then
    assert [(one.number, str(one.manner)) for one in [*sent, *after]] == [(0, "lie"), (0, "genuine"), (1, "genuine")]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("twice", [(0, "genuine"), (1, "genuine"), (1, "duplicate"), (2, "genuine")]),
        ("never", [(0, "genuine"), (2, "genuine")]),
        ("last", [(0, "genuine"), (2, "genuine"), (1, "genuine")]),
        ("together", [(0, "genuine"), (1, "genuine"), (1, "duplicate"), (2, "genuine")]),
        ("late", [(0, "genuine"), (2, "genuine"), (1, "genuine")]),
    ],
)
async def test_one_webhook_can_be_ordered_to_come_otherwise(how: str, expected: list[tuple[int, str]]) -> None:
    # given
    clock = VirtualClock(NOW)
    stripe, backend = made("stripe", clock=clock), Backend(clock=clock)
    owe(stripe, 3)
    webhooks = post_of(stripe)
    webhooks.order(1, how)

    # when
    sent = await webhooks.to(backend).deliver()

    # then
    assert [(one.number, str(one.manner)) for one in sent] == expected
    assert backend.most_busy == (2 if how == "together" else 1)
    assert clock.elapsed == (LATE if how == "late" else 0)


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(ValueError, match="twice, never, last, together, late; not often"):
        post_of(made("stripe")).order(0, "often")


# Retries


@pytest.mark.parametrize(
    ("vendor", "answer", "at"),
    [
        ("zoom", 500, [0, 300, 1500, 5100]),
        ("zoom", 404, [0, 300, 1500, 5100]),
        ("slack", 500, [0, 0, 60, 360]),
        ("slack", (500, b"", {"X-Slack-No-Retry": "1"}), [0]),
        ("stripe", 302, [0, 3600, 10_800, 25_200]),
        ("twilio", 500, [0]),
        ("swiss-bitcoin-pay", 500, [0]),
        ("lnbits", 500, [0, 0]),
    ],
)
async def test_each_vendor_tries_again_when_it_says_it_does(vendor: str, answer: Answer, at: list[float]) -> None:
    # given
    clock = VirtualClock(NOW)
    simulator, backend = made(vendor, clock=clock), Backend(answer, clock=clock)
    owe(simulator)

    # when
    sent = await post_of(simulator).to(backend).deliver(expect="any")

    # then
    assert backend.at == at
    assert [one.tries for one in sent] == ([0, 0] if vendor == "lnbits" else list(range(len(at))))


async def test_telegram_tries_for_a_day_and_heeds_when_it_is_told() -> None:
    # given
    clock = VirtualClock(NOW)
    telegram, stubborn = made("telegram", clock=clock), Backend(500, clock=clock)
    heeded = Backend((429, b"", {"retry-after": "120"}), (429, b"", {"retry-after": "90000"}), 200, clock=clock)
    webhooks = post_of(telegram)

    # when
    owe(telegram)
    await webhooks.to(stubborn).deliver()
    begun = clock.elapsed
    owe(telegram)
    await webhooks.to(heeded).deliver()

    # then
    assert stubborn.at[:9] == [0, 0, 2, 6, 14, 30, 62, 126, 216]
    assert 86_000 < stubborn.at[-1] < 86_400
    assert [at - begun for at in heeded.at] == [0, 120, 3720]


async def test_slack_says_how_often_it_has_tried_and_why_again() -> None:
    # given
    clock = VirtualClock(NOW)
    slack = made("slack", clock=clock)
    slow, deaths = Backend(200, clock=clock, takes=5), [False, True, False]

    async def runner(call: Callable[[], Awaitable[Reply]]) -> Reply | int:
        return 0 if deaths and deaths.pop(0) else await call()

    webhooks = post_of(slack)
    webhooks.runner = runner
    owe(slack)

    # when
    sent = await webhooks.to(slow).deliver()

    # then
    headers = [(each.get("x-slack-retry-num"), each.get("x-slack-retry-reason")) for _, each, _ in slow.came]
    assert headers == [(None, None), ("2", "connection_failed"), ("3", "http_timeout")]
    assert [(one.status, one.failure) for one in sent] == [
        (0, "timeout"),
        (0, "the receiver died"),
        (0, "timeout"),
        (0, "timeout"),
    ]


async def test_a_receiver_that_dies_meets_the_vendors_next_try_anew() -> None:
    # given
    clock = VirtualClock(NOW)
    zoom, apps, deaths = made("zoom", clock=clock), list[Backend](), [True, False]

    async def runner(call: Callable[[], Awaitable[Reply]]) -> Reply | int:
        return await call() if not deaths.pop(0) else 0

    def make() -> App:
        apps.append(Backend(clock=clock))
        return apps[-1]

    webhooks = post_of(zoom)
    webhooks.runner = runner
    owe(zoom)

    # when
    sent = await webhooks.to(make).deliver()

    # then
    assert told(sent) == [(0, "genuine", 0), (0, "retry", 200)]
    assert [app.at for app in apps] == [[300]]
    webhooks.assert_all_genuine_accepted()


async def test_twilio_tries_once_more_where_nobody_was_there() -> None:
    async def runner(call: Callable[[], Awaitable[Reply]]) -> Reply | int:
        return 0

    twilio = made("twilio")
    owe(twilio)
    webhooks = post_of(twilio)
    webhooks.runner = runner
    assert [one.tries for one in await webhooks.to(Backend()).deliver()] == [0, 1]


async def test_whoever_does_not_wait_sees_only_the_beginning_of_a_long_schedule() -> None:
    telegram = made("telegram")
    owe(telegram)
    assert len(await post_of(telegram).to(Backend(500)).deliver()) == 10


# Verdicts


async def test_what_is_refused_for_ever_is_listed_in_words() -> None:
    # given
    zoom = made("zoom")
    owe(zoom, 2)
    webhooks = post_of(zoom)

    # when
    await webhooks.to(Backend(200, KeyError("o1"))).deliver()

    # then
    [refused] = webhooks.refused
    assert (refused.number, refused.tries) == (1, 3)
    expected = "#1 zoom paid o1, retry, try 4: 500 \\(KeyError: 'o1'\\)"
    with pytest.raises(AssertionError, match=f"never accepted what is genuine.*\n  {expected}"):
        webhooks.assert_all_genuine_accepted()
    webhooks.assert_no_forgery_accepted()


async def test_what_was_accepted_by_any_try_or_signed_by_a_clock_far_off_is_not_refused() -> None:
    # given
    stripe, zoom, sbp = made("stripe"), made("zoom"), made("swiss-bitcoin-pay")
    webhooks = post_of(stripe, zoom, sbp)

    # when
    owe(stripe)
    await webhooks.to(Backend(500, 500, 200)).deliver(duplicate=1)
    for simulator in (zoom, sbp):
        owe(simulator)
    await webhooks.to(Backend(401)).deliver(skew="-10m")
    owe(zoom)
    await webhooks.to(Backend(401)).deliver(skew="-5m")

    # then: Swiss Bitcoin Pay signs no time, and Zoom's may be five minutes off
    assert [one.number for one in webhooks.refused] == [2, 3]


async def test_an_accepted_forgery_is_listed_in_words_with_the_timeline() -> None:
    # given
    stripe = made("stripe")
    owe(stripe)
    journal = Journal(stripe.clock)
    webhooks = post_of(stripe, journal=journal)

    # when
    await webhooks.to(Backend()).deliver(forge=["wrong_key", "stale"])

    # then
    assert [str(one.manner) for one in webhooks.accepted_forgeries] == ["wrong_key", "stale"]
    with pytest.raises(AssertionError, match="accepted what is forged:\n  #0 stripe paid o0, wrong_key: 200") as found:
        webhooks.assert_no_forgery_accepted()
    assert "paid of o0" in str(found.value).partition("what happened:")[2]
    webhooks.assert_all_genuine_accepted()


async def test_a_forgery_a_vendor_does_not_give_away_is_refused_by_name() -> None:
    lnbits = made("lnbits")
    owe(lnbits)
    with pytest.raises(ValueError, match="what lnbits sends cannot be forged by stale, wrong_key; it can by wrong_url"):
        await post_of(lnbits).to(Backend()).deliver(forge=["wrong_key", "stale"])


async def test_of_several_vendors_each_is_forged_by_what_it_gives_away() -> None:
    lnbits, zoom = made("lnbits"), made("zoom")
    owe(lnbits)
    owe(zoom)
    sent = await post_of(lnbits, zoom).to(Backend()).deliver(forge=["wrong_url", "wrong_key"])
    manners = [(one.webhook.vendor, str(one.manner)) for one in sent]
    assert manners == [
        ("lnbits", "wrong_url"),
        *[("lnbits", "genuine")] * 2,
        ("zoom", "wrong_key"),
        ("zoom", "genuine"),
    ]


# Handshakes


def prove(zoom: Simulator, *, secret: str = "") -> Callable[[bytes], bytes]:
    def answer(body: bytes) -> bytes:
        plain = json.loads(body)["payload"]["plainToken"]
        mac = hmac.new((secret or zoom.webhook_secret).encode(), plain.encode(), sha256).hexdigest()
        return json.dumps({"plainToken": plain, "encryptedToken": mac}).encode()

    return answer


class Replying(Backend):
    """Answers with what the function makes of the body."""

    def __init__(self, reply: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self.reply = reply

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self.came.append((scope["path"], {name.decode(): value.decode() for name, value in scope["headers"]}, body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.reply(body)})


async def test_zoom_takes_an_endpoint_that_knows_the_secret_and_no_other() -> None:
    # given
    zoom = ZoomSimulator(clock=ManualClock(NOW), seed=3)
    webhooks = Webhooks([zoom], clock=zoom.clock, seed=3)
    right, wrong = Replying(prove(zoom)), Replying(prove(zoom, secret="other"))

    # when
    [sent] = await webhooks.to(right, "/hooks/zoom").handshake()

    # then
    [(path, headers, body)] = right.came
    assert (path, str(sent.manner), sent.status) == ("/hooks/zoom", "challenge", 200)
    assert set(dict(zoom.sign(body, secret=zoom.webhook_secret, at=NOW)).items()) <= set(headers.items())
    with pytest.raises(AssertionError, match="zoom does not take this endpoint: encryptedToken"):
        await webhooks.to(wrong).handshake()
    with pytest.raises(AssertionError, match="it answered 404, not 200"):
        await webhooks.to(Backend(404)).handshake()
    with pytest.raises(AssertionError, match="plainToken"):
        await webhooks.to(Backend()).handshake()
    assert webhooks.owed == 0


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text.encode(),
        lambda text: f"challenge={text}".encode(),
        lambda text: json.dumps({"challenge": text}).encode(),
    ],
)
async def test_slack_takes_an_endpoint_that_answers_the_challenge(write: Callable[[str], bytes]) -> None:
    slack = SlackSimulator(clock=ManualClock(NOW))
    webhooks = Webhooks([slack], clock=slack.clock)
    door = webhooks.to(Replying(lambda body: write(json.loads(body)["challenge"])))
    [sent] = await door.handshake()
    assert sent.accepted
    with pytest.raises(AssertionError, match="slack does not take this endpoint: the answer does not hold"):
        await webhooks.to(Backend((200, b"[1]"))).handshake()


async def test_where_no_vendor_asks_there_is_no_handshake() -> None:
    with pytest.raises(LookupError, match="stripe asks no endpoint"):
        await post_of(made("stripe")).to(Backend()).handshake()


# Rotation


async def test_stripe_signs_with_both_while_a_secret_is_rolled_and_with_the_new_one_afterwards() -> None:
    # given
    stripe, backend = made("stripe"), Backend()
    old = stripe.webhook_secret
    webhooks = post_of(stripe)

    # when
    for rotate in ("during", "during", "after"):
        owe(stripe)
        await webhooks.to(backend).deliver(rotate=rotate)

    # then
    found = [headers["stripe-signature"] for _, headers, _ in backend.came]
    signatures = [[pair for pair in one.split(",") if pair.startswith("v1=")] for one in found]
    body, new = backend.bodies[0], stripe.webhook_secret
    by = [dict(stripe.sign(body, secret=secret, at=NOW))["stripe-signature"].split(",")[1] for secret in (new, old)]
    assert signatures[0] == signatures[1] == by
    assert signatures[2] == by[:1]


async def test_a_vendor_that_changes_over_at_once_signs_with_either_meanwhile() -> None:
    # given
    zoom, backend = made("zoom"), Backend()
    old = zoom.webhook_secret
    webhooks = post_of(zoom)

    # when
    owe(zoom, 2)
    during = await webhooks.to(backend).deliver(rotate="during")
    owe(zoom)
    after = await webhooks.to(backend).deliver(rotate="after", forge="retired_secret")

    # then
    manners = [str(one.manner) for one in [*during, *after]]
    assert manners == ["straggler", "genuine", "retired_secret", "genuine"]
    for (_, headers, body), secret in zip(
        backend.came, (old, zoom.webhook_secret, old, zoom.webhook_secret), strict=True
    ):
        assert dict(zoom.sign(body, secret=secret, at=NOW))["x-zm-signature"] == headers["x-zm-signature"]


async def test_a_straggler_that_is_refused_is_tried_again_as_a_straggler() -> None:
    zoom = made("zoom")
    owe(zoom)
    webhooks = post_of(zoom)
    sent = await webhooks.to(Backend(401)).deliver(rotate="during")
    assert {str(one.manner) for one in sent} == {"straggler"}
    assert [one.number for one in webhooks.refused] == [0]


# One seed


async def everything(seed: int) -> tuple[list[Any], list[str]]:
    """All vendors, all manners; what came, byte by byte, and what was written down of it."""
    clock = VirtualClock(NOW)
    simulators = [made(vendor, clock=clock, seed=seed) for vendor in VENDORS]
    backend = Backend(*[200, 500, 200, 404] * 100, 200, clock=clock)
    webhooks = post_of(*simulators, seed=seed)
    for _ in range(2):
        for simulator in simulators:
            owe(simulator, 2)
        webhooks.order(webhooks.owed - 1, "together")
        await webhooks.to(backend).deliver(
            duplicate=1, shuffle=True, forge="all", late="1h", drop={3}, skew="20s", rotate="during"
        )
    for simulator in simulators:
        owe(simulator)
    await webhooks.to(backend).deliver(rotate="after", forge="all", reserialise=True)
    return [*backend.came, *backend.pieces, *backend.at], [str(one) for one in webhooks.sent]


async def test_two_runs_with_one_seed_are_the_same_byte_by_byte() -> None:
    first, again, other = await everything(7), await everything(7), await everything(8)
    assert first == again
    assert first != other
    found = {manner for manner in Manner if any(f", {manner}" in line for line in first[1])}
    assert found == set(Manner) - {Manner.LIE, Manner.CHALLENGE}


async def test_the_journal_hears_of_every_one_in_order() -> None:
    stripe = made("stripe")
    owe(stripe, 2)
    journal = Journal(stripe.clock)
    webhooks = post_of(stripe, journal=journal)
    await webhooks.to(Backend(500, 200)).deliver(forge="wrong_key")
    records = [record for record in journal.records if isinstance(record, WebhookRecord)]
    assert [record.sent for record in records] == webhooks.sent
    assert [str(record.sent.manner) for record in records] == ["wrong_key", "genuine"] * 2


@pytest.mark.parametrize(
    ("written", "expected"),
    [("72h", 259_200), ("-10m", -600), ("1h30m", 5400), ("500ms", 0.5), ("+2d", 172_800), ("1.5s", 1.5), (7, 7)],
)
def test_a_length_of_time_is_written_as_people_do(written: str | float, expected: float) -> None:
    assert seconds(written) == expected


@pytest.mark.parametrize("written", ["", "72", "h", "1 h", "-", "ten minutes"])
def test_any_other_length_of_time_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is written 72h, -10m or 1h30m"):
        seconds(written)


async def test_an_app_of_a_framework_is_called_like_any_other() -> None:
    # given
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()
    came: list[dict[str, object]] = []

    async def hook(event: dict[str, object]) -> None:
        came.append(event)

    app.post("/hooks/stripe")(hook)

    stripe = made("stripe")
    owe(stripe)

    # when
    [sent] = await post_of(stripe).to(app).deliver()

    # then
    assert (sent.status, came) == (200, [{"id": "evt_0", "n": 0}])


# Paths that are not there


async def said_of(door: Door, **how: Any) -> str:
    with pytest.raises(AssertionError) as failed:
        await door.deliver(**how)
    return str(failed.value)


async def test_a_path_the_app_does_not_have_is_told_with_the_paths_it_has() -> None:
    # given
    async def hear(_request: Request) -> Response:
        return Response()

    app = Starlette(
        routes=[
            Route("/orders", hear, methods=["POST"]),
            Route("/orders", hear, methods=["GET"]),
            Mount("/webhooks", routes=[Route("/stripe", hear, methods=["POST"])]),
        ]
    )
    stripe = made("stripe")
    owe(stripe, 2)

    # when
    said = await said_of(post_of(stripe).to(app, "/hooks/stripe"), duplicate=1)

    # then
    assert said == (
        "the app has no path /hooks/stripe to POST to: it answered 404 to all that went there, as the test says\n"
        "it takes POST at /orders, /webhooks/stripe\n"
        "name the path it has, webhooks.to(app, path); or, where it is to answer so, deliver(expect=404); they were:\n"
        "  #0 stripe paid o0, retry, try 4: 404\n"
        "  #1 stripe paid o1, retry, try 4: 404"
    )


@pytest.mark.parametrize("status", [404, 405])
async def test_without_a_path_the_one_the_vendor_was_told_is_named(status: int) -> None:
    stripe, zoom = made("stripe"), made("zoom")
    owe(stripe)
    owe(zoom)

    said = await said_of(post_of(stripe, zoom).to(Backend(status)))

    where = f"no path /hooks/stripe to POST to: it answered {status} to all that went there, as stripe was told\nname"
    assert where in said
    assert "zoom" not in said


async def test_one_path_that_is_missing_is_told_though_another_is_there() -> None:
    stripe, zoom = made("stripe"), made("zoom")
    owe(stripe)
    owe(zoom)

    assert "no path /hooks/zoom to POST to" in await said_of(post_of(stripe, zoom).to(Backend(200, 404)))


@pytest.mark.parametrize("answers", [(404, 404, 200), (200, 404), (404, 500), (400,)])
async def test_a_path_that_has_ever_answered_otherwise_is_there(answers: Sequence[int]) -> None:
    stripe = made("stripe")
    owe(stripe, 2)

    sent = await post_of(stripe).to(Backend(*answers)).deliver()

    assert {one.status for one in sent} == {*answers}


async def test_of_what_a_forger_is_answered_and_of_nobody_at_home_no_path_is_missed() -> None:
    stripe = made("stripe")
    owe(stripe)

    refused = await post_of(stripe).to(Backend(404)).deliver(drop=True, forge="wrong_key")
    owe(stripe)
    unheard = await post_of(stripe).to("http://127.0.0.1:1").deliver()

    assert [one.status for one in refused] == [404]
    assert {one.status for one in unheard} == {0}


async def test_what_the_app_is_to_answer_can_be_said() -> None:
    # given
    stripe = made("stripe")
    owe(stripe)
    sent = await post_of(stripe).to(Backend(404)).deliver(duplicate=1, expect=404)
    assert {one.status for one in sent} == {404}

    # when
    owe(stripe, 2)
    said = await said_of(post_of(stripe).to(Backend(404, 404, 200, 404)), expect=404)

    # then
    assert said == "the app is expected to answer 404, and answered:\n  #0 stripe paid o0, retry, try 2: 200"


@pytest.mark.parametrize(("answers", "duplicate"), [((503, 200), 0), ((200, 500), 1)])
async def test_what_the_app_answers_in_the_end_is_what_counts(answers: Sequence[int], duplicate: int) -> None:
    stripe = made("stripe")
    owe(stripe)

    sent = await post_of(stripe).to(Backend(*answers)).deliver(duplicate=duplicate, expect=200)

    assert [one.status for one in sent] == list(answers)


async def test_an_app_that_died_has_said_nothing_of_its_paths() -> None:
    # given
    stripe, deaths = made("stripe"), [0]
    owe(stripe)
    webhooks = post_of(stripe)

    async def runner(call: Callable[[], Awaitable[Reply]]) -> Reply | int:
        return deaths.pop() if deaths else await call()

    webhooks.runner = runner

    # then
    assert "no path /hooks/stripe" in await said_of(webhooks.to(Backend(404)))
