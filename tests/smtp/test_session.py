"""SMTP sessions against a real server, and one that breaks off where it is told."""

import asyncio
import inspect
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage

import aiosmtplib.errors
import pytest

from holdfast.clock import SystemClock
from holdfast.errors import CallFailed, InsecureSetup
from holdfast.notifications.models import Message
from holdfast.outcome import Cause, Effect
from holdfast.providers.smtp import Smtp
from holdfast.resilience.context import deadline_scope
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Policy
from holdfast.smtp.session import MEANINGS, REPLIES, SmtpWire, Stage, Tls, judge, meaning
from holdfast.testing.clock import ManualClock
from holdfast.values import Secret
from tests.servers.smtp import SmtpServer

BARE = Policy(retry=None, breaker=None)
"""Each failure as it is: nothing repeated, nothing held back."""


async def tell(port: int, to: str = "ada@example.org", **facts: object) -> None:
    provider = Smtp(host="127.0.0.1", port=port, sender="clinic@example.org", **facts)  # type: ignore[arg-type]
    wire = SmtpWire(provider, Guard("smtp", BARE), SystemClock())
    await provider.send(wire, Message("Grüezi\n.dot"), to, key="k", effect=Effect.ONCE)
    await wire.aclose()


async def failure(port: int, to: str = "ada@example.org", **facts: object) -> CallFailed:
    with pytest.raises(CallFailed) as raised:
        await tell(port, to, **facts)
    assert raised.value.provider == "smtp"
    return raised.value


async def test_a_message_arrives_whole(smtp: SmtpServer) -> None:
    await tell(smtp.port)

    (mail,) = smtp.messages
    assert (mail.sender, mail.recipients) == ("clinic@example.org", ("ada@example.org",))
    assert mail.message.get_content() == "Grüezi\n.dot\n"
    assert mail.message["Date"]
    assert mail.message["Message-ID"]


@pytest.mark.parametrize(
    ("reply", "cause", "reason"),
    [
        ("550 5.1.1 no such user", Cause.REJECTED, "recipient_gone"),
        ("550 no such user", Cause.REJECTED, "recipient_gone"),
        ("553 5.1.3 bad address", Cause.REJECTED, "recipient_gone"),
        ("550 5.7.1 refused by policy", Cause.REJECTED, "policy"),
        ("552 5.2.2 mailbox full", Cause.REJECTED, "mailbox_full"),
        ("452 4.2.2 mailbox full", Cause.THROTTLED, "mailbox_full"),
        ("450 4.2.1 busy", Cause.THROTTLED, "greylisted"),
        ("530 5.7.0 authenticate first", Cause.CREDENTIAL, "login"),
    ],
)
async def test_a_refused_recipient_is_judged_by_number(reply: str, cause: Cause, reason: str) -> None:
    with SmtpServer(refuse={"ada@example.org": reply}) as server:
        error = await failure(server.port)
        await tell(server.port, "bob@example.org")

    assert (error.cause, error.reason, error.status) == (cause, reason, int(reply[:3]))
    assert [mail.recipients for mail in server.messages] == [("bob@example.org",)]


async def test_a_greylisted_recipient_is_taken_the_second_time(smtp: SmtpServer) -> None:
    smtp.greylist.add("ada@example.org")

    error = await failure(smtp.port)
    await tell(smtp.port)

    assert (error.cause, error.status, error.code) == (Cause.THROTTLED, 451, "4.7.1")
    assert len(smtp.messages) == 1


async def test_a_connection_lost_after_data_leaves_the_outcome_unknown() -> None:
    with SmtpServer(drop_after_data=True) as server:
        error = await failure(server.port)

    assert error.cause is Cause.UNKNOWN
    assert len(server.messages) == 1


async def test_a_refused_connection_sent_nothing(smtp: SmtpServer) -> None:
    smtp.stop()

    error = await failure(smtp.port)

    assert (error.cause, error.hard) == (Cause.NOT_SENT, True)


async def test_a_server_without_login_is_not_given_a_password(smtp: SmtpServer) -> None:
    error = await failure(smtp.port, username="ada", password=Secret("hunter2"))

    assert error.cause is Cause.CREDENTIAL
    assert "hunter2" not in str(error)
    assert smtp.messages == ()


async def test_a_server_without_tls_gets_nothing_where_tls_is_required(smtp: SmtpServer) -> None:
    error = await failure(smtp.port, tls="starttls", username="ada", password=Secret("hunter2"))

    assert (error.cause, error.reason) == (Cause.NOT_SENT, "not_supported")
    assert smtp.messages == ()


async def test_tls_spoken_to_a_plain_server_sent_nothing(smtp: SmtpServer) -> None:
    error = await failure(smtp.port, tls="implicit")

    assert (error.cause, error.hard) == (Cause.NOT_SENT, True)


# A server that says what it is told, line for line


