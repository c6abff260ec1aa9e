"""Intents against localstripe, a server of others that answers as Stripe does, over real sockets.

It is under the GPL and runs as a process of its own, from an environment of its own; nothing here imports it. Where it
is not like Stripe, the test says so, and the provider stays as Stripe wants it.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from holdfast import Holdfast, Payment, PaymentPaid
from holdfast.errors import InvalidInput, Rejected
from holdfast.http.transports import HttpRequest, HttpResponse, HttpxTransport
from holdfast.payments.models import Capture, PaymentStatus, RefundStatus
from holdfast.providers import StripeIntents
from holdfast.values import Money, Secret, Secrets
from tests.providers.connection import connection
from tests.providers.test_stripe import DUE, attempt, request
from tests.servers.environments import environment
from tests.servers.ports import LOOPBACK, free_port

pytestmark = pytest.mark.xdist_group("localstripe")

S = PaymentStatus
KEY: Final = "sk_test_of-localstripe"
HOOK_SECRET: Final = "whsec_of-localstripe"
START_WITHIN: Final = 60.0
STOP_WITHIN: Final = 5.0
PROGRAM: Final = """
import sys
from aiohttp import web
from localstripe.resources import Store
from localstripe.server import app

Store.dump_to_disk = lambda store: None  # into one file in /tmp, which all runs would share
web.run_app(app, host=sys.argv[1], port=int(sys.argv[2]), print=None)
"""
"""Its own command line listens on every address of the machine."""
UNKNOWN_THERE: Final = frozenset({"description", "receipt_email", "cancellation_reason"})
"""Parameters of Stripe's that localstripe refuses."""

GOOD_CARD, DECLINED_CARD = "4242424242424242", "4000000000000341"


