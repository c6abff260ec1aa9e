"""E-mail as it is written, and where it may go."""

from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import cast

import pytest

from holdfast.errors import ConfigurationError, InsecureSetup, InvalidInput, MissingCredential
from holdfast.notifications.models import Message
from holdfast.outcome import Effect
from holdfast.providers.smtp import Smtp
from holdfast.smtp.session import SmtpWire
from holdfast.values import Secret

LOCAL = Smtp(host="127.0.0.1", port=2525, sender="Clinic <clinic@example.org>")


@dataclass
class Outbox:
    """A wire that keeps what it was given."""

    sent: list[tuple[EmailMessage, str, str, Effect]] = field(
        default_factory=list[tuple[EmailMessage, str, str, Effect]]
    )

    async def send(self, mail: EmailMessage, *, sender: str, recipient: str, effect: Effect) -> str:
        self.sent.append((mail, sender, recipient, effect))
        return "2.0.0 OK: queued as 1"


async def written(message: Message, *, to: str = "ada@example.org", key: str = "k") -> EmailMessage:
    outbox = Outbox()
    await LOCAL.send(cast(SmtpWire, outbox), message, to, key=key, effect=Effect.IDEMPOTENT)
    return outbox.sent[0][0]


async def test_one_message_to_one_recipient() -> None:
    outbox = Outbox()

    accepted = await LOCAL.send(
        cast(SmtpWire, outbox), Message("See you", subject="Booking"), "ada@example.org", key="k", effect=Effect.ONCE
    )

    ((mail, sender, recipient, effect),) = outbox.sent
    assert (sender, recipient, effect) == ("clinic@example.org", "ada@example.org", Effect.ONCE)
    assert (mail["From"], mail["To"], mail["Subject"]) == ("Clinic <clinic@example.org>", "ada@example.org", "Booking")
    assert mail.get_content() == "See you\n"
    assert accepted.vendor_id == mail["Message-ID"]


async def test_the_same_dispatch_has_the_same_message_id_and_another_has_another() -> None:
    first, again, other = [(await written(Message("hi"), key=key))["Message-ID"] for key in ("k", "k", "other")]

    assert first == again != other
    assert first.endswith("@example.org>")


@pytest.mark.parametrize(
    ("message", "subject"),
    [
        (Message("First line\nsecond"), "First line"),
        (Message("text", subject="Two\r\nBcc: eve@example.org"), "Two Bcc: eve@example.org"),
        (Message("Grüezi 💛"), "Grüezi 💛"),
        (Message("x" * 500), "x" * 119 + "…"),
    ],
)
async def test_a_subject_is_one_line(message: Message, subject: str) -> None:
    assert (await written(message))["Subject"] == subject


@pytest.mark.parametrize(
    "address",
    ["", "ada", "ada@", "@example.org", "a@b@c", "ada@example.org\nBcc: x@y.z", "a b@example.org", "<ada@example.org>"],
)
async def test_what_is_no_address_is_refused_before_anything_is_sent(address: str) -> None:
    with pytest.raises(InvalidInput):
        await written(Message("hi"), to=address)


@pytest.mark.parametrize(
    ("host", "port", "tls", "live"),
    [
        ("mail.example.org", 587, "starttls", True),
        ("mail.example.org", 465, "implicit", True),
        ("127.0.0.1", 2525, "plain", False),
        ("localhost", 2525, "plain", False),
        ("::1", 2525, "plain", False),
    ],
)
def test_mail_leaves_this_machine_only_encrypted(host: str, port: int, tls: str, live: bool) -> None:
    server = Smtp(host=host, port=port, sender="a@example.org")

    assert (server.tls, server.live) == (tls, live)


def test_plain_to_another_machine_is_refused() -> None:
    with pytest.raises(InsecureSetup):
        Smtp(host="mail.example.org", sender="a@example.org", tls="plain")


@pytest.mark.parametrize("sender", ["", "clinic", "Clinic <clinic>", "a@example.org\nBcc: x@y.z"])
def test_a_sender_is_an_address(sender: str) -> None:
    with pytest.raises(ConfigurationError):
        Smtp(host="127.0.0.1", sender=sender)


def test_the_password_does_not_show() -> None:
    assert "hunter2" not in repr(Smtp(host="127.0.0.1", sender="a@b.c", username="u", password=Secret("hunter2")))


@pytest.mark.parametrize(
    ("url", "host", "port", "username", "password", "tls"),
    [
        ("smtp://ada:p%40ss@mail.example.org:2587", "mail.example.org", 2587, "ada", "p@ss", "starttls"),
        ("smtp://mail.example.org", "mail.example.org", 587, None, None, "starttls"),
        ("smtps://ada:x@mail.example.org", "mail.example.org", 465, "ada", "x", "implicit"),
        ("smtp://127.0.0.1:2525", "127.0.0.1", 2525, None, None, "plain"),
    ],
)
def test_from_env_reads_the_address(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    host: str,
    port: int,
    username: str | None,
    password: str | None,
    tls: str,
) -> None:
    monkeypatch.setenv("SMTP_URL", url)
    monkeypatch.setenv("SMTP_SENDER", "clinic@example.org")

    server = Smtp.from_env()

    assert (server.host, server.port, server.username, server.tls) == (host, port, username, tls)
    assert (server.password.reveal() if server.password else None) == password


@pytest.mark.parametrize("url", ["http://mail.example.org", "mail.example.org:587", "smtp://:25", "smtp://h:notaport"])
def test_another_kind_of_address_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SMTP_URL", url)
    monkeypatch.setenv("SMTP_SENDER", "clinic@example.org")

    with pytest.raises(ConfigurationError, match="SMTP_URL") as raised:
        Smtp.from_env()
    assert url not in str(raised.value)


@pytest.mark.parametrize("missing", ["SMTP_URL", "SMTP_SENDER"])
def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://127.0.0.1:2525")
    monkeypatch.setenv("SMTP_SENDER", "clinic@example.org")
    monkeypatch.delenv(missing)

    with pytest.raises(MissingCredential, match=missing):
        Smtp.from_env()
