"""The shoot-out's vendor counts truly, keys or no keys, and holdfast charges each of its orders once."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from benchmarks._intents import KEYS, NO_KEYS, charge, orders
from benchmarks._shootout_vendor import LOST, SLOW, TROUBLES, UNAVAILABLE, ScriptedVendor, script, scripted
from benchmarks.shootout import CANDIDATES, Outcome, figures, play_one
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.edge import Edge
from scripts import bench_table

ORDER = "order-0"
PLAIN = {"reference": ORDER}


async def post(url: str, *, order: str = ORDER, headers: dict[str, str] | None = None) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        return await client.post("/charges", json=charge(order), headers=headers)


def charged(vendor: ScriptedVendor, order: str = ORDER) -> int:
    return len(vendor.ledger.entries(Kind.CAPTURE, key=order))


@pytest.mark.parametrize(("honours_keys", "effects"), [(True, 1), (False, 2)])
async def test_a_key_asked_twice_charges_once_only_where_keys_are_honoured(honours_keys: bool, effects: int) -> None:
    vendor = ScriptedVendor(honours_keys=honours_keys)

    async with Edge(vendor) as edge:
        answers = [(await post(edge.url, headers={"Idempotency-Key": ORDER})).json() for _ in range(2)]

    assert charged(vendor) == effects
    assert len({answer["id"] for answer in answers}) == effects


async def test_a_key_is_one_of_its_account() -> None:
    vendor = ScriptedVendor(honours_keys=True)

    async with Edge(vendor) as edge:
        for account in ("a", "b"):
            await post(edge.url, headers={"Idempotency-Key": ORDER, "Authorization": account})

    assert charged(vendor) == 2


async def test_a_key_of_another_request_is_refused_and_charges_nothing() -> None:
    vendor = ScriptedVendor(honours_keys=True)

    async with Edge(vendor) as edge:
        await post(edge.url, headers={"Idempotency-Key": ORDER})
        refused = await post(edge.url, order="order-1", headers={"Idempotency-Key": ORDER})

    assert refused.status_code == 409
    assert charged(vendor, "order-1") == 0


async def test_two_calls_without_a_key_are_two_charges() -> None:
    vendor = ScriptedVendor(honours_keys=True)

    async with Edge(vendor) as edge:
        for _ in range(2):
            await post(edge.url)

    assert charged(vendor) == 2


async def test_a_lost_answer_is_a_reset_after_the_effect() -> None:
    vendor = ScriptedVendor(honours_keys=False)
    vendor.faults.on(vendor.vendor, "payments.create").script(LOST)

    async with Edge(vendor) as edge:
        with pytest.raises(httpx.ReadError):
            await post(edge.url)
        async with httpx.AsyncClient(base_url=edge.url, timeout=30) as client:
            found = (await client.get("/charges", params=PLAIN)).json()["charges"]

    assert charged(vendor) == len(found) == 1


async def test_unavailable_means_that_nothing_was_done() -> None:
    vendor = ScriptedVendor(honours_keys=False)
    vendor.faults.on(vendor.vendor, "payments.create").script(UNAVAILABLE)

    async with Edge(vendor) as edge:
        seen = [((await post(edge.url)).status_code, charged(vendor)) for _ in range(2)]

    assert seen == [(503, 0), (201, 1)]


def test_the_script_is_the_seeds_and_has_the_troubles_it_says() -> None:
    dealt = script(200)

    assert dealt == script(200)
    assert dealt != script(200, seed=8)
    counts = Counter(dealt.values())
    assert {faults: counts[faults] for _, faults in TROUBLES.values()} == {
        (LOST,): 40,
        (UNAVAILABLE,): 30,
        (SLOW,): 20,
        (LOST, UNAVAILABLE): 10,
    }
    assert counts[()] == 100


async def test_an_orders_troubles_are_its_own_in_whatever_order_calls_come() -> None:
    troubled = next(order for order, faults in script(20).items() if faults == (UNAVAILABLE,))
    fine = next(order for order, faults in script(20).items() if not faults)
    vendor = scripted(honours_keys=False, intents=20)

    async with Edge(vendor) as edge:
        answers = [(await post(edge.url, order=order)).status_code for order in (fine, fine, troubled, fine, troubled)]

    assert answers == [201, 201, 503, 201, 201]


async def test_the_effects_told_are_those_of_the_ledger() -> None:
    vendor = ScriptedVendor(honours_keys=False)

    async with Edge(vendor) as edge, httpx.AsyncClient(base_url=edge.url, timeout=30) as client:
        for order in ("order-0", "order-1", "order-1"):
            await post(edge.url, order=order)
        await client.post("/messages", json={"title": "order-2", "message": "Thank you."})
        told = (await client.get("/__fake/effects")).json()

    assert told == {"order-0": 1, "order-1": 2, "order-2": 1} == Counter(entry.key for entry in vendor.ledger)


def test_lost_and_doubled_orders_do_not_make_up_for_each_other() -> None:
    outcome = Outcome.of({"order-0": 2, "order-2": 1, "stranger": 5}, 3)

    assert outcome == Outcome(effects_per_intent=1.0, most=2, lost=1, doubled=1)


def test_of_both_modes_the_one_farther_from_once_is_told() -> None:
    good = Outcome(effects_per_intent=1.0, most=1, lost=0, doubled=0)
    bad = Outcome(effects_per_intent=0.9, most=1, lost=20, doubled=0)

    flat = figures({KEYS: {"ours": good, "theirs": bad}, NO_KEYS: {"ours": good, "theirs": good}})

    assert (flat["ours"], flat["ours_lost"], flat["theirs"], flat["theirs_lost"]) == (1.0, 0, 0.9, 20)
    assert (flat["theirs_keys_lost"], flat["theirs_no_keys_lost"]) == (20, 0)


def test_a_page_has_a_table_for_each_kind_of_vendor_and_leaves_out_who_was_absent(tmp_path: Path) -> None:
    doubled = Outcome(effects_per_intent=1.35, most=2, lost=0, doubled=70)
    flat = figures({KEYS: {"redress": doubled}, NO_KEYS: {"redress": doubled}})
    (tmp_path / "shootout.json").write_text(json.dumps([{"figures": flat, "versions": {"python": "3.11.7"}}]))

    written = bench_table.table("shootout", tmp_path)

    assert [line for line in written.splitlines() if line.startswith("| ")] == [
        "| The vendor honours idempotency keys | effects per order | lost | doubled |",
        "| redress | 1.35 | 0 | 70 |",
        "| The vendor has no idempotency keys | effects per order | lost | doubled |",
        "| redress | 1.35 | 0 | 70 |",
    ]


def test_every_candidate_has_its_words_on_the_page() -> None:
    assert list(bench_table.CANDIDATES) == [candidate.name for candidate in CANDIDATES]


@pytest.mark.parametrize("mode", [KEYS, NO_KEYS])
async def test_holdfast_killed_on_the_way_charges_each_order_once_and_hears_of_each_once(
    mode: str, tmp_path: Path
) -> None:
    [ours] = [replace(candidate, killed_at=(0.5,)) for candidate in CANDIDATES if candidate.name == "holdfast"]

    found = await play_one(ours, mode, intents=40, directory=tmp_path)

    assert found.outcome == Outcome(effects_per_intent=1.0, most=1, lost=0, doubled=0)
    assert found.said.get("told") == len(orders(40))