class LocalStripe:
    """The process."""

    def __init__(self, directory: Path) -> None:
        self.url = f"http://{LOOPBACK}:{free_port()}"
        self.log = directory / "localstripe.log"

    def __enter__(self) -> "LocalStripe":
        python = environment("sdk-localstripe") / "bin" / "python"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, "-I", "-c", PROGRAM, LOOPBACK, str(httpx.URL(self.url).port)],
                env={"PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_WITHIN)
        self._process.kill()
        self._process.wait()

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + START_WITHIN
        with httpx.Client(base_url=self.url, trust_env=False, timeout=30) as client:
            while self._process.poll() is None and time.monotonic() < give_up:
                with suppress(httpx.TransportError):
                    client.get("/v1/events")
                    return
                time.sleep(0.05)
        raise RuntimeError(f"localstripe did not start; its log has:\n{self.log.read_text(errors='replace')}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[LocalStripe]:
    with LocalStripe(tmp_path_factory.mktemp("localstripe")) as server:
        yield server


class Understood(HttpxTransport):
    """The network, where what localstripe does not know is left out of what is sent."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        said = parse_qsl(request.content.decode())
        known = [(name, text) for name, text in said if name not in UNKNOWN_THERE]
        return await super().send(replace(request, content=urlencode(known).encode()) if known != said else request)


@dataclass
class Shop:
    """A hub over localstripe, with a door on a real socket, and the payer's browser."""

    url: str
    hub: Holdfast
    browser: httpx.AsyncClient
    answers: asyncio.Queue[int] = field(default_factory=asyncio.Queue[int])
    """What the door answered."""
    told: asyncio.Queue[str] = field(default_factory=asyncio.Queue[str])

    async def create(self, reference: str, **more: Any) -> Payment:
        return await self.hub.payments.create(reference, DUE, **more)

    async def listen(self, secret: str) -> None:
        """Have its webhooks sent to our door, signed with this secret."""
        hook = {"url": f"{self.url}/stripe", "secret": secret}
        (await self.browser.post("/_config/webhooks/shop", json=hook)).raise_for_status()

    async def confirm(self, payment: Payment, number: str) -> httpx.Response:
        """As the payer's form would; localstripe wants the secret key for that, and the card beforehand."""
        card = {"number": number, "exp_month": "8", "exp_year": "2030", "cvc": "123"}
        form = {"type": "card", **{f"card[{name}]": text for name, text in card.items()}}
        created = (await self.browser.post("/v1/payment_methods", data=form)).raise_for_status()
        path = f"/v1/payment_intents/{payment.attempts[0].vendor_id}"
        (await self.browser.post(path, data={"payment_method": created.json()["id"]})).raise_for_status()
        return await self.browser.post(f"{path}/confirm")


@asynccontextmanager
async def served(app: FastAPI, port: int) -> AsyncGenerator[None]:
    server = uvicorn.Server(uvicorn.Config(app, host=LOOPBACK, port=port, log_level="warning", lifespan="on"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # the test run keeps its own
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
            assert not serving.done()
        yield
        server.should_exit = True


@asynccontextmanager
async def open_shop(server: LocalStripe, tmp_path: Path) -> AsyncGenerator[Shop]:
    port = free_port()
    url = f"http://{LOOPBACK}:{port}/webhooks"
    hub = Holdfast(
        store=f"sqlite:///{tmp_path}/holdfast.db",
        secret=Secrets("a secret of the shop's own"),
        public_url=url,
        payments=[StripeIntents(api_key=Secret(KEY), webhook_secret=Secrets(HOOK_SECRET), base_url=server.url)],
        transport=lambda _: Understood(),
    )
    browser = httpx.AsyncClient(base_url=server.url, auth=(KEY, ""), trust_env=False, timeout=30)
    shop = Shop(url, hub, browser)

    @hub.on(PaymentPaid, name="tell")
    async def tell(paid: PaymentPaid) -> None:
        shop.told.put_nowait(paid.reference)

    async def door(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                shop.answers.put_nowait(message["status"])
            await send(message)

        await hub.receiver(scope, receive, sending)

    app = FastAPI(lifespan=hub.lifespan)
    app.mount("/webhooks", door)
    async with served(app, port), browser, asyncio.timeout(60):
        await shop.listen(HOOK_SECRET)
        yield shop


async def test_an_intent_is_paid_in_a_form_and_told_once_by_a_webhook_it_signed(
    server: LocalStripe, tmp_path: Path
) -> None:
    async with open_shop(server, tmp_path) as shop:
        # given
        payment = await shop.create("paid-once")
        secret = await shop.hub.payments.client_secret("paid-once")

        # when
        confirmed = await shop.confirm(payment, GOOD_CARD)
        told, answer = await shop.told.get(), await shop.answers.get()
        again = await shop.hub.payments.refresh("paid-once")

        # then
        assert payment.offer
        assert payment.offer.embedded
        assert secret.reveal() == confirmed.json()["client_secret"]
        assert (again.status, again.received, again.offer) == (S.PAID, DUE, None)
        assert (told, answer) == ("paid-once", 200)
        assert shop.told.empty()
        with pytest.raises(InvalidInput, match="no offer"):
            await shop.hub.payments.client_secret("paid-once")


async def test_a_webhook_signed_with_another_secret_is_refused_and_moves_nothing(
    server: LocalStripe, tmp_path: Path
) -> None:
    async with open_shop(server, tmp_path) as shop:
        # given
        payment = await shop.create("forged")
        await shop.listen("whsec_of-somebody-else")

        # when
        await shop.confirm(payment, GOOD_CARD)
        answer = await shop.answers.get()

        # then
        assert answer == 401
        assert (await shop.hub.payments.get("forged")).status is S.PENDING


async def test_a_declined_card_leaves_the_offer_open_though_localstripe_takes_no_second_one(
    server: LocalStripe, tmp_path: Path
) -> None:
    async with open_shop(server, tmp_path) as shop:
        # given
        payment = await shop.create("declined")

        # when
        declined = await shop.confirm(payment, DECLINED_CARD)
        answer = await shop.answers.get()
        after = await shop.hub.payments.refresh("declined")

        # then
        assert (declined.status_code, declined.json()["error"]["code"]) == (402, "card_declined")
        assert (answer, after.status, after.offer) == (200, S.PENDING, payment.offer)
        assert await shop.hub.payments.client_secret("declined")


async def test_money_set_aside_is_captured_in_part_and_refunded_in_part(server: LocalStripe, tmp_path: Path) -> None:
    async with open_shop(server, tmp_path) as shop:
        # given
        part, less = Money("70.00", "CHF"), Money("20.00", "CHF")
        payment = await shop.create("set-aside", capture=Capture.MANUAL)
        await shop.confirm(payment, GOOD_CARD)
        held = await shop.hub.payments.refresh("set-aside")

        # when
        captured = await shop.hub.payments.capture("set-aside", part)
        first, second = [await shop.hub.payments.refund("set-aside", less, key="ill") for _ in range(2)]
        told = await shop.told.get()

        # then
        assert (held.status, captured.status, captured.received, told) == (S.AUTHORIZED, S.PAID, part, "set-aside")
        assert (first.status, first.money, second.vendor_id) == (RefundStatus.SUCCEEDED, less, first.vendor_id)
        listed = (
            await shop.browser.get("/v1/refunds", params={"payment_intent": payment.attempts[0].vendor_id})
        ).json()
        # What is not captured is a refund there, which it is not at Stripe.
        assert sorted(one["amount"] for one in listed["data"]) == [2_000, 5_000]


@pytest.mark.parametrize("capture", list(Capture))
async def test_a_canceled_intent_cannot_be_paid(server: LocalStripe, tmp_path: Path, capture: Capture) -> None:
    async with open_shop(server, tmp_path) as shop:
        # given
        reference = f"canceled-{capture}"
        payment = await shop.create(reference, capture=capture)
        if capture is Capture.MANUAL:
            await shop.confirm(payment, GOOD_CARD)
            await shop.hub.payments.refresh(reference)

        # when
        canceled = await shop.hub.payments.cancel(reference)
        late = await shop.confirm(payment, GOOD_CARD)

        # then
        assert (canceled.status, canceled.offer, late.status_code) == (S.CANCELED, None, 400)
        assert (await shop.hub.payments.refresh(reference)).status is S.CANCELED


async def test_another_offer_is_made_once_the_first_is_revoked(server: LocalStripe, tmp_path: Path) -> None:
    async with open_shop(server, tmp_path) as shop:
        # given
        first = await shop.create("renewed")
        secret = await shop.hub.payments.client_secret("renewed")

        # when
        second = await shop.hub.payments.renew("renewed")
        fresh = await shop.hub.payments.client_secret("renewed")

        # then
        assert (second.status, second.attempts[0].state) == (S.PENDING, "closed")
        assert fresh != secret
        old = await shop.browser.get(f"/v1/payment_intents/{first.attempts[0].vendor_id}")
        assert old.json()["status"] == "canceled"


async def test_localstripe_ignores_the_key_of_a_creation_and_makes_a_second_intent(server: LocalStripe) -> None:
    provider = StripeIntents(api_key=Secret(KEY), webhook_secret=Secrets(HOOK_SECRET), base_url=server.url)
    transport = Understood()
    first, second = [await provider.create(connection(provider, transport), request()) for _ in range(2)]
    await transport.aclose()
    assert first.vendor_id != second.vendor_id


async def test_localstripe_lists_no_intents_by_time_so_that_a_lost_one_cannot_be_found(server: LocalStripe) -> None:
    provider = StripeIntents(api_key=Secret(KEY), webhook_secret=Secrets(HOOK_SECRET), base_url=server.url)
    transport = Understood()
    with pytest.raises(Rejected, match="Unexpected created"):
        await provider.find(connection(provider, transport), attempt())
    await transport.aclose()
