"""The simulated relays, wallet and curve behave as the specifications and a well-known library say."""

import base64
import json
from random import Random
from typing import Any

import pytest
from btclib_secp256k1 import ecdh, ssa, xonly
from swissbitcoinpay_checkout import AsyncClient, HttpResponse

from holdfast.http.transports import HttpRequest
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import Refused, Reset
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnd import LndSimulator
from holdfast.testing.simulators.swiss_bitcoin_pay_checkout import SwissBitcoinPayCheckoutSimulator, curve, nostr
from holdfast.testing.simulators.swiss_bitcoin_pay_checkout.lightning import mint, taproot_address
from holdfast.testing.simulators.swiss_bitcoin_pay_checkout.relays import Relay

VENDOR = "swiss-bitcoin-pay-checkout"
SECRET = bytes.fromhex("01" * 32)


def told(at: int, name: str = "a", secret: bytes = SECRET, **changes: Any) -> dict[str, Any]:
    made = nostr.event(secret, created_at=at, kind=30078, tags=[["d", name], ["o", "tag"]], content=f"at {at}")
    return dict(made) | changes


def times(events: list[nostr.Event]) -> list[int]:
    return [event["created_at"] for event in events]


# The curve


def test_the_first_vector_of_bip_340() -> None:
    secret = bytes(31) + b"\x03"
    public = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9"
    signature = (
        "e907831f80848d1069a5371b402410364bdf1c5f8307b0084c55f1ce2dca8215"
        "25f66a4a85ea8b71e482a74f382d2ce5ebeee8fdb2172f477df4900d310536c0"
    )
    assert curve.public_key(secret).hex() == public
    assert curve.sign(bytes(32), secret).hex() == signature
    assert curve.verifies(bytes(32), bytes.fromhex(public), bytes.fromhex(signature))


def test_it_agrees_with_libsecp256k1() -> None:
    random = Random(7)
    for _ in range(20):
        secret, other, message = (random.randbytes(32) for _ in range(3))
        public = curve.public_key(secret)
        signature = curve.sign(message, secret)
        assert public == bytes(xonly.from_prvkey(secret)[0])
        assert signature == bytes(ssa.sign(message, secret, bytes(32)))
        assert curve.verifies(message, public, bytes(ssa.sign(message, secret, other)))
        shared = bytes(ecdh.shared_point(b"\x02" + public, other))[1:]
        assert curve.shared_x(other, public) == shared


@pytest.mark.parametrize("part", ["message", "public", "signature"])
def test_anything_else_does_not_verify(part: str) -> None:
    parts = {
        "message": b"\x07" * 32,
        "public": curve.public_key(SECRET),
        "signature": curve.sign(b"\x07" * 32, SECRET),
    }
    for wrong in (bytes(len(parts[part])), b"", b"\xff" * len(parts[part]), parts[part][:-1] + b"\x99"):
        assert not curve.verifies(**(parts | {part: wrong}))


# What is sealed


def test_the_vectors_of_nip_44() -> None:
    one, two = bytes(31) + b"\x01", bytes(31) + b"\x02"
    key = nostr.conversation_key(one, curve.public_key(two))
    sealed = "ee0G5VSK0/9YypIObAtDKfYEAjD35uVkHyB0F4DwrcNaCXlCWZKaArsGrY6M9wnuTMxWfp1RTN9Xga8no+kF5Vsb"
    payload = base64.b64encode(b"\x02" + one).decode() + sealed
    assert key.hex() == "c41c775356fd92eadc63ff5a0dc1da211b268cbea22316767095b2871ea1412d"
    assert nostr.seal("a", key, one) == payload
    assert nostr.unseal(payload, key) == "a"
    with pytest.raises(ValueError, match="another key"):
        nostr.unseal(payload, two)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 255, 256, 257, 1024, 5000, 65_000])
def test_texts_of_every_length_come_back(length: int) -> None:
    text = "ü" + "x" * (length - 1)
    assert nostr.unseal(nostr.seal(text, SECRET, SECRET), SECRET) == text


# The relays


