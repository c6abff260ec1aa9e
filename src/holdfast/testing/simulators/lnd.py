"""LND, simulated: the invoices of one node over REST, with its 64-bit numbers in texts and its errors in sentences.

https://lightning.engineering/api-docs/api/lnd/
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Final, cast

from holdfast.clock import Clock
from holdfast.testing.faults import Faults, Status, chance
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.simulator import Request, Response, Simulator, route
from holdfast.values import BTC, Money

PREFIXES: Final[Mapping[str, str]] = {
    "mainnet": "lnbc",
    "testnet": "lntb",
    "signet": "lntbs",
    "regtest": "lnbcrt",
    "simnet": "lnsb",
}
DEFAULT_EXPIRY: Final = 86_400
LONGEST_EXPIRY: Final = 365 * 86_400
LONGEST_MEMO: Final = 1024
LONGEST_DESCRIPTION: Final = 639
"""Bytes, of what goes into the payment request."""
MOST_SATOSHI: Final = 100_000 * 100_000_000
PAGE_SIZE: Final = 100
ASKED: Final = frozenset(
    {
        "memo",
        "r_preimage",
        "r_hash",
        "value",
        "value_msat",
        "description_hash",
        "expiry",
        "fallback_addr",
        "cltv_expiry",
        "route_hints",
        "private",
        "is_amp",
        "is_blinded",
        "blinded_path_config",
    }
)
"""What an invoice may be asked for with; a name that is not in their description is refused."""
STATUS_OF: Final[Mapping[int, int]] = {2: 500, 3: 400, 5: 404, 8: 429, 12: 501, 14: 503}
"""HTTP's for gRPC's, as their gateway translates."""
CODE_OF: Final[Mapping[int, int]] = {status: code for code, status in STATUS_OF.items()}
_BECH32: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_UNITS: Final = (("", 10**12), ("m", 10**9), ("u", 10**6), ("n", 10**3), ("p", 1))
"""Of BOLT 11, and what each is in tenths of a millisatoshi."""


@dataclass(kw_only=True, slots=True)
class Invoice:
    """One invoice, as the node's database holds it."""

    preimage: bytes
    msat: int
    memo: str
    payment_request: str
    payment_addr: bytes
    expiry: int
    private: bool
    created_at: datetime
    add_index: int
    state: str = "OPEN"
    paid_msat: int = 0
    settled_at: datetime | None = None
    settle_index: int = 0

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.preimage).digest()

    @property
    def expires_at(self) -> datetime:
        return self.created_at + timedelta(seconds=self.expiry)

    @property
    def key(self) -> str:
        """The merchant's reference, as far as the node knows it."""
        return self.memo or self.hash.hex()

    def to_json(self) -> dict[str, object]:
        """As every answer writes it, the preimage too, paid or not."""
        return {
            "memo": self.memo,
            "r_preimage": _base64(self.preimage),
            "r_hash": _base64(self.hash),
            "value": str(self.msat // 1000),
            "value_msat": str(self.msat),
            "settled": self.state == "SETTLED",
            "creation_date": str(int(self.created_at.timestamp())),
            "settle_date": str(int(self.settled_at.timestamp())) if self.settled_at else "0",
            "payment_request": self.payment_request,
            "description_hash": "",
            "expiry": str(self.expiry),
            "fallback_addr": "",
            "cltv_expiry": "80",
            "route_hints": [],
            "private": self.private,
            "add_index": str(self.add_index),
            "settle_index": str(self.settle_index),
            "amt_paid": str(self.paid_msat),
            "amt_paid_sat": str(self.paid_msat // 1000),
            "amt_paid_msat": str(self.paid_msat),
            "state": self.state,
            "htlcs": self._htlcs(),
            "features": {"14": {"name": "payment-addr", "is_required": True, "is_known": True}},
            "is_keysend": False,
            "payment_addr": _base64(self.payment_addr),
            "is_amp": False,
            "amp_invoice_state": {},
            "is_blinded": False,
            "blinded_path_config": None,
        }

    def _htlcs(self) -> list[dict[str, object]]:
        if self.settled_at is None:
            return []
        at = str(int(self.settled_at.timestamp()))
        return [
            {
                "chan_id": "770495967390531585",
                "htlc_index": "0",
                "amt_msat": str(self.paid_msat),
                "accept_height": 840_000,
                "accept_time": at,
                "resolve_time": at,
                "expiry_height": 840_083,
                "state": "SETTLED",
                "custom_records": {},
                "mpp_total_amt_msat": str(self.paid_msat),
                "amp": None,
                "custom_channel_data": "",
            }
        ]


class LndSimulator(Simulator):
    """One node with channels enough; paying out is not simulated."""

    vendor = "lnd"

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
        macaroon: str = "",
        network: str = "regtest",
        forgets_canceled: bool = False,
    ) -> None:
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        made_up = chance(seed, self.vendor, "node")
        self.macaroon = macaroon or f"0201036c6e64{made_up.getrandbits(512):0128x}"
        self.preimage_key = f"{made_up.getrandbits(256):064x}"
        self.network = network
        self.forgets_canceled = forgets_canceled
        """It runs with --gc-canceled-invoices-on-the-fly."""
        self.locked = False
        """Its wallet waits for the password, as it does after every start."""
        self.invoices: dict[bytes, Invoice] = {}
        self._added = 0
        self._settled = 0

    @property
    def credentials(self) -> Mapping[str, str]:
        """The node's, and a key that the shop makes up for itself: the node never sees it."""
        return {"macaroon": self.macaroon, "network": self.network, "preimage_key": self.preimage_key}

    def answer(self, request: Request) -> Response:
        """A locked node refuses before it looks at the macaroon, and both before what is asked."""
        if self.locked:
            return _failure(2, "wallet locked, unlock it to enable full RPC access")
        given = request.header("grpc-metadata-macaroon")
        if self._route(request) is not None and given != self.macaroon:
            return _failure(2, _refusal(given))
        return super().answer(request)

    @route("POST", "/v1/invoices", "payments.create")
    def create(self, request: Request) -> Response:
        """Add an invoice; one of a payment hash that is there is refused."""
        try:
            asked = _object(request.body)
            preimage = _bytes(asked, "r_preimage") or self.random().randbytes(32)
            value, value_msat = _integer(asked, "value"), _integer(asked, "value_msat")
            expiry = _integer(asked, "expiry") or DEFAULT_EXPIRY
        except _Malformed as malformed:
            return _failure(3, str(malformed))
        memo = str(asked.get("memo") or "")
        if complaint := _complaint(value, value_msat, preimage, memo, expiry):
            return _failure(2, complaint)
        hash = hashlib.sha256(preimage).digest()
        if hash in self.invoices:
            return _failure(2, "invoice with payment hash already exists")
        invoice = self._add(preimage, value * 1000 or value_msat, memo, expiry, private=asked.get("private") is True)
        return Response.json(
            {
                "r_hash": _base64(hash),
                "payment_request": invoice.payment_request,
                "add_index": str(invoice.add_index),
                "payment_addr": _base64(invoice.payment_addr),
            }
        )

    @route("GET", "/v1/invoice/{r_hash_str}", "payments.fetch")
    def fetch(self, request: Request) -> Response:
        """By the hash in hexadecimal digits."""
        try:
            hash = bytes.fromhex(request.params["r_hash_str"])
        except ValueError:
            return _failure(2, "encoding/hex: invalid byte")
        if len(hash) != 32:
            return _failure(2, f"payment hash must be exactly 32 bytes, is instead {len(hash)}")
        invoice = self.invoices.get(hash)
        if invoice is None:
            return _failure(5, self._absent())
        return Response.json(invoice.to_json())

    @route("GET", "/v1/invoices", "payments.list")
    def list(self, request: Request) -> Response:
        """In order of `add_index`: what comes after `index_offset`, or with `reversed` what is right before it."""
        asked = request.query
        offset, most = int(asked.get("index_offset", "0")), int(asked.get("num_max_invoices", "0")) or PAGE_SIZE
        start, end = int(asked.get("creation_date_start", "0")), int(asked.get("creation_date_end", "0"))
        if start and end and start >= end:
            return _failure(2, f"start date({start}) must be before end date({end})")
        found = [
            invoice
            for invoice in self.invoices.values()
            if start <= int(invoice.created_at.timestamp()) <= (end or float("inf"))
            and (asked.get("pending_only") != "true" or invoice.state in ("OPEN", "ACCEPTED"))
        ]
        if asked.get("reversed") == "true":
            page = [invoice for invoice in found if not offset or invoice.add_index < offset][-most:]
        else:
            page = [invoice for invoice in found if invoice.add_index > offset][:most]
        return Response.json(
            {
                "invoices": [invoice.to_json() for invoice in page],
                "last_index_offset": str(page[-1].add_index if page else 0),
                "first_index_offset": str(page[0].add_index if page else 0),
            }
        )

    @route("POST", "/v2/invoices/cancel", "payments.cancel")
    def cancel(self, request: Request) -> Response:
        """A second time it succeeds as well; what was settled it fails for."""
        try:
            hash = _bytes(_object(request.body), "payment_hash")
        except _Malformed as malformed:
            return _failure(3, str(malformed))
        if len(hash) != 32:
            return _failure(2, f"invalid hash length of {len(hash)}, want 32")
        invoice = self.invoices.get(hash)
        if invoice is None:
            return _failure(2, self._absent())
        if invoice.state == "SETTLED":
            return _failure(2, "invoice already settled")
        self._end(invoice)
        return Response.json({})

    def pay(self, offer: str, *, msat: int | None = None) -> None:
        """From some other node, in full, or with so many millisatoshi; too few a node does not take."""
        invoice = self._find(offer)
        self.tick()
        msat = invoice.msat if msat is None else msat
        if invoice.state != "OPEN" or msat < invoice.msat:
            raise LookupError(f"{self.vendor} takes no {msat} msat for invoice {offer}: it is {invoice.state}")
        self._settled += 1
        invoice.state, invoice.paid_msat, invoice.settle_index = "SETTLED", msat, self._settled
        invoice.settled_at = self.clock.now()
        self.ledger.record(
            Kind.CAPTURE,
            vendor=self.vendor,
            id=invoice.hash.hex(),
            key=invoice.key,
            money=Money.from_minor(msat, BTC),
        )

    def tick(self) -> None:
        """What has expired is canceled."""
        now = self.clock.now()
        for invoice in [found for found in self.invoices.values() if found.state == "OPEN" and found.expires_at <= now]:
            self._end(invoice)

    def reset(self) -> None:
        super().reset()
        self.invoices.clear()
        self._added = self._settled = 0
        self.locked = False

    def failure(self, fault: Status) -> Response:
        """In gRPC's words; whoever asks to slow down is what stands before the node."""
        wait = () if fault.retry_after is None else (("retry-after", f"{fault.retry_after:g}"),)
        code = CODE_OF.get(fault.status, 2)
        words = {2: "internal error", 14: 'connection error: desc = "transport: Error while dialing"'}
        said: dict[str, object] = {"code": code, "message": words.get(code, "failed"), "details": []}
        return Response.json(said, status=fault.status, headers=wait)

    def not_found(self, request: Request) -> Response:
        return _failure(5, "Not Found")

    def idempotency_key(self, request: Request) -> str | None:
        """The payment hash that the preimage makes; the preimage itself is nobody's to write down."""
        if request.method != "POST" or request.path != "/v1/invoices":
            return None
        try:
            preimage = _bytes(_object(request.body), "r_preimage")
        except _Malformed:
            return None
        return hashlib.sha256(preimage).hexdigest() if preimage else None

    def _add(self, preimage: bytes, msat: int, memo: str, expiry: int, *, private: bool) -> Invoice:
        self._added += 1
        made_up = self.random()
        invoice = Invoice(
            preimage=preimage,
            msat=msat,
            memo=memo,
            payment_request=payment_request(self.network, msat, made_up),
            payment_addr=made_up.randbytes(32),
            expiry=expiry,
            private=private,
            created_at=self.clock.now(),
            add_index=self._added,
        )
        self.invoices[invoice.hash] = invoice
        self.ledger.record(
            Kind.OFFER,
            vendor=self.vendor,
            id=invoice.hash.hex(),
            key=invoice.key,
            money=Money.from_minor(msat, BTC),
            facts={"expires_at": invoice.expires_at.isoformat()},
        )
        return invoice

    def _end(self, invoice: Invoice) -> None:
        invoice.state = "CANCELED"
        if self.forgets_canceled:
            del self.invoices[invoice.hash]

    def _absent(self) -> str:
        return "unable to locate invoice" if self._added else "there are no existing invoices"

    def _find(self, offer: str) -> Invoice:
        wanted = offer.lower().removeprefix("lightning:")
        for invoice in self.invoices.values():
            if wanted in (invoice.hash.hex(), invoice.payment_request):
                return invoice
        raise LookupError(f"{self.vendor} has no invoice {offer}")


def payment_request(network: str, msat: int, random: Random) -> str:
    """A BOLT 11 text with the true prefix and amount, as short as it can be; the rest is made up."""
    amount = ""
    if msat:
        amount = next(f"{msat * 10 // tenths}{unit}" for unit, tenths in _UNITS if msat * 10 % tenths == 0)
    return f"{PREFIXES[network]}{amount}1p{''.join(random.choice(_BECH32) for _ in range(180))}"


class _Malformed(Exception):
    """What their gateway says of a request it cannot read."""


def _object(body: bytes) -> Mapping[str, object]:
    try:
        found: object = json.loads(body)
    except ValueError:
        raise _Malformed("proto: syntax error (line 1:1): unexpected token") from None
    if not isinstance(found, dict):
        raise _Malformed("proto: syntax error (line 1:1): unexpected token")
    asked = cast(dict[str, object], found)
    for name in asked:
        if name not in ASKED and name != "payment_hash":
            raise _Malformed(f'proto: (line 1:2): unknown field "{name}"')
    return asked


def _bytes(asked: Mapping[str, object], name: str) -> bytes:
    text = asked.get(name) or ""
    if not isinstance(text, str):
        raise _Malformed(f"proto: (line 1:2): invalid value for bytes field {name}: {text}")
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error:
        raise _Malformed(f'proto: (line 1:2): invalid value for bytes field {name}: "{text}"') from None


def _integer(asked: Mapping[str, object], name: str) -> int:
    number = asked.get(name) or 0
    try:
        if isinstance(number, int | str):
            return int(number)
    except ValueError:
        pass
    raise _Malformed(f"proto: (line 1:2): invalid value for int64 field {name}: {number}")


def _complaint(value: int, value_msat: int, preimage: bytes, memo: str, expiry: int) -> str:
    """What is wrong with what was asked, in the node's words and its order; empty where nothing is."""
    size = len(memo.encode())
    satoshi = value or value_msat // 1000
    rules: Sequence[tuple[bool, str]] = (
        (bool(value and value_msat), "sat and msat arguments are mutually exclusive"),
        (value < 0 or value_msat < 0, "amount cannot be negative"),
        (len(preimage) != 32, f"invalid preimage length of {len(preimage)}, want 32"),
        (size > LONGEST_MEMO, f"memo too large: {size} bytes (maxsize={LONGEST_MEMO})"),
        (satoshi > MOST_SATOSHI, f"invoice amount {satoshi} is too large, max is {MOST_SATOSHI}"),
        (
            expiry > LONGEST_EXPIRY,
            f"expiry of {expiry} seconds greater than max expiry of {LONGEST_EXPIRY} seconds",
        ),
        (size > LONGEST_DESCRIPTION, f"data length too big to fit within 10 bits: {-(-size * 8 // 5)}"),
    )
    return next((text for wrong, text in rules if wrong), "")


def _refusal(macaroon: str | None) -> str:
    if macaroon is None:
        return "expected 1 macaroon, got 0"
    try:
        bytes.fromhex(macaroon)
    except ValueError:
        return "encoding/hex: invalid byte"
    return "verification failed: signature mismatch after caveat verification"


def _failure(code: int, message: str) -> Response:
    return Response.json({"code": code, "message": message, "details": []}, status=STATUS_OF[code])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
