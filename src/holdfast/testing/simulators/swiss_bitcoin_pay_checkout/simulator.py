"""One merchant: their app and wallet, the relays they chose, their Lightning address, and the explorers of the chain.

The records are as the package swissbitcoinpay-checkout 0.1.0 reads and writes them; LNURL as in
https://github.com/lnurl/luds (06, 12, 16, 21), explorers as in https://github.com/Blockstream/esplora/blob/master/API.md.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from holdfast.clock import Clock
from holdfast.testing.faults import Faults
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.simulator import Request, Response, Simulator, route
from holdfast.testing.simulators.swiss_bitcoin_pay_checkout.curve import public_key
from holdfast.testing.simulators.swiss_bitcoin_pay_checkout.lightning import Minted, mint, taproot_address
from holdfast.testing.simulators.swiss_bitcoin_pay_checkout.nostr import (
    Event,
    conversation_key,
    derive,
    event,
    record,
    seal,
    tagged,
    unseal,
)
from holdfast.testing.simulators.swiss_bitcoin_pay_checkout.relays import Relay
from holdfast.values import Money

RECORD: Final = 30078
METADATA: Final = '[["text/plain","Simulated merchant"],["text/identifier","shop@wallet.test"]]'
WALLET: Final = "https://wallet.test"


@dataclass(kw_only=True, slots=True)
class Order:
    """A sale, as the merchant's app reads it in the registry."""

    note: str
    sats: int
    expires_at: int
    bolt11: str = ""
    address: str = ""
    told: bool = False
    """A majority of the relays has it."""

    @property
    def id(self) -> str:
        """What it is paid by."""
        return self.bolt11 or self.address


@dataclass(kw_only=True, slots=True)
class Transaction:
    """One payment to one address."""

    txid: str
    address: str
    sats: int
    received_at: str
    height: int | None = None

    def to_json(self) -> dict[str, object]:
        """As an explorer of the Esplora family writes it."""
        status = {"confirmed": False} if self.height is None else {"confirmed": True, "block_height": self.height}
        return {
            "txid": self.txid,
            "vin": [{"txid": hashlib.sha256(self.txid.encode()).hexdigest(), "vout": 0, "is_coinbase": False}],
            "vout": [{"scriptpubkey_address": self.address, "value": self.sats}],
            "status": status,
        }