def test_a_relay_keeps_the_newest_of_a_name_and_answers_filters_newest_first() -> None:
    relay = Relay({})
    for event in (told(2), told(1), told(3, "b"), told(4, "c", b"\x02" * 32)):
        assert not relay.take(event)
    author = told(0)["pubkey"]
    assert times(relay.find({})) == [4, 3, 2]
    assert times(relay.find({"authors": [author]})) == [3, 2]
    assert times(relay.find({"#d": ["a", "c"]})) == [4, 2]
    assert times(relay.find({"#o": ["other"]})) == []
    assert times(relay.find({"kinds": [1]})) == []
    assert times(relay.find({"since": 3, "until": 3})) == [3]
    assert times(relay.find({"limit": 2})) == [4, 3]
    assert times(relay.find({"since": 4}, {"until": 2})) == [4, 2]


@pytest.mark.parametrize(
    "changes", [{"content": "other"}, {"sig": "00" * 64}, {"sig": "zz"}, {"id": "00" * 32}, {"tags": 7}]
)
def test_a_relay_takes_nothing_that_its_author_did_not_sign(changes: dict[str, Any]) -> None:
    relay = Relay({})
    assert relay.take(told(1, **changes)).startswith("invalid")
    assert not relay.find({})


# The wallet


@pytest.mark.parametrize("sats", [1, 999, 21_000, 2_100_000_000_000_000])
def test_an_invoice_decodes_as_the_package_reads_it(sats: int) -> None:
    minted = mint(sats, description_hash=SECRET, created_at=1_800_000_000, seconds=900, random=Random(1))
    told = {
        "ref": "r",
        "bolt11": minted.bolt11,
        "paymentHash": minted.payment_hash,
        "verifyUrl": "https://wallet.test/verify",
        "onchainAddress": taproot_address(Random(2)),
        "sats": str(sats),
        "expiresAt": minted.expires_at,
    }
    AsyncClient(SwissBitcoinPayCheckoutSimulator().key).get_status(told).close()  # which reads it at once


# The sockets


async def receive(socket: Any) -> Any:
    return json.loads(await socket.recv())


async def test_a_simulated_websocket_answers_in_order_and_ends_with_its_exchange() -> None:
    # given
    vendor = SwissBitcoinPayCheckoutSimulator(clock=ManualClock())
    socket = await InProcess(vendor).websocket("wss://relay-one.test")

    # when, then
    await socket.send('["REQ", "mine", {"kinds": [30078], "limit": 1}]')
    kind, name, _ = await receive(socket)
    assert ((kind, name), await receive(socket)) == (("EVENT", "mine"), ["EOSE", "mine"])
    forged = told(1, sig="00" * 64)
    await socket.send(json.dumps(["EVENT", forged]))
    assert await receive(socket) == ["OK", forged["id"], False, "invalid: bad signature"]
    vendor.faults.on(VENDOR, "payments.read").always(Reset())
    await socket.send('["REQ", "mine", {}]')
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            await socket.recv()


async def test_there_is_no_websocket_where_nobody_speaks_it() -> None:
    vendor = SwissBitcoinPayCheckoutSimulator(clock=ManualClock())
    vendor.down = {"relay-one.test"}
    for url in ("wss://relay-one.test", "wss://relay-nine.test"):
        with pytest.raises(OSError, match="does not speak WebSocket"):
            await InProcess(vendor).websocket(url)
    with pytest.raises(OSError, match="does not speak WebSocket"):
        await InProcess(LndSimulator()).websocket("wss://node.test")
    vendor.faults.on(VENDOR, "relay.connect").always(Refused())
    with pytest.raises(OSError, match="relay-two"):
        await InProcess(vendor).websocket("wss://relay-two.test")


async def test_a_reset_vendor_has_forgotten_all_but_its_key() -> None:
    vendor = SwissBitcoinPayCheckoutSimulator(clock=ManualClock())
    key = vendor.key
    vendor.revoke()
    vendor.reset()
    client = AsyncClient(
        key, websocket=InProcess(vendor).websocket, http=_wallet(vendor), now=lambda: vendor.clock.now().timestamp()
    )
    assert (await client.merchant()).business_name == "Simulated merchant"


def _wallet(vendor: SwissBitcoinPayCheckoutSimulator) -> Any:
    async def get(url: str, *, headers: Any, socket_timeout: float, max_bytes: int) -> HttpResponse:
        response = await InProcess(vendor).send(HttpRequest(method="GET", url=url, headers=tuple(headers.items())))
        return HttpResponse(response.status, response.content)

    return get
