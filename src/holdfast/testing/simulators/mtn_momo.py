"""MTN MoMo Collections, simulated: a prompt per reference id, a final state, one callback that nobody signs."""

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar, Final, cast
from urllib.parse import urlsplit
from uuid import UUID

from holdfast.clock import Clock
from holdfast.errors import InvalidInput
from holdfast.testing.faults import Faults
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.simulator import Request, Response, Simulator, Webhook, route
from holdfast.values import Money

# https://momodeveloper.mtn.com/api-documentation/testing, and the copy of 2018 in sparkplug/mtn-momo-api-documentation.
TEST_NUMBERS: Final[Mapping[str, str]] = {
    "46733123450": "INTERNAL_PROCESSING_ERROR",
    "46733123451": "APPROVAL_REJECTED",
    "46733123452": "EXPIRED",
    "46733123453": "",
    "46733123455": "PAYER_NOT_FOUND",
    "46733123461": "INTERNAL_PROCESSING_ERROR",
    "46733123463": "COULD_NOT_PERFORM_TRANSACTION",
}
"""Payers who decide by themselves, and why it fails; empty: they pay. 46733123454 never decides."""
NEVER: Final = "46733123454"
DECIDES_AFTER: Final = 5
"""Made up: seconds until they do."""
LONGEST_NOTE: Final = 160
UNSUPPORTED: Final = frozenset("'\"<>&\\;")
"""Made up but for the apostrophe, which they name."""


@dataclass(kw_only=True, slots=True)
class Prompt:
    """A request to pay, as they hold it."""

    id: str
    money: Money
    amount: str
    external_id: str
    payer: Mapping[str, object]
    payer_message: str
    payee_note: str
    callback: str | None
    asked_at: datetime
    until: datetime
    status: str = "PENDING"
    reason: str = ""
    transaction: str = ""

    @property
    def msisdn(self) -> str:
        return str(self.payer.get("partyId", ""))

    @property
    def key(self) -> str:
        """The merchant's reference, as far as they know it."""
        return self.payee_note or self.external_id or self.id

    def to_json(self) -> dict[str, object]:
        """As it is read and called back."""
        told: dict[str, object] = {
            "externalId": self.external_id,
            "amount": self.amount,
            "currency": self.money.currency,
            "payer": dict(self.payer),
            "payerMessage": self.payer_message,
            "payeeNote": self.payee_note,
            "status": self.status,
        }
        if self.transaction:
            told["financialTransactionId"] = self.transaction
        if self.reason:
            told["reason"] = {"code": self.reason, "message": self.reason.replace("_", " ").capitalize()}
        return told


