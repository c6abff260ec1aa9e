"""Twilio, simulated: messages that queue, travel and arrive, people who say STOP, callbacks with signed addresses."""

import hmac
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import ceil
from typing import ClassVar, Final
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

from holdfast.clock import Clock
from holdfast.testing.faults import Faults, Status, chance
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.forms import pairs
from holdfast.testing.simulators.simulator import Headers, Reply, Request, Response, Simulator, Webhook, route

VERSION: Final = "2010-04-01"
LONGEST_BODY: Final = 1600
MAGIC_FROM: Final = "+15005550006"
"""The number every account may send from, as with Twilio's test credentials."""
LONGEST_QUEUE: Final = 36_000
GSM_7: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_7_EXTENDED: Final = frozenset("\f^{}\\[~]|€")
STOPS: Final = frozenset(("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT"))
STARTS: Final = frozenset(("START", "YES", "UNSTOP"))
FINAL: Final = frozenset(("delivered", "undelivered", "failed", "canceled", "read"))

REFUSED_TO: Final[Mapping[str, tuple[int, str]]] = {
    "+15005550001": (21211, "Invalid 'To' Phone Number: {to}"),
    "+15005550002": (
        21612,
        "The 'To' phone number: {to}, is not currently reachable using the 'From' phone number: {sender} via SMS.",
    ),
    "+15005550003": (
        21408,
        "Permission to send an SMS has not been enabled for the region indicated by the 'To' number: {to}",
    ),
    "+15005550004": (21610, "Attempt to send to unsubscribed recipient"),
    "+15005550009": (21614, "'To' number: {to}, is not a valid mobile number"),
}
"""Numbers that are refused by themselves. https://www.twilio.com/docs/iam/test-credentials"""
REFUSED_FROM: Final[Mapping[str, tuple[int, str]]] = {
    "+15005550001": (21212, "Invalid 'From' Phone Number: {sender}"),
    "+15005550008": (21611, "This 'From' number has exceeded the maximum number of queued messages"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Calls let through in any second, and segments a number sends in one; zero switches one off."""

    calls: int = 100
    segments: int = 1


@dataclass(kw_only=True, slots=True)
class Message:
    """One message, as Twilio keeps it."""

    sid: str
    account: str
    to: str
    sender: str
    service: str | None
    body: str
    media: int
    status: str
    created_at: datetime
    updated_at: datetime
    due_at: datetime
    """When its number has sent what was queued before it."""
    expires_at: datetime
    callback: str
    direction: str = "outbound-api"
    sent_at: datetime | None = None
    error_code: int | None = None

    @property
    def segments(self) -> int:
        return segments(self.body)

    @property
    def uri(self) -> str:
        return f"/{VERSION}/Accounts/{self.account}/Messages/{self.sid}.json"

    def to_json(self) -> dict[str, object]:
        """As every answer writes it."""
        return {
            "account_sid": self.account,
            "api_version": VERSION,
            "body": self.body,
            "date_created": _rfc2822(self.created_at),
            "date_sent": _rfc2822(self.sent_at),
            "date_updated": _rfc2822(self.updated_at),
            "direction": self.direction,
            "error_code": self.error_code,
            "error_message": None,
            "from": self.sender or None,
            "messaging_service_sid": self.service,
            "num_media": str(self.media),
            "num_segments": str(self.segments if self.status != "accepted" else 0),
            "price": "-0.00790" if self.status in ("sent", "delivered") else None,
            "price_unit": "USD",
            "sid": self.sid,
            "status": self.status,
            "subresource_uris": {"media": f"{self.uri.removesuffix('.json')}/Media.json"},
            "to": self.to,
            "uri": self.uri,
        }


class Refused(Exception):
    """Twilio says no."""

    def __init__(self, code: int, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "code": code,
            "message": message,
            "more_info": f"https://www.twilio.com/docs/errors/{code}",
            "status": status,
        }


class TwilioSimulator(Simulator):
    """One account; a message is on its way `pace` seconds after its number is free, and arrives as many later.

    In the ledger a message's key is the number it went to. Callbacks go where the message says, what people write to
    `webhook_url`. Twilio knows no idempotency key for messages: what is asked twice is sent twice.
    """

    vendor: ClassVar[str] = "twilio"
    hosts: ClassVar[tuple[str, ...]] = ("api.twilio.com",)
    # By default a callback is tried once, whatever it is answered, and again where nobody was there: they are lossy.
    retries: ClassVar[tuple[float, ...]] = (0,)
    patience: ClassVar[float] = 15

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
        limits: Limits = Limits(),
        pace: float = 1,
    ) -> None:
        """The auth token signs the webhooks, so it is the `webhook_secret`."""
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        made_up = chance(seed, self.vendor, "account")
        self.account_sid = f"AC{made_up.getrandbits(128):032x}"
        self.webhook_secret = webhook_secret or f"{made_up.getrandbits(128):032x}"
        self.key_sid = f"SK{made_up.getrandbits(128):032x}"
        self.key_secret = f"{made_up.getrandbits(128):032x}"
        self.service_sid = f"MG{made_up.getrandbits(128):032x}"
        self.numbers = [MAGIC_FROM]
        """What this account may send from."""
        self.limits = limits
        self.pace = pace
        self._forget()

    @property
    def auth_token(self) -> str:
        return self.webhook_secret

    @property
    def credentials(self) -> Mapping[str, str]:
        return {
            "account_sid": self.account_sid,
            "auth_token": self.auth_token,
            "api_key_sid": self.key_sid,
            "api_key_secret": self.key_secret,
            "messaging_service_sid": self.service_sid,
            "from": self.numbers[0],
        }

    def reset(self) -> None:
        super().reset()
        self._forget()

    # Webhooks

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        """Over the address and the sorted fields, or the address alone, whose `bodySHA256` is of the JSON; no time."""
        fields: defaultdict[str, set[str]] = defaultdict(set)
        form = "" if body.startswith((b"{", b"[")) else body.decode("utf-8", "replace")
        for name, value in parse_qsl(form, keep_blank_values=True):
            fields[name].add(value)
        listed = "".join(name + value for name in sorted(fields) for value in sorted(fields[name]))
        signed = _signed_address(url) + listed
        mac = hmac.new(secret.encode(), signed.encode(), "sha1")
        return (("x-twilio-signature", b64encode(mac.digest()).decode()),)

    def retry_after(self, number: int, reply: Reply) -> float | None:
        return None if reply.status else super().retry_after(number, reply)

    # Every call

    def answer(self, request: Request) -> Response:
        try:
            self._authorize(request)
            response = super().answer(request)
        except Refused as refused:
            response = Response.json(refused.body, status=refused.status)
        return replace(response, headers=(*response.headers, *self._headers()))

    def failure(self, fault: Status) -> Response:
        code, text = {429: (20429, "Too Many Requests"), 503: (20503, "Service is unavailable. Please try again")}.get(
            fault.status, (20500, "An internal server error has occurred")
        )
        wait = () if fault.retry_after is None else (("retry-after", f"{ceil(fault.retry_after)}"),)
        headers = (*wait, *self._headers())
        return Response.json(Refused(code, text, status=fault.status).body, status=fault.status, headers=headers)

    def not_found(self, request: Request) -> Response:
        raise _missing(request)

    # The API

    @route("POST", f"/{VERSION}/Accounts/{{account}}/Messages.json", "messages.send")
    def create(self, request: Request) -> Response:
        asked = pairs(request)
        form = dict(asked)
        to, sender, service = form.get("To", ""), form.get("From", ""), form.get("MessagingServiceSid")
        media = sum(name == "MediaUrl" for name, _ in asked)
        self._check(to, sender, service, form.get("Body", ""), bool(media) or "ContentSid" in form)
        message = self._new(form, to, sender, media)
        self.messages[message.sid] = message
        facts = {"to": to, "text": message.body}
        self.ledger.record(Kind.MESSAGE, vendor=self.vendor, id=message.sid, key=to, facts=facts)
        return Response.json(message.to_json(), status=201)

    @route("GET", f"/{VERSION}/Accounts/{{account}}/Messages.json", "messages.find")
    def list(self, request: Request) -> Response:
        """Newest first."""
        asked = dict(pairs(request))
        found = [
            message
            for message in reversed(self.messages.values())
            if asked.get("To") in (None, message.to)
            and asked.get("From") in (None, message.sender)
            and _sent_within(message, asked)
        ]
        return self._paged(request, "messages", [message.to_json() for message in found])

    @route("GET", f"/{VERSION}/Accounts/{{account}}/Messages/{{sid}}.json", "messages.fetch")
    def fetch(self, request: Request) -> Response:
        return Response.json(self._message(request).to_json())

    @route("POST", f"/{VERSION}/Accounts/{{account}}/Messages/{{sid}}.json", "messages.update")
    def update(self, request: Request) -> Response:
        """Empty its text, or call it off while it is scheduled."""
        message, asked = self._message(request), dict(pairs(request))
        if "Body" in asked:
            if asked["Body"] or message.status not in FINAL:
                raise Refused(20009, "Cannot update this resource before it is complete, or with a body.", status=409)
            message.body = ""
        if asked.get("Status") == "canceled":
            if message.status != "scheduled":
                raise Refused(30409, "Message cannot be canceled: it is not scheduled.", status=409)
            self._become(message, "canceled")
        return Response.json(message.to_json())

    @route("DELETE", f"/{VERSION}/Accounts/{{account}}/Messages/{{sid}}.json", "messages.delete")
    def delete(self, request: Request) -> Response:
        message = self._message(request)
        if message.status not in FINAL and message.direction != "inbound":
            raise Refused(20009, "Cannot delete this resource before it is complete.", status=409)
        del self.messages[message.sid]
        return Response(status=204)

    @route("POST", f"/{VERSION}/Accounts/{{account}}/Messages/{{sid}}/Feedback.json", "messages.update")
    def feedback(self, request: Request) -> Response:
        message, now = self._message(request), _rfc2822(self.clock.now())
        told = {
            "account_sid": self.account_sid,
            "date_created": now,
            "date_updated": now,
            "message_sid": message.sid,
            "outcome": dict(pairs(request)).get("Outcome", "unconfirmed"),
            "uri": f"{message.uri.removesuffix('.json')}/Feedback.json",
        }
        return Response.json(told, status=201)

    @route("GET", f"/{VERSION}/Accounts/{{account}}/Messages/{{sid}}/Media.json", "messages.fetch")
    def media(self, request: Request) -> Response:
        self._message(request)
        return self._paged(request, "media_list", [])

    @route("GET", f"/{VERSION}/Accounts/{{account}}.json", "account.fetch")
    def account(self, request: Request) -> Response:
        uri = f"/{VERSION}/Accounts/{self.account_sid}"
        told = {
            "auth_token": self.auth_token,
            "date_created": "Thu, 01 Jan 2026 00:00:00 +0000",
            "date_updated": "Thu, 01 Jan 2026 00:00:00 +0000",
            "friendly_name": "Simulated",
            "owner_account_sid": self.account_sid,
            "sid": self.account_sid,
            "status": "active",
            "subresource_uris": {"messages": f"{uri}/Messages.json", "balance": f"{uri}/Balance.json"},
            "type": "Full",
            "uri": f"{uri}.json",
        }
        return Response.json(told)

    @route("GET", f"/{VERSION}/Accounts/{{account}}/Balance.json", "account.balance")
    def balance(self, request: Request) -> Response:
        return Response.json({"account_sid": self.account_sid, "balance": "100.0", "currency": "USD"})

    # What people and networks do

    def write(self, sender: str, text: str, *, to: str = "") -> str:
        """Somebody writes to a number of this account; the message's sid. STOP and START mean what they say."""
        word, to = text.strip().upper(), to or self.numbers[0]
        if word in STOPS:
            self.stopped.add((sender, to))
        if word in STARTS:
            self.stopped.discard((sender, to))
        form = {"Body": text}
        message = replace(self._new(form, to, sender, 0), direction="inbound", status="received", callback="")
        self.messages[message.sid] = message
        if self.webhook_url:
            told = {
                "ToCountry": "US",
                "SmsMessageSid": message.sid,
                "NumMedia": "0",
                "FromCountry": "US",
                "SmsSid": message.sid,
                "SmsStatus": "received",
                "Body": text,
                "To": to,
                "NumSegments": str(message.segments),
                "MessageSid": message.sid,
                "AccountSid": self.account_sid,
                "From": sender,
                "ApiVersion": VERSION,
            }
            told |= {"OptOutType": "STOP"} if word in STOPS else {}
            self._owe(self.webhook_url, "received", told, about=message.sid, key=sender)
        return message.sid

    def unreachable(self, number: str, code: int = 30003) -> None:
        """Messages to the number leave, and do not arrive, for the reason of that code."""
        self.unreachable_for[number] = code

    def tick(self) -> None:
        """Messages leave and arrive."""
        now, step = self.clock.now(), timedelta(seconds=self.pace)
        for message in tuple(self.messages.values()):
            if message.status == "scheduled" and message.due_at <= now:
                self._become(message, "queued")
            if message.status in ("queued", "accepted") and message.due_at > message.expires_at <= now:
                self._become(message, "failed", error=30001)
            if message.status in ("queued", "accepted") and message.due_at + step <= now:
                message.sent_at = now
                self._become(message, "sent")
            if message.status == "sent" and message.due_at + 2 * step <= now:
                error = self.unreachable_for.get(message.to)
                self._become(message, "undelivered" if error else "delivered", error=error)

    # How

    def _forget(self) -> None:
        self.messages: dict[str, Message] = {}
        """Every message, in both directions, by sid, oldest first."""
        self.stopped: set[tuple[str, str]] = set()
        """Who wants nothing more from which number."""
        self.unreachable_for: dict[str, int] = {}
        self._busy_until: dict[str, datetime] = {}
        self._calls = self.window(self.limits.calls)

    def _authorize(self, request: Request) -> None:
        kind, _, given = (request.header("authorization") or "").partition(" ")
        try:
            name, _, secret = b64decode(given).decode().partition(":")
        except ValueError:
            name = secret = ""
        known = {self.account_sid: self.auth_token, self.key_sid: self.key_secret}
        if kind.lower() != "basic" or known.get(name) != secret:
            raise Refused(20003, "Authenticate", status=401)
        if self._calls.wait():
            raise Refused(20429, "Too Many Requests", status=429)
        self._calls.take()
        if not request.path.startswith(f"/{VERSION}/Accounts/{self.account_sid}"):
            raise _missing(request)

    def _check(self, to: str, sender: str, service: str | None, body: str, has_media: bool) -> None:
        if not to:
            raise Refused(21604, "A 'To' phone number is required.")
        if not sender and not service:
            raise Refused(21603, "A 'From' phone number is required.")
        if not body and not has_media:
            raise Refused(21602, "Message body is required.")
        if len(body) > LONGEST_BODY:
            raise Refused(21617, f"The concatenated message body exceeds the {LONGEST_BODY} character limit")
        refused = REFUSED_TO.get(to) or REFUSED_FROM.get(sender)
        if refused:
            raise Refused(refused[0], refused[1].format(to=to, sender=sender))
        plain = to.removeprefix("whatsapp:")
        if not (plain.startswith("+") and plain[1:].isdigit() and 8 <= len(plain) <= 16):
            raise Refused(21211, f"Invalid 'To' Phone Number: {to}")
        if sender and sender.removeprefix("whatsapp:") not in self.numbers:
            text = "is not a valid, SMS-capable inbound phone number or short code for your account."
            raise Refused(21606, f"The 'From' phone number {sender} {text}")
        if service is not None and service != self.service_sid:
            raise Refused(21701, f"The Messaging Service {service} does not exist", status=404)
        if (to, sender or self.numbers[0]) in self.stopped:
            raise Refused(21610, "Attempt to send to unsubscribed recipient")

    def _new(self, form: Mapping[str, str], to: str, sender: str, media: int) -> Message:
        now, service = self.clock.now(), form.get("MessagingServiceSid")
        body = form.get("Body", "")
        scheduled = form.get("ScheduleType") == "fixed"
        if scheduled and not service:
            raise Refused(35118, "MessagingServiceSid is required to schedule a message")
        wanted = _moment(form.get("SendAt", "")) if scheduled else now
        if scheduled and not timedelta(minutes=5) <= wanted - now <= timedelta(days=35):
            raise Refused(35114, "SendAt time must be between 300 seconds and 35 days in the future")
        from_number = sender or self.numbers[0]
        due = max(wanted, self._busy_until.get(from_number, wanted))
        if self.limits.segments:
            self._busy_until[from_number] = due + timedelta(seconds=segments(body) / self.limits.segments)
        return Message(
            sid=f"{'MM' if media else 'SM'}{self.random().getrandbits(128):032x}",
            account=self.account_sid,
            to=to,
            sender=sender,
            service=service,
            body=body,
            media=media,
            status="scheduled" if scheduled else "accepted" if service else "queued",
            created_at=now,
            updated_at=now,
            due_at=due,
            expires_at=wanted + timedelta(seconds=_whole(form, "ValidityPeriod", LONGEST_QUEUE)),
            callback=form.get("StatusCallback", ""),
        )

    def _become(self, message: Message, status: str, *, error: int | None = None) -> None:
        message.status, message.error_code, message.updated_at = status, error, self.clock.now()
        message.sender = message.sender or self.numbers[0]
        if message.callback and status != "queued":
            told = {
                "SmsSid": message.sid,
                "SmsStatus": status,
                "MessageStatus": status,
                "To": message.to,
                "MessageSid": message.sid,
                "AccountSid": self.account_sid,
                "From": message.sender,
                "ApiVersion": VERSION,
            }
            told |= {"ErrorCode": str(error)} if error else {}
            self._owe(message.callback, status, told, about=message.sid, key=message.to)

    def _owe(self, url: str, event: str, form: Mapping[str, str], *, about: str, key: str) -> None:
        headers = (
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("user-agent", "TwilioProxy/1.1"),
            ("accept", "*/*"),
            ("i-twilio-idempotency-token", str(UUID(int=self.random().getrandbits(128), version=4))),
        )
        body = urlencode(form).encode()
        self.owe(Webhook(vendor=self.vendor, url=url, event=event, about=about, key=key, body=body, headers=headers))

    def _paged(self, request: Request, name: str, found: Sequence[object]) -> Response:
        asked = dict(pairs(request))
        size, page = min(_whole(asked, "PageSize", 50), 1000), _whole(asked, "Page", 0)
        if size < 1 or page < 0:
            raise Refused(20001, "Page size must be greater than 0")
        kept = {key: value for key, value in asked.items() if key not in ("Page", "PageSize", "PageToken")}
        shown = found[page * size : (page + 1) * size]

        def uri(number: int) -> str:
            token = {"PageToken": f"PA{self.account_sid[2:]}"} if number else {}
            return f"{request.path}?{urlencode({**kept, 'PageSize': size, 'Page': number, **token})}"

        answer = {
            name: shown,
            "end": page * size + len(shown) - 1 if shown else 0,
            "first_page_uri": uri(0),
            "next_page_uri": uri(page + 1) if (page + 1) * size < len(found) else None,
            "page": page,
            "page_size": size,
            "previous_page_uri": uri(page - 1) if page else None,
            "start": page * size,
            "uri": uri(page),
        }
        return Response.json(answer)

    def _message(self, request: Request) -> Message:
        found = self.messages.get(request.params["sid"])
        if found is None:
            raise _missing(request)
        return found

    def _headers(self) -> Headers:
        request_id = f"RQ{self.random().getrandbits(128):032x}"
        return (
            ("twilio-request-id", request_id),
            ("twilio-concurrent-requests", "1"),
            ("x-api-domain", "api.twilio.com"),
        )


def segments(text: str) -> int:
    """How many SMS the text takes: 160 characters of GSM 7-bit or 70 of UCS-2, a little less where there are more."""
    if all(letter in GSM_7 or letter in GSM_7_EXTENDED for letter in text):
        length, alone, joined = sum(2 if letter in GSM_7_EXTENDED else 1 for letter in text), 160, 153
    else:
        length, alone, joined = len(text.encode("utf-16-be")) // 2, 70, 67
    return 1 if length <= alone else ceil(length / joined)


def _signed_address(url: str) -> str:
    """Without what is only for Twilio's own connection, and, over TLS, without the port."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition(":")[0] if parts.scheme == "https" and parts.port else parts.netloc
    return parts._replace(netloc=netloc, fragment="").geturl()


def _missing(request: Request) -> Refused:
    return Refused(20404, f"The requested resource {request.path} was not found", status=404)


def _whole(asked: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(asked.get(name, default))
    except ValueError:
        raise Refused(20001, f"Invalid {name}: {asked[name]}") from None


def _rfc2822(time: datetime | None) -> str | None:
    return format_datetime(time.astimezone(UTC)) if time else None


def _sent_within(message: Message, asked: Mapping[str, str]) -> bool:
    """`DateSent` is a day; with `<` or `>` behind it, that day or time and earlier, or later."""
    sent = message.sent_at or message.created_at
    sides: dict[str, Callable[[datetime, datetime], bool]] = {
        "DateSent<": lambda sent, bound: sent < bound + _whole_day(asked["DateSent<"]),
        "DateSent>": lambda sent, bound: sent >= bound,
    }
    if "DateSent" in asked and sent.astimezone(UTC).date() != _moment(asked["DateSent"]).astimezone(UTC).date():
        return False
    return all(holds(sent, _moment(asked[name])) for name, holds in sides.items() if name in asked)


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise Refused(20001, f"Invalid date: {text}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _whole_day(text: str) -> timedelta:
    return timedelta(days=1) if len(text) == 10 else timedelta(microseconds=1)
