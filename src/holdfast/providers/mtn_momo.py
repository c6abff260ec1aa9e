"""MTN MoMo Collections (v1_0): a payer's phone is asked to approve, and the wallet pays."""

import hashlib
import re
import unicodedata
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from os import environ
from typing import Final, Self
from uuid import UUID

from pydantic import BaseModel, Field

from holdfast.errors import CallFailed, ConfigurationError, InvalidInput, InvalidMoney, Mismatch, Rejected
from holdfast.http.origin import is_loopback
from holdfast.http.session import Http
from holdfast.http.tokens import Token
from holdfast.http.transports import HttpResponse
from holdfast.http.vendor import CAUSES
from holdfast.http.wire import JsonOut, VendorError, decode_json, read_json_error
from holdfast.outcome import Cause, Effect
from holdfast.payments.models import Attempt, Method, Offer, Payer, PaymentStatus
from holdfast.payments.provider import (
    Capabilities,
    Lookup,
    OfferRequest,
    PaymentSnapshot,
    Refunding,
    WebhookTrust,
)
from holdfast.values import Money, Secret, require_env, secret_from_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest

SANDBOX: Final = "sandbox"
SANDBOX_URL: Final = "https://sandbox.momodeveloper.mtn.com"
PRODUCTION_URL: Final = "https://proxy.momoapi.mtn.com"
# https://momodeveloper.mtn.com/api-documentation/common-error: the environments, and that each takes the currency of
# its country. Those of a country are from ISO 4217; Liberia also has wallets in USD.
CURRENCIES: Final[Mapping[str, str]] = {
    SANDBOX: "EUR",
    "mtnbenin": "XOF",
    "mtncameroon": "XAF",
    "mtncongo": "XAF",
    "mtnghana": "GHS",
    "mtnguineaconakry": "GNF",
    "mtnivorycoast": "XOF",
    "mtnliberia": "LRD",
    "mtnnigeria": "NGN",
    "mtnrwanda": "RWF",
    "mtnsouthafrica": "ZAR",
    "mtnsouthsudan": "SSP",
    "mtnswaziland": "SZL",
    "mtnuganda": "UGX",
    "mtnzambia": "ZMW",
}
# FAILED with the reason EXPIRED is `expired`.
STATUSES: Final[Mapping[str, PaymentStatus]] = {
    "PENDING": PaymentStatus.PROCESSING,
    "SUCCESSFUL": PaymentStatus.PAID,
    "FAILED": PaymentStatus.FAILED,
}
EXPIRED: Final = "EXPIRED"
EXISTS: Final = (409, "RESOURCE_ALREADY_EXIST")
ABSENT: Final = frozenset({"RESOURCE_NOT_FOUND", "NOT_FOUND"})
LONGEST_NOTE: Final = 160
MSISDN: Final = re.compile(r"[0-9]{8,15}", re.ASCII)
# What is not a plain character, an apostrophe for one, is answered with 400.
UNSUPPORTED: Final = re.compile(r"[^A-Za-z0-9 .,:_-]+")
ATTEMPT: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
PROMPT: Final = timedelta(minutes=5)
"""How long a payer has to approve."""
CAPABILITIES: Final = Capabilities(
    currencies=frozenset(CURRENCIES.values()),
    methods=frozenset({Method.MOBILE_MONEY}),
    create_effect=Effect.KEYED,
    key_window=None,
    lookup=Lookup.AUTHORITATIVE_ABSENCE,
    payer_visible=True,
    payer=True,
    # Money goes back by another product, Disbursements, with keys and a balance of its own: here it is done by hand.
    refunding=Refunding.NONE,
    webhook_trust=WebhookTrust.KEYED_URL,
    expiry_is_final=True,  # a prompt that ended has failed for good, and says so
    minimum_expiry=PROMPT,
)


class Issued(BaseModel):
    """The answer to `POST /collection/token/`."""

    access_token: str = Field(min_length=1, repr=False)
    expires_in: int


class Reason(BaseModel):
    """Why a request failed."""

    code: str = ""


class RequestToPay(BaseModel):
    """A request to pay, as read and as called back; the id it was made under is not in it."""

    amount: Decimal
    currency: str
    status: str
    external_id: str = Field(alias="externalId", default="")
    payee_note: str = Field(alias="payeeNote", default="")
    reason: Reason | str | None = None
    """An object, or in some environments the bare code."""

    @property
    def why(self) -> str:
        """The code of the reason; empty when it did not fail."""
        return self.reason.code if isinstance(self.reason, Reason) else self.reason or ""

    @property
    def price(self) -> Money:
        """Raises Mismatch: it is no amount of that currency."""
        try:
            return Money(self.amount, self.currency)
        except InvalidInput as error:
            raise Mismatch(f"the request to pay has a price we cannot read: {error}", operation="fetch") from error

    def to_snapshot(self, vendor_id: str) -> PaymentSnapshot:
        """In our words. A status we do not know is `unknown`: keep what you had, and look again."""
        status = STATUSES.get(self.status, PaymentStatus.UNKNOWN)
        if status is PaymentStatus.FAILED and self.why == EXPIRED:
            status = PaymentStatus.EXPIRED
        return PaymentSnapshot(
            vendor_id=vendor_id,
            status=status,
            price=self.price,
            received=self.price if status is PaymentStatus.PAID else None,
            attempt_id=self.external_id,
            reason=self.why,
        )


