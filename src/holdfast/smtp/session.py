"""One provider's way to its mail server: every message guarded, every end of a session a value or a cause."""

import re
import ssl
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from enum import StrEnum
from math import inf
from typing import Final, Literal, Protocol

from holdfast.clock import Clock
from holdfast.errors import CallFailed, InsecureSetup, MissingExtra
from holdfast.outcome import Cause, Effect
from holdfast.resilience.context import remaining
from holdfast.resilience.guard import Guard
from holdfast.telemetry import Redactor
from holdfast.values import Secret

try:
    import aiosmtplib
    from aiosmtplib import errors
except ImportError:
    raise MissingExtra("smtp") from None

Tls = Literal["starttls", "implicit", "plain"]

TIMEOUT: Final = 25.0
"""The whole session, connecting included: below the guard's own limit, because here it is known how far it came."""
_HEADROOM: Final = 0.95
_GOODBYE: Final = 1.0
_LONGEST_TEXT: Final = 200
_LONGEST_READ: Final = 8 * 1024
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ENHANCED: Final = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}\b", re.ASCII)  # RFC 3463
_MESSAGE: Final = SMTP_POLICY.clone(cte_type="7bit")  # not every server takes eight bits


class SmtpVendor(Protocol):
    """The facts a session needs."""

    @property
    def name(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> Tls | None: ...
    @property
    def ca_file(self) -> str | None: ...
    @property
    def username(self) -> str | None: ...
    @property
    def password(self) -> Secret | None: ...
    @property
    def live(self) -> bool:
        """Whether the server is another machine."""
        ...


class Stage(StrEnum):
    """How far a session came."""

    CONNECT = "connect"
    TLS = "tls"
    LOGIN = "login"
    SENDER = "sender"
    RECIPIENT = "recipient"
    DATA = "data"
    """From the command DATA on, only the server's reply tells what happened."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an exception without a reply means before DATA; after it, it proves nothing."""

    text: str
    cause: Cause = Cause.NOT_SENT
    hard: bool = True
    reason: str = ""


# Measured against aiosmtplib 5.1.3 with aiosmtpd 1.4.6.
MEANINGS: Final[dict[type[Exception], Meaning]] = {
    errors.SMTPConnectError: Meaning("could not connect", reason="connect"),
    errors.SMTPConnectTimeoutError: Meaning("could not connect in time", reason="connect"),
    errors.SMTPServerDisconnected: Meaning("lost the connection", reason="reset"),
    errors.SMTPReadTimeoutError: Meaning("got no reply in time", reason="timeout"),
    errors.SMTPTimeoutError: Meaning("ran out of time", reason="timeout"),
    errors.SMTPNotSupported: Meaning("the server lacks what we need", hard=False, reason="not_supported"),
    # Without a code of its own; `rcpt` raises the singular.
    errors.SMTPRecipientsRefused: Meaning("refused the recipient", cause=Cause.REJECTED, hard=False),
    # The root itself is raised where the server offers no STARTTLS or no AUTH.
    errors.SMTPException: Meaning("the server lacks what we need", hard=False, reason="not_supported"),
    ssl.SSLError: Meaning("could not connect: the TLS handshake failed", reason="tls"),
    TimeoutError: Meaning("ran out of time", reason="timeout"),
    OSError: Meaning("could not connect, or lost the connection", reason="connect"),
}

REPLIES: Final[frozenset[type[errors.SMTPResponseException]]] = frozenset(
    {
        errors.SMTPResponseException,
        errors.SMTPAuthenticationError,
        errors.SMTPConnectResponseError,
        errors.SMTPDataError,
        errors.SMTPHeloError,
        errors.SMTPRecipientRefused,
        errors.SMTPSenderRefused,
    }
)
"""Exceptions that carry the server's reply, which `judge` reads by its code and the stage."""

_NEEDS_LOGIN: Final = frozenset({530, 534, 535, 538})
_FULL: Final = frozenset({452, 552})
_ABOUT_THE_MAILBOX: Final = ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1")  # RFC 3463


def judge(stage: Stage, code: int, text: str) -> tuple[Cause, str]:
    """Cause and reason of a refusal: 4xx is "later", 5xx is "never" (RFC 5321, 4.2.1), read by the stage."""
    enhanced = text.split(" ", 1)[0]
    if code in _NEEDS_LOGIN or (stage is Stage.LOGIN and code >= 500):
        return Cause.CREDENTIAL, "login"
    match stage:
        case Stage.RECIPIENT if code in _FULL or enhanced[1:] == ".2.2":
            return (Cause.THROTTLED if code < 500 else Cause.REJECTED), "mailbox_full"
        case Stage.RECIPIENT if code < 500:
            # About one mailbox, so it says nothing about the server: throttled is neutral to the circuit, and so
            # is a greylisted recipient to everybody else's mail.
            return Cause.THROTTLED, "greylisted"
        case Stage.RECIPIENT if enhanced.startswith("5.7"):
            return Cause.REJECTED, "policy"
        case Stage.RECIPIENT if enhanced in _ABOUT_THE_MAILBOX or code in (550, 551, 553):
            return Cause.REJECTED, "recipient_gone"
        case Stage.SENDER | Stage.RECIPIENT | Stage.DATA if code >= 500:
            return Cause.REJECTED, {Stage.SENDER: "sender_refused", Stage.DATA: "content_invalid"}.get(stage, "")
        case _:
            return Cause.REFUSED, ""


class SmtpWire:
    """One provider's mail server: `await wire.send(mail, sender=…, recipient=…, effect=…)`, a connection for each."""

    def __init__(self, vendor: SmtpVendor, guard: Guard, clock: Clock) -> None:
        """Raises InsecureSetup: in clear to another machine."""
        if vendor.tls == "plain" and vendor.live:
            raise InsecureSetup(f'{vendor.name}: plain SMTP is for localhost only; use tls="starttls" or "implicit"')
        self._vendor = vendor
        self._guard = guard
        self._clock = clock

    async def send(
        self, mail: EmailMessage, *, sender: str, recipient: str, effect: Effect, operation: str = "send"
    ) -> str:
        """Hand the message over for one recipient; the server's words.

        Raises:
            CallFailed: By its cause; OutcomeUnknown only when the connection was lost after DATA.
        """
        if "date" not in mail:
            mail["Date"] = format_datetime(self._clock.now())
        content = mail.as_bytes(policy=_MESSAGE)

        async def exchange() -> str:
            session = _Session(self._vendor, self._clock, operation)
            return await session.run(content, sender, recipient)

        return await self._guard.run(exchange, effect=effect, operation=operation)

    async def aclose(self) -> None:
        """There is nothing to close: a connection lasts as long as its message."""


class _Session:
    """One connection, from greeting to goodbye."""

    def __init__(self, vendor: SmtpVendor, clock: Clock, operation: str) -> None:
        self._vendor = vendor
        self._clock = clock
        self._operation = operation
        self._stage = Stage.CONNECT

    async def run(self, content: bytes, sender: str, recipient: str) -> str:
        client = aiosmtplib.SMTP(
            hostname=self._vendor.host,
            port=self._vendor.port,
            use_tls=self._vendor.tls == "implicit",
            start_tls=False,  # done below, as a stage of its own
            cert_bundle=self._vendor.ca_file,
            local_hostname=sender.rpartition("@")[2],  # asking the resolver for our name would block the loop
            timeout=None,
        )
        left = remaining(self._clock)
        try:
            async with self._clock.timeout(TIMEOUT if left == inf else min(TIMEOUT, left * _HEADROOM)):
                said = await self._talk(client, content, sender, recipient)
            await self._part(client)
        except errors.SMTPResponseException as error:
            raise self._refusal(error.code, error.message) from None  # its text is the server's, which may quote us
        except (errors.SMTPException, OSError, TimeoutError) as error:
            raise self._translate(error) from error
        finally:
            client.close()
        return said

    async def _talk(self, client: aiosmtplib.SMTP, content: bytes, sender: str, recipient: str) -> str:
        await client.connect()
        if self._vendor.tls == "starttls":
            self._stage = Stage.TLS
            await client.starttls()
        if self._vendor.username is not None:
            self._stage = Stage.LOGIN
            await client.login(self._vendor.username, self._vendor.password.reveal() if self._vendor.password else "")
        self._stage = Stage.SENDER
        await client.mail(sender)
        self._stage = Stage.RECIPIENT
        await client.rcpt(recipient)
        self._stage = Stage.DATA
        return (await client.data(content)).message

    async def _part(self, client: aiosmtplib.SMTP) -> None:
        """Say goodbye; the message is taken, whatever comes of it."""
        with suppress(errors.SMTPException, OSError):
            async with self._clock.timeout(min(_GOODBYE, remaining(self._clock) / 2)):
                await client.quit()

    def _translate(self, error: Exception) -> CallFailed:
        row = meaning(error)
        if self._stage is Stage.DATA:
            return self._failure(
                Cause.UNKNOWN, f"{row.text} after DATA; it may have been taken", reason=row.reason, hard=row.hard
            )
        cause = Cause.CREDENTIAL if self._stage is Stage.LOGIN and row.reason == "not_supported" else row.cause
        nothing = "; nothing was sent" if cause is Cause.NOT_SENT else ""
        return self._failure(cause, f"{row.text} ({self._stage}){nothing}", reason=row.reason, hard=row.hard)

    def _refusal(self, code: int, text: str) -> CallFailed:
        if code < 400:  # a reply nobody expected here, or a connection closed in the middle of one
            cause = Cause.UNKNOWN if self._stage is Stage.DATA else Cause.NOT_SENT
            return self._failure(cause, f"got the reply {code} ({self._stage})", status=code, hard=True)
        cause, reason = judge(self._stage, code, text)
        words = self._without_secrets(text)
        return self._failure(
            cause,
            f"{self._stage} was answered with {code}: {words}",
            status=code,
            code=found[0] if (found := _ENHANCED.match(text)) else "",
            reason=reason,
            hard=cause is Cause.REFUSED and self._stage is Stage.CONNECT,
        )

    def _without_secrets(self, text: str) -> str:
        redactor = Redactor()
        redactor.learn(self._vendor.password)
        return " ".join(_CONTROL.sub(" ", redactor.redact(text[:_LONGEST_READ])).split())[:_LONGEST_TEXT]

    def _failure(self, cause: Cause, text: str, **facts: object) -> CallFailed:
        name, operation = self._vendor.name, self._operation
        return CallFailed.of(cause, f"{name}: {operation} {text}", provider=name, operation=operation, **facts)


def meaning(error: Exception) -> Meaning:
    """The row of the nearest class; an exception nobody knows says nothing but where it came from."""
    return next((MEANINGS[kind] for kind in type(error).__mro__ if kind in MEANINGS), Meaning("failed"))