@asynccontextmanager
async def scripted(*replies: str | None, silent: asyncio.Event | None = None) -> AsyncGenerator[int]:
    """Greets with the first reply, answers each line with the next; None closes, the last one stays.

    `silent` is set when it was asked what it has no reply to any more.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        in_data = False
        try:
            for reply in replies:
                if reply is None:
                    return
                writer.write(f"{reply}\r\n".encode())
                await writer.drain()
                if reply.startswith("354"):
                    in_data = True
                while (line := await reader.readline()) and in_data and line != b".\r\n":
                    pass
                in_data = False
            if silent is not None:
                silent.set()
            await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


OK = "250 OK"


@pytest.mark.parametrize(
    ("replies", "cause", "reason"),
    [
        ((None,), Cause.NOT_SENT, "connect"),
        (("421 too busy", OK), Cause.REFUSED, ""),
        (("554 not you", OK), Cause.REFUSED, ""),
        (("220 hello", None), Cause.NOT_SENT, "reset"),
        (("220 hello", OK, None), Cause.NOT_SENT, "reset"),
        (("220 hello", OK, "451 later"), Cause.REFUSED, ""),
        (("220 hello", OK, "550 5.7.1 not this sender"), Cause.REJECTED, "sender_refused"),
        (("220 hello", OK, OK, None), Cause.NOT_SENT, "reset"),
        (("220 hello", OK, OK, "354 what?"), Cause.NOT_SENT, ""),
        (("220 hello", OK, OK, OK, "250 what?"), Cause.UNKNOWN, ""),
        (("220 hello", OK, OK, OK, None), Cause.UNKNOWN, "reset"),
        (("220 hello", OK, OK, OK, "451 no space"), Cause.REFUSED, ""),
        (("220 hello", OK, OK, OK, "354 go", None), Cause.UNKNOWN, "reset"),
        (("220 hello", OK, OK, OK, "354 go", "552 5.3.4 too large"), Cause.REJECTED, "content_invalid"),
        (("220 hello", OK, OK, OK, "354 go", "451 4.3.0 later"), Cause.REFUSED, ""),
    ],
)
async def test_how_far_it_came_decides_what_a_broken_session_proves(
    replies: tuple[str | None, ...], cause: Cause, reason: str
) -> None:
    async with scripted(*replies) as port:
        error = await failure(port)

    assert (error.cause, error.reason) == (cause, reason)


async def test_a_goodbye_that_fails_does_not_untell_the_message() -> None:
    async with scripted("220 hello", OK, OK, OK, "354 go", "250 taken", None) as port:
        await tell(port)


@pytest.mark.parametrize(
    ("replies", "cause"),
    [(("220 hello",), Cause.NOT_SENT), (("220 hello", OK, OK, OK, "354 go"), Cause.UNKNOWN)],
)
async def test_a_silent_server_costs_no_more_than_the_deadline(replies: tuple[str, ...], cause: Cause) -> None:
    clock = ManualClock()
    mail = EmailMessage()
    mail.set_content("hi")

    async def send(port: int) -> None:
        provider = Smtp(host="127.0.0.1", port=port, sender="clinic@example.org")
        with deadline_scope(2, clock):
            await SmtpWire(provider, Guard("smtp", BARE, clock=clock), clock).send(
                mail, sender="clinic@example.org", recipient="ada@example.org", effect=Effect.ONCE
            )

    silent = asyncio.Event()
    async with scripted(*replies, silent=silent) as port:
        sending = asyncio.ensure_future(send(port))
        await silent.wait()
        assert not sending.done()
        await clock.advance(1.9)
        with pytest.raises(CallFailed) as raised:
            await sending

    assert raised.value.cause is cause
    assert raised.value.reason == "timeout"


# The tables


def test_every_exception_of_aiosmtplib_has_a_meaning() -> None:
    theirs = {
        kind
        for kind in vars(aiosmtplib.errors).values()
        if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__.startswith("aiosmtplib")
    }

    assert theirs - MEANINGS.keys() - REPLIES == set()
    assert all(issubclass(kind, aiosmtplib.errors.SMTPResponseException) for kind in REPLIES)


def test_an_exception_nobody_knows_is_still_a_failure() -> None:
    assert meaning(RuntimeError("?")).cause is Cause.NOT_SENT
    assert meaning(ssl.SSLCertVerificationError("?")).reason == "tls"


@pytest.mark.parametrize(
    ("stage", "code", "cause"),
    [
        (Stage.LOGIN, 535, Cause.CREDENTIAL),
        (Stage.LOGIN, 454, Cause.REFUSED),
        (Stage.SENDER, 530, Cause.CREDENTIAL),
        (Stage.SENDER, 452, Cause.REFUSED),
        (Stage.RECIPIENT, 554, Cause.REJECTED),
        (Stage.RECIPIENT, 421, Cause.THROTTLED),
        (Stage.DATA, 554, Cause.REJECTED),
        (Stage.CONNECT, 554, Cause.REFUSED),
        (Stage.TLS, 454, Cause.REFUSED),
    ],
)
def test_a_code_is_read_by_its_stage(stage: Stage, code: int, cause: Cause) -> None:
    assert judge(stage, code, "")[0] is cause


@dataclass(frozen=True)
class Open:
    """A vendor that would speak in clear over the network."""

    name: str = "smtp"
    host: str = "mail.example.org"
    port: int = 25
    tls: Tls | None = "plain"
    ca_file: str | None = None
    username: str | None = None
    password: Secret | None = None
    live: bool = True


def test_the_wire_refuses_to_speak_in_clear_to_another_machine() -> None:
    with pytest.raises(InsecureSetup):
        SmtpWire(Open(), Guard("smtp", BARE), ManualClock())