class SwissBitcoinPayCheckoutSimulator(Simulator):
    """One integration of one merchant; the package itself is the only client that speaks to it.

    The payer's side: `pay`, `pay_onchain` and `mine`. The merchant's: `revoke`, `lot`, `tolerance`. `down` names relays
    that do not answer.
    """

    vendor = "swiss-bitcoin-pay-checkout"
    hosts = ("wallet.test", "mempool.space", "blockstream.info", "api.blockcypher.com")

    def __init__(
        self,
        *,
        seed: int = 0,
        ledger: Ledger | None = None,
        faults: Faults | None = None,
        clock: Clock | None = None,
        journal: Journal | None = None,
        webhook_secret: str = "",
        webhook_url: str = "",
        relays: Sequence[str] = ("relay-one.test", "relay-two.test", "relay-three.test"),
        lot: int = 0,
        sendable: tuple[int, int] = (1, 1_000_000),
        tolerance: int = 0,
        page: str = "",
    ) -> None:
        """`lot` is how many addresses the app gives the integration; `sendable` the satoshi the wallet takes over
        Lightning; `tolerance` basis points an on-chain payment may be short; `page` the origin of payment pages."""
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        random = self.random()
        self._team, self._integration = random.randbytes(32), random.randbytes(32)
        self._registry, self._reader = random.randbytes(32), random.randbytes(32)
        self._genuine: dict[str, bool] = {}
        self.sendable = sendable
        self.tolerance = tolerance
        self.page = page
        self.key = _key(public_key(self._team), self._integration, relays)
        self.lot = [taproot_address(random) for _ in range(lot)]
        self.down: set[str] = set()
        self._hosts = tuple(relays)
        self._start()

    def _start(self) -> None:
        self.relays = {host: Relay(self._genuine) for host in self._hosts}
        self.minted: dict[str, Minted] = {}
        self.orders: dict[str, Order] = {}
        """By what each is paid by: its invoice, or its address alone."""
        self._notes: dict[str, str] = {}
        self.transactions: list[Transaction] = []
        self.height = 900_000
        self._told_at = 0
        self.tell()

    def reset(self) -> None:
        super().reset()
        self._start()

    @property
    def credentials(self) -> Mapping[str, str]:
        return {"key": self.key}

    # The merchant's app

    def tell(self, *, removed: bool = False) -> None:
        """Publish what the integration is to know: the channel and the lot, on all relays."""
        self._told_at = at = max(self._now(), self._told_at + 1)
        channel: dict[str, object] = {"version": 1, "updatedAt": at, "status": "removed"}
        if not removed:
            channel |= {
                "status": "active",
                "role": "integration",
                "profile": {"businessName": "Simulated merchant", "lightningAddress": "shop@wallet.test"},
                "registryKey": self._registry.hex(),
                "registryReader": public_key(self._reader).hex(),
                "onchainTolerance": self.tolerance,
            }
        if self.page:
            channel["checkout"] = {"origin": self.page}
        self._publish("team-channel", channel, "channel/address/v1", at)
        lot = {"version": 1, "updatedAt": at, "addresses": self.lot}
        self._publish("integration-onchain-lot", lot, "onchain-lot/address/v1", at)

    def revoke(self) -> None:
        """The merchant removes the integration."""
        self.tell(removed=True)

    def _publish(self, kind: str, value: object, place: str, at: int) -> None:
        key = self._derived("channel/encryption-key/v1")
        content = seal(record(kind, value), key, self.random().randbytes(32))
        tags = [["d", self._derived(place).hex()]]
        told = event(self._team, created_at=at, kind=RECORD, tags=tags, content=content)
        for relay in self.relays.values():
            relay.take(told)

    def _derived(self, info: str) -> bytes:
        return derive(self._integration, "swiss-bitcoin-pay/integration", info)

    # The relays

    @route("GET", "/", "relay.connect")
    def connect(self, request: Request) -> Response:
        """The opening handshake of a WebSocket."""
        host = request.header("host") or ""
        return Response(status=101 if host in self.relays and host not in self.down else 503)

    @route("REQ", "/", "payments.read")
    def read(self, request: Request) -> Response:
        """What the relay has, and that this was all of it."""
        _, name, *filters = json.loads(request.body)
        found = self._relay(request).find(*filters)
        return Response.json([*(["EVENT", name, each] for each in found), ["EOSE", name]])

    @route("CLOSE", "/", "relay.close")
    def close(self, request: Request) -> Response:
        """Nothing is answered to it."""
        return Response.json([])

    @route("EVENT", "/", "payments.publish")
    def publish(self, request: Request) -> Response:
        """Keep a record; the merchant's app reads it, too."""
        _, given = json.loads(request.body)
        refused = self._relay(request).take(given)
        if not refused and given["kind"] == RECORD:
            self._read(given)
        return Response.json([["OK", given["id"], not refused, refused]])

    def _relay(self, request: Request) -> Relay:
        return self.relays[request.header("host") or ""]

    def _read(self, given: Event) -> None:
        """What the app makes of a record: a sale, once a majority of the relays has it."""
        try:
            kind, inside = self._opened(given)
        except (ValueError, KeyError, TypeError, StopIteration):
            return  # sealed for somebody else: a witness, a page, a withdrawal
        note = inside["sale"]["note"]
        self._notes |= {str(inside[name]): note for name in ("invoice", "address") if inside.get(name)}
        if "rest" in inside or (kind == "registry-onchain" and (inside["invoice"] or not inside["confirmed"])):
            return  # of a sale that is known by its invoice, or not by an address yet
        minted = self._minted(str(inside.get("invoice") or ""))
        order = Order(
            note=note,
            sats=minted.sats if minted else inside["sats"],
            expires_at=minted.expires_at if minted else inside["expiresAt"],
            bolt11=minted.bolt11 if minted else "",
            address=str(inside.get("address") or ""),
        )
        order = self.orders.setdefault(order.id, order)
        holders = sum(bool(relay.find({"ids": [given["id"]]})) for relay in self.relays.values())
        if not order.told and holders > len(self.relays) // 2:
            order.told = True
            self.ledger.record(
                Kind.OFFER, vendor=self.vendor, id=order.id, key=order.note, money=Money.from_sat(order.sats)
            )

    def _opened(self, given: Event) -> tuple[str, dict[str, Any]]:
        address, author = next(iter(tagged(given, "d"))), given["pubkey"]
        outer = derive(self._registry, "swiss-bitcoin-pay/registry-declaration", f"outer/v1/{address}/{author}")
        outside = json.loads(unseal(given["content"], outer))
        inner = conversation_key(self._reader, bytes.fromhex(author))
        return outside["t"], json.loads(unseal(outside["v"]["sealed"], inner))

    # The Lightning address

    @route("GET", "/.well-known/lnurlp/shop", "payments.terms")
    def terms(self, request: Request) -> Response:
        """LUD 16 and 06: within which bounds it can be paid, and where to ask for an invoice."""
        least, most = self.sendable
        return Response.json(
            {
                "tag": "payRequest",
                "callback": f"{WALLET}/invoice",
                "minSendable": least * 1000,
                "maxSendable": most * 1000,
                "metadata": METADATA,
                "commentAllowed": 100,
            }
        )

    @route("GET", "/invoice", "payments.create")
    def create(self, request: Request) -> Response:
        """LUD 06: an invoice; LUD 21: and where to see whether it was paid."""
        sats, rest = divmod(int(request.query["amount"]), 1000)
        if rest or not self.sendable[0] <= sats <= self.sendable[1]:
            return Response.json({"status": "ERROR", "reason": "Amount is out of bounds"})
        minted = mint(
            sats,
            description_hash=hashlib.sha256(METADATA.encode()).digest(),
            created_at=self._now(),
            seconds=int(request.query.get("expiry", "3600")),
            random=self.random(),
        )
        self.minted[minted.payment_hash] = minted
        return Response.json({"pr": minted.bolt11, "routes": [], "verify": f"{WALLET}/verify/{minted.payment_hash}"})

    @route("GET", "/verify/{payment_hash}", "payments.fetch")
    def verify(self, request: Request) -> Response:
        """LUD 21."""
        minted = self.minted.get(request.params["payment_hash"])
        if minted is None:
            return Response.json({"status": "ERROR", "reason": "Not found"})
        preimage = minted.preimage if minted.settled else None
        return Response.json({"status": "OK", "settled": minted.settled, "preimage": preimage, "pr": minted.bolt11})

    # The explorers

    @route("GET", "/api/blocks/tip/height", "chain.height")
    def tip(self, request: Request) -> Response:
        """How many blocks there are."""
        return Response(body=str(self.height).encode())

    @route("GET", "/api/address/{address}/txs", "chain.address")
    def address(self, request: Request) -> Response:
        """What was paid to an address."""
        return Response.json(
            [each.to_json() for each in self.transactions if each.address == request.params["address"]]
        )

    @route("GET", "/api/tx/{txid}", "chain.transaction")
    def transaction(self, request: Request) -> Response:
        """One transaction."""
        found = [each for each in self.transactions if each.txid == request.params["txid"]]
        return Response.json(found[0].to_json()) if found else Response(status=404)

    @route("GET", "/v1/btc/main/txs/{txid}", "chain.received")
    def received(self, request: Request) -> Response:
        """When a transaction was first seen."""
        found = [each for each in self.transactions if each.txid == request.params["txid"]]
        answer = {"hash": request.params["txid"], "received": found[0].received_at} if found else {}
        return Response.json(answer, status=200 if found else 404)

    # The payer

    def pay(self, offer: str, *, late: bool = False) -> None:
        """In full, over Lightning, or to an address and into a block; `late`: the wallet lets it in after its end."""
        named = offer.lower().removeprefix("lightning:").removeprefix("bitcoin:")
        if (order := self.orders.get(named)) and not order.bolt11:
            self.pay_onchain(named, order.sats)
            self.mine(3)
            return
        minted = self._minted(named)
        if minted is None or minted.settled or (not late and self._now() >= minted.expires_at):
            raise LookupError(f"{self.vendor}: {offer} cannot be paid")
        minted.settled = True
        self._took(minted.bolt11, minted.bolt11, minted.sats)

    def pay_onchain(self, address: str, sats: int) -> str:
        """Send satoshi to an address; the transaction, which no block holds yet."""
        txid = self.random().randbytes(32).hex()
        at = f"{self.clock.now():%Y-%m-%dT%H:%M:%SZ}"
        self.transactions.append(Transaction(txid=txid, address=address, sats=sats, received_at=at))
        self._took(address, txid, sats)
        return txid

    def mine(self, blocks: int = 1) -> None:
        """So many blocks; the first holds all that waits."""
        for each in self.transactions:
            each.height = each.height or self.height + 1
        self.height += blocks

    def _took(self, paid: str, id: str, sats: int) -> None:
        key = self._notes.get(paid, paid)
        self.ledger.record(Kind.CAPTURE, vendor=self.vendor, id=id, key=key, money=Money.from_sat(sats))

    def _minted(self, bolt11: str) -> Minted | None:
        return next((each for each in self.minted.values() if each.bolt11 == bolt11), None)

    def _now(self) -> int:
        return int(self.clock.now().timestamp())


def _key(team: bytes, secret: bytes, relays: Sequence[str]) -> str:
    parts = (team, secret, ",".join(relays).encode())
    return "sbp_ck_" + ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