class MtnMomoSimulator(Simulator):
    """One API user of the product Collections in one environment.

    In the ledger a prompt's id is its reference id, its key the note to the payee. The vendor says it calls back once
    and never again; a later version of the same page tells of retries, which `retries` can have.
    https://momodeveloper.mtn.com/api-documentation/callback
    """

    vendor: ClassVar[str] = "mtn-momo"
    hosts: ClassVar[tuple[str, ...]] = ("sandbox.momodeveloper.mtn.com", "proxy.momoapi.mtn.com")
    patience: ClassVar[float] = 2

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
        environment: str = "sandbox",
        currency: str = "EUR",
        callback_host: str = "",
        subscription_key: str = "momo-subscription-key",
        api_user: str = "c72025f5-5cd1-4630-99e4-8ba4722fad56",
        api_key: str = "momo-api-key-of-the-user",
        token_life: int = 3600,
        prompt_life: float = 300,
    ) -> None:
        """`callback_host` is the one host that may be called back; empty: any."""
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        self.environment = environment
        self.currency = currency
        self.callback_host = callback_host
        self.subscription_key = subscription_key
        self.api_user = api_user
        self.api_key = api_key
        self.token_life = token_life
        self.prompt_life = prompt_life
        self.prompts: dict[str, Prompt] = {}
        """By reference id, for ever."""
        self.tokens: dict[str, datetime] = {}
        """Until when each is good; a new one leaves the others as they are."""

    @property
    def credentials(self) -> Mapping[str, str]:
        return {
            "subscription_key": self.subscription_key,
            "api_user": self.api_user,
            "api_key": self.api_key,
            "environment": self.environment,
            "currency": self.currency,
        }

    def reset(self) -> None:
        super().reset()
        self.prompts.clear()
        self.tokens.clear()

    def idempotency_key(self, request: Request) -> str | None:
        return request.header("x-reference-id")

    def not_found(self, request: Request) -> Response:
        """The gateway's own 404, which says nothing of any reference id."""
        return _gateway("Resource not found", 404)

    # The token.

    @route("POST", "/collection/token/", "token")
    def issue(self, request: Request) -> Response:
        """Basic credentials, and no body."""
        if refusal := self._wrong_key(request):
            return refusal
        if request.body:
            return _error("REQUEST_REJECTED", "Bad request", 400)
        if _basic(request.header("authorization")) != f"{self.api_user}:{self.api_key}":
            return Response.json({"error": "login_failed"}, status=401)
        token = f"eyJ0eXAiOiJKV1QifQ.{self.random().getrandbits(256):064x}"
        self.tokens[token] = self.clock.now() + timedelta(seconds=self.token_life)
        return Response.json({"access_token": token, "token_type": "access_token", "expires_in": self.token_life})

    def expire(self, request: Request) -> bool:
        return self.tokens.pop((request.header("authorization") or "").removeprefix("Bearer "), None) is not None

    # Requests to pay.

    @route("POST", "/collection/v1_0/requesttopay", "payments.create")
    def request_to_pay(self, request: Request) -> Response:
        """202 without a body; a reference id is good for one request, for ever."""
        if refusal := self._unauthorized(request):
            return refusal
        id = request.header("x-reference-id") or ""
        if not _is_version_4(id):
            return _error("REQUEST_REJECTED", "X-Reference-Id is not a UUID of version 4", 400)
        if id in self.prompts:
            return _error("RESOURCE_ALREADY_EXIST", "Duplicated reference id. Creation of resource failed.", 409)
        asked, callback = request.json(), request.header("x-callback-url")
        if self.callback_host and callback and urlsplit(callback).hostname != self.callback_host:
            text = "Callback URL with different host name to configured for API User."
            return _error("INVALID_CALLBACK_URL_HOST", text, 500)
        if asked.get("currency") != self.currency:
            return _error("INVALID_CURRENCY", "Currency not supported.", 500)
        try:
            prompt = self._prompt(id, asked, callback)
        except (InvalidInput, ValueError) as error:
            return _error("REQUEST_REJECTED", str(error), 400)
        self.prompts[id] = prompt
        self.ledger.record(
            Kind.OFFER, vendor=self.vendor, id=id, key=prompt.key, money=prompt.money, facts=self._facts(prompt)
        )
        return Response(status=202)

    @route("GET", "/collection/v1_0/requesttopay/{id}", "payments.fetch")
    def read(self, request: Request) -> Response:
        """200 whatever became of it."""
        if refusal := self._unauthorized(request):
            return refusal
        prompt = self.prompts.get(request.params["id"])
        if prompt is None:
            return _error("RESOURCE_NOT_FOUND", "Requested resource was not found.", 404)
        return Response.json(prompt.to_json())

    # What payers do.

    def pay(self, offer: str) -> None:
        """The payer approves; a prompt is named by its reference id, the merchant's ids or the payer's number."""
        prompt = self._open(offer)
        prompt.transaction = str(self.random().randrange(10**8, 10**9))
        self.ledger.record(
            Kind.CAPTURE, vendor=self.vendor, id=prompt.id, key=prompt.key, money=prompt.money, facts=_same(prompt)
        )
        self._end(prompt, "SUCCESSFUL", "")

    def fail(self, offer: str, reason: str = "APPROVAL_REJECTED") -> None:
        """The payer says no, has too little, or does not exist: the reason is one of theirs."""
        self._fail(self._open(offer), reason)

    def tick(self) -> None:
        """Test numbers decide by themselves; whoever does not approve in time lets the prompt expire."""
        now = self.clock.now()
        for prompt in [one for one in self.prompts.values() if one.status == "PENDING"]:
            decides = prompt.asked_at + timedelta(seconds=DECIDES_AFTER) <= now
            if prompt.msisdn in TEST_NUMBERS and decides:
                reason = TEST_NUMBERS[prompt.msisdn]
                self._fail(prompt, reason) if reason else self.pay(prompt.id)
            elif prompt.msisdn != NEVER and prompt.until <= now:
                self._fail(prompt, "EXPIRED")

    def untrue(self, webhook: Webhook) -> Webhook | None:
        """Another prompt, still open, is called successful; at its own true address."""
        candidates = [one for one in self.prompts.values() if one.status == "PENDING" and one.callback]
        if not candidates:
            return None
        return self._callback(replace(self.random().choice(candidates), status="SUCCESSFUL", transaction="363440463"))

    # Small things.

    def _prompt(self, id: str, asked: Mapping[str, object], callback: str | None) -> Prompt:
        party, amount = _mapping(asked.get("payer")), asked.get("amount")
        if not isinstance(amount, str):
            raise ValueError("amount must be a string")
        money = Money(amount, self.currency)
        if money.minor_units <= 0:
            raise ValueError("amount must be positive")
        if party.get("partyIdType") != "MSISDN" or not str(party.get("partyId", "")).isdigit():
            raise ValueError("payer must be an MSISDN")
        message, note = str(asked.get("payerMessage", "")), str(asked.get("payeeNote", ""))
        for text in (message, note):
            if len(text) > LONGEST_NOTE or UNSUPPORTED & {*text}:
                raise ValueError("a note is too long, or has a special character")
        now = self.clock.now()
        return Prompt(
            id=id,
            money=money,
            amount=amount,
            external_id=str(asked.get("externalId", "")),
            payer=party,
            payer_message=message,
            payee_note=note,
            callback=callback,
            asked_at=now,
            until=now + timedelta(seconds=self.prompt_life),
        )

    def _facts(self, prompt: Prompt) -> dict[str, str]:
        never = prompt.msisdn == NEVER
        return _same(prompt) | ({} if never else {"expires_at": prompt.until.isoformat()})

    def _open(self, offer: str) -> Prompt:
        wanted = [
            one for one in self.prompts.values() if offer in (one.id, one.external_id, one.payee_note, one.msisdn)
        ]
        if not wanted:
            raise LookupError(f"{self.vendor} has no request to pay {offer}")
        if wanted[-1].status != "PENDING":
            raise LookupError(f"{self.vendor}: {wanted[-1].id} is {wanted[-1].status}")
        return wanted[-1]

    def _fail(self, prompt: Prompt, reason: str) -> None:
        self.ledger.record(
            Kind.OFFER_CLOSED, vendor=self.vendor, id=prompt.id, key=prompt.key, money=prompt.money, facts=_same(prompt)
        )
        self._end(prompt, "FAILED", reason)

    def _end(self, prompt: Prompt, status: str, reason: str) -> None:
        prompt.status, prompt.reason = status, reason
        if prompt.callback:
            self.owe(self._callback(prompt))

    def _callback(self, prompt: Prompt) -> Webhook:
        return Webhook(
            vendor=self.vendor,
            url=prompt.callback or "",
            event=prompt.status,
            about=prompt.id,
            key=prompt.key,
            body=json.dumps(prompt.to_json()).encode(),
        )

    def _wrong_key(self, request: Request) -> Response | None:
        key = request.header("ocp-apim-subscription-key")
        if key is None:
            return _gateway("Access denied due to missing subscription key.", 401)
        return None if key == self.subscription_key else _gateway("Access denied due to invalid subscription key.", 401)

    def _unauthorized(self, request: Request) -> Response | None:
        if refusal := self._wrong_key(request):
            return refusal
        until = self.tokens.get((request.header("authorization") or "").removeprefix("Bearer "))
        if until is None or until <= self.clock.now():
            return Response.json({"message": "Unauthorized"}, status=401)
        if request.header("x-target-environment") != self.environment:
            return _error("NOT_ALLOWED_TARGET_ENVIRONMENT", "Access to target environment is forbidden.", 500)
        return None


def _same(prompt: Prompt) -> dict[str, str]:
    # The reference id travels in a header, which the journal does not search: by this one it knows the prompt again.
    return {"charge": prompt.external_id}


def _error(code: str, message: str, status: int) -> Response:
    return Response.json({"message": message, "code": code}, status=status)


def _gateway(message: str, status: int) -> Response:
    return Response.json({"statusCode": status, "message": message}, status=status)


def _mapping(value: object) -> Mapping[str, object]:
    return cast(Mapping[str, object], value) if isinstance(value, dict) else {}


def _is_version_4(text: str) -> bool:
    try:
        return str(UUID(text)) == text and UUID(text).version == 4
    except ValueError:
        return False


def _basic(header: str | None) -> str:
    kind, _, encoded = (header or "").partition(" ")
    try:
        return b64decode(encoded).decode() if kind.lower() == "basic" else ""
    except ValueError:
        return ""
