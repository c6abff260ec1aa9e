"""Bad input through the whole hub with real providers: a clear error, or a stated outcome, and nothing half done."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast import Holdfast, Secret, Secrets
from holdfast.errors import InvalidInput, MissingCredential, StoreUnavailable, WrongLoop
from holdfast.providers import LNbits
from holdfast.stores.store import JobFilter, JobState
from tests.payments.world import DOOR, DUE, LNBITS, SBP, WEBHOOK_SECRET, Process, World

NO_BODY_OF_THEIRS = [
    b"",
    b"\xff\xfe\x00",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"[" * 100_000,
    b'{"id": {"a": 1}}',
    b'{"id": "\\ud800", "status": "settled"}',
    b'{"id": 1e999}',
    b"<html>",
]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def shop(world: World) -> AsyncIterator[Process]:
    async with Process(world) as shop:
        yield shop


async def signed(shop: Process, body: bytes, *, secret: str = WEBHOOK_SECRET) -> int:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return await shop.post(f"{DOOR}/{SBP}", [("sbp-sig", f"sha256={signature}")], body)


@pytest.mark.parametrize(
    "texts",
    [
        {"metadata": {"patient": 7}},
        {"metadata": {7: "patient"}},
        {"description": None},
        {"return_url": 7},
        {"region": None},
        {"tenant": None},
        {"customer": 7},
    ],
)
async def test_what_is_no_text_is_refused_before_anything_is_kept(
    world: World, shop: Process, texts: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput, match="are texts"):
        await shop.payments.create("order-1", DUE, **texts)

    assert await world.store.records.list("payment") == []
    assert world.ledger.entries() == []


@pytest.mark.parametrize("expires_in", [900, None, timedelta(), timedelta(seconds=-1)])
async def test_an_expiry_is_a_time_above_zero(world: World, shop: Process, expires_in: Any) -> None:
    with pytest.raises(InvalidInput, match=r"timedelta\(minutes=15\)"):
        await shop.payments.create("order-1", DUE, expires_in=expires_in)

    assert await world.store.records.list("payment") == []
    assert world.ledger.entries() == []


def test_links_that_must_be_signed_need_a_secret(tmp_path: Path) -> None:
    wallet = LNbits(base_url="https://lnbits.example", invoice_key=Secret("invoice-key"))

    with pytest.raises(MissingCredential, match="secret of your own"):
        Holdfast(store=f"sqlite:///{tmp_path}/holdfast.db", public_url=DOOR, payments=[wallet])


async def test_a_wrong_webhook_secret_is_401_and_nothing_is_stored(world: World, shop: Process) -> None:
    assert await signed(shop, b"{}", secret="of somebody else") == 401
    assert await world.store.jobs.list() == []


async def test_a_wrong_url_token_is_404_and_nothing_is_stored(world: World, shop: Process) -> None:
    payment = await shop.create("order-1")

    assert await shop.post(f"{DOOR}/{LNBITS}/{payment.attempts[0].id}.{'0' * 32}", [], b"{}") == 404
    assert await world.store.jobs.list() == []


@pytest.mark.parametrize("body", NO_BODY_OF_THEIRS, ids=range(len(NO_BODY_OF_THEIRS)))
async def test_a_body_nobody_can_read_is_kept_when_it_is_signed_and_changes_nothing(
    world: World, shop: Process, body: bytes
) -> None:
    before = await shop.create("order-1")

    assert await signed(shop, body) == 200
    await shop.settle()

    [job] = await world.store.jobs.list(JobFilter(queue="deliveries"))
    assert job.body == body
    assert job.headers["type"] == "unparsed" or job.state is not JobState.DONE
    assert await shop.get("order-1") == before


@pytest.mark.parametrize("body", NO_BODY_OF_THEIRS, ids=range(len(NO_BODY_OF_THEIRS)))
async def test_a_body_nobody_can_read_is_kept_when_its_url_is_ours(world: World, body: bytes) -> None:
    async with Process(world, order=[LNBITS]) as shop:
        before = await shop.create("order-1")
        [invoice] = world.lnbits.payments.values()

        assert await shop.post(invoice.webhook or "", [], body) == 200
        await shop.settle()

        [job] = await world.store.jobs.list(JobFilter(queue="deliveries"))
        assert (job.body, job.headers["type"], job.state) == (body, "unparsed", JobState.IGNORED)
        assert await shop.get("order-1") == before


async def test_an_event_we_do_not_know_is_kept_and_changes_nothing(world: World, shop: Process) -> None:
    before = await shop.create("order-1")
    body = json.dumps({"id": before.attempts[0].vendor_id, "status": "gift_wrapped"}).encode()

    assert await signed(shop, body) == 200
    await shop.settle()

    [job] = await world.store.jobs.list(JobFilter(queue="deliveries"))
    assert (job.headers["type"], job.state) == ("gift_wrapped", JobState.IGNORED)
    assert (await world.store.jobs.replay(job.id)).state is JobState.READY
    assert await shop.get("order-1") == before


async def test_a_store_that_is_down_is_503_and_the_repeated_delivery_counts(
    world: World, shop: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await shop.create("order-1")
    world.sbp.pay(payment.attempts[0].vendor_id)
    body = world.sbp.outbox.pop().body
    add, down = world.store.jobs.add, [StoreUnavailable("disk full")]

    async def fail_once(jobs: Any) -> Any:
        if down:
            raise down.pop()
        return await add(jobs)

    monkeypatch.setattr(shop.hub.store.jobs, "add", fail_once, raising=False)

    assert [await signed(shop, body) for _ in range(2)] == [503, 200]
    await shop.settle()
    assert [paid.reference for paid in world.told] == ["order-1"]


def test_a_hub_open_in_one_loop_cannot_be_opened_in_another() -> None:
    hub = Holdfast(store="memory://", secret=Secrets("hub-secret"))

    async def open_again() -> None:
        with pytest.raises(WrongLoop, match="one hub per loop"):
            await hub.__aenter__()

    async def in_one_loop() -> None:
        async with hub:
            await asyncio.to_thread(asyncio.run, open_again())
        async with hub:  # closed and opened again in its own loop it is as good as new
            assert await hub.settle() == 0

    asyncio.run(in_one_loop())
    asyncio.run(in_one_loop())