@dataclass(frozen=True, kw_only=True)
class MtnMomo:
    """Take payments from MTN mobile money wallets.

    `subscription_key` is that of the product Collections; `api_user` and `api_key` are made in the partner portal, in
    the sandbox by its own API. `environment` is `sandbox` or the country's, such as `mtnguineaconakry`: it has one
    currency, and one account.
    """

    subscription_key: Secret
    api_user: str
    api_key: Secret
    environment: str
    name: str = "mtn-momo"
    base_url: str = ""
    """By default the sandbox's address or that of production, as `environment` says."""
    currency: str = ""
    """Where it is not that of the country, or the country is none of those we know."""
    callbacks: bool = True
    """Ask to be called back; the host of `public_url` has to be registered with MTN, else False: then we only look."""
    capabilities: Capabilities = field(init=False, repr=False, compare=False, default=CAPABILITIES)

    # https://momodeveloper.mtn.com/api-documentation/common-error
    causes = CAUSES | {
        403: Cause.CREDENTIAL,  # our address is not on their list
        EXISTS: Cause.REJECTED,  # but see `create`
        409: Cause.UNKNOWN,
        (500, "NOT_ALLOWED"): Cause.CREDENTIAL,
        (500, "NOT_ALLOWED_TARGET_ENVIRONMENT"): Cause.CREDENTIAL,
        (500, "INVALID_CALLBACK_URL_HOST"): Cause.REJECTED,
        (500, "INVALID_CURRENCY"): Cause.REJECTED,
    }
    scheme = None
    webhook_secrets = None
    private_fields = frozenset({"payer", "partyId", "payerMessage", "payeeNote"})

    def __post_init__(self) -> None:
        """Raises ConfigurationError: the environment is none we know, and no currency is given."""
        currency = self.currency or CURRENCIES.get(self.environment)
        if not currency:
            raise ConfigurationError(
                f"{self.name}: we know no currency of the environment {self.environment}; give it one with currency="
            )
        home = SANDBOX_URL if self.environment == SANDBOX else PRODUCTION_URL
        object.__setattr__(self, "base_url", self.base_url or home)
        object.__setattr__(self, "capabilities", replace(CAPABILITIES, currencies=frozenset({currency})))

    @classmethod
    def from_env(cls) -> Self:
        """With MOMO_SUBSCRIPTION_KEY, MOMO_API_USER, MOMO_API_KEY and MOMO_ENVIRONMENT from the environment.

        Where they are set, MOMO_CURRENCY names another currency, and MOMO_URL another address of their API.

        Raises:
            MissingCredential: One of them is unset or empty.
            ConfigurationError: The environment is none we know, and no currency is given.
        """
        require_env(
            {
                "MOMO_SUBSCRIPTION_KEY": "your subscription key of MTN's product Collections",
                "MOMO_API_USER": "MTN's API user, a UUID",
                "MOMO_API_KEY": "the API user's key",
                "MOMO_ENVIRONMENT": "sandbox, or the country's: mtncameroon, mtnivorycoast, ...",
            }
        )
        return cls(
            subscription_key=secret_from_env("MOMO_SUBSCRIPTION_KEY"),
            api_user=secret_from_env("MOMO_API_USER").reveal(),
            api_key=secret_from_env("MOMO_API_KEY"),
            environment=secret_from_env("MOMO_ENVIRONMENT").reveal(),
            currency=environ.get("MOMO_CURRENCY", "").strip(),
            base_url=environ.get("MOMO_URL", "").strip(),
        )

    @property
    def live(self) -> bool:
        """Whether money is real: in every country, and neither in the sandbox nor on this machine."""
        return self.environment != SANDBOX and not is_loopback(self.base_url)

    def headers(self) -> Mapping[str, str]:
        return {
            "ocp-apim-subscription-key": self.subscription_key.reveal(),
            "x-target-environment": self.environment,
        }  # the token is put in by the connection

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"code": "…", "message": "…"}`; their gateway writes `{"statusCode": 401, "message": "…"}`."""
        return read_json_error(response)

    # The token.

    def token_scope(self) -> str:
        return f"{self.environment}|{self.api_user}"

    async def fetch_token(self, http: Http) -> Token:
        """`POST /collection/token/`, without a body, which would be answered with 400."""
        credentials = b64encode(f"{self.api_user}:{self.api_key.reveal()}".encode()).decode()
        issued = await http.post(
            "/collection/token/",
            Issued,
            operation="token",
            effect=Effect.IDEMPOTENT,
            headers={"authorization": f"Basic {credentials}"},
        )
        return Token(value=Secret(issued.access_token), expires_in=issued.expires_in)

    # Payments.

    async def create(self, http: Http, request: OfferRequest) -> PaymentSnapshot:
        """`POST /collection/v1_0/requesttopay`: a prompt on the payer's phone.

        Raises:
            InvalidInput: The payer's number is missing, or is none.
            InvalidMoney: Another currency than the environment's.
        """
        if request.price.currency not in (self.capabilities.currencies or ()):
            raise InvalidMoney(f"{self.name} has one currency in {self.environment}, and {request.price} is in another")
        id = reference_id(request.attempt_id)
        body: dict[str, JsonOut] = {
            "amount": _amount(request.price),
            "currency": request.price.currency,
            "externalId": request.attempt_id,
            "payer": {"partyIdType": "MSISDN", "partyId": _msisdn(request.payer)},
            "payerMessage": _plain(request.description) or _plain(request.reference),
            "payeeNote": _plain(request.reference),
        }
        headers = {"x-reference-id": id}
        if self.callbacks and request.webhook_url:
            headers["x-callback-url"] = request.webhook_url
        offer = Offer(expires_at=request.expires_at)  # there is nothing to show: the payer's phone asks
        try:
            await http.post(
                "/collection/v1_0/requesttopay",
                None,
                operation="create",
                effect=Effect.KEYED,
                json=body,
                headers=headers,
                key_valid=request.key_valid,
            )
        except Rejected as error:
            if (error.status, error.code) != EXISTS:
                raise
            return replace(await self._existing(http, id), offer=offer)
        return PaymentSnapshot(vendor_id=id, status=PaymentStatus.PROCESSING, offer=offer)

    async def _existing(self, http: Http, id: str) -> PaymentSnapshot:
        """What is there under this id. Raises CallFailed: never as if nothing had happened, for it has."""
        try:
            return await self.fetch(http, id)
        except Mismatch:
            raise
        except CallFailed as error:
            raise CallFailed.of(
                Cause.UNKNOWN,
                f"{self.name}: create: the request exists there, and could not be read: {error}",
                provider=self.name,
                operation="create",
                status=error.status,
                reason="exists",
            ) from error

    async def fetch(self, http: Http, vendor_id: str) -> PaymentSnapshot:
        """`GET /collection/v1_0/requesttopay/{referenceId}`; one that failed is answered with 200 as well."""
        found = await http.get(f"/collection/v1_0/requesttopay/{UUID(vendor_id)}", RequestToPay, operation="fetch")
        return found.to_snapshot(vendor_id)

    async def find(self, http: Http, attempt: Attempt) -> PaymentSnapshot | None:
        """The same by our own id. Their 404 proves that the request was never accepted; a 404 of others does not."""
        id = reference_id(attempt.id)
        try:
            return replace(await self.fetch(http, id), offer=Offer(expires_at=attempt.expires_at))
        except Rejected as error:
            if error.status == 404 and error.code in ABSENT:
                return None
            raise

    # Callbacks.

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        """The request to pay in its final state, by PUT or POST; nothing in it is signed."""
        found = RequestToPay.model_validate(decode_json(request.body))
        ours = ATTEMPT.fullmatch(found.external_id) is not None
        about = found.external_id or hashlib.sha256(request.body).hexdigest()
        return [
            Delivery(
                type=found.status,
                dedup_key=f"{about}:{found.status}",
                vendor_id=reference_id(found.external_id) if ours else "",
                reference=found.payee_note,
                recognised=found.status in STATUSES,
                body=request.body,
                facts={"attempt_id": found.external_id} if ours else None,
            )
        ]


def reference_id(attempt_id: str) -> str:
    """The attempt's id as a UUID of version 4, the only one they take; the same attempt has always the same."""
    return str(UUID(hex=attempt_id, version=4))


def _amount(price: Money) -> str:
    """Decimals only where there are any."""
    amount = price.amount
    return f"{amount:.0f}" if amount == amount.to_integral_value() else f"{amount:f}"


def _msisdn(payer: Payer | None) -> str:
    number = payer.msisdn if payer else ""
    if not MSISDN.fullmatch(number):
        raise InvalidInput("mobile money needs the payer's number, digits only, with the code of the country")
    return number


def _plain(text: str) -> str:
    """Without accents and signs, short enough for a note."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(UNSUPPORTED.sub(" ", letters).split())[:LONGEST_NOTE].rstrip()
