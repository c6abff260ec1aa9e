"""E-mail by SMTP: any mail server that takes submissions."""

import hashlib
import ipaddress
import os
import re
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import parseaddr
from typing import TYPE_CHECKING, Final, Literal, Self
from urllib.parse import unquote, urlsplit

from holdfast.errors import ConfigurationError, InsecureSetup, InvalidInput
from holdfast.notifications.models import Accepted, Message
from holdfast.notifications.provider import Capabilities, Wire
from holdfast.outcome import Effect
from holdfast.values import Secret, require_env, secret_from_env

if TYPE_CHECKING:
    from holdfast.smtp.session import SmtpWire

Tls = Literal["starttls", "implicit", "plain"]

SUBMISSION: Final = 587
IMPLICIT_TLS: Final = 465
LONGEST_SUBJECT: Final = 120

# Not the whole of RFC 5321, only what cannot be mistaken for two addresses, a header or a command.
_ADDRESS: Final = re.compile(r"[!-;=?A-~]{1,64}@[A-Za-z0-9.\-\[\]:]{1,255}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Smtp:
    """Send e-mail through a mail server.

    Without `tls` it is STARTTLS, on port 465 TLS from the first byte, and nothing on this machine. `sender` is an
    address or `Clinic <clinic@example.org>`.
    """

    host: str
    sender: str
    port: int = SUBMISSION
    username: str | None = None
    password: Secret | None = None
    tls: Tls | None = None
    ca_file: str | None = None
    """Certificates to trust instead of the system's, for a server with its own authority."""
    name: str = "smtp"

    # A second submission is a second mail: no server honours a key. Equal Message-IDs let mail programs show it once.
    capabilities = Capabilities(channel="email", max_length=1_000_000, effect=Effect.ONCE)
    wire = Wire.SMTP

    def __post_init__(self) -> None:
        """Raises InsecureSetup, ConfigurationError."""
        if self.tls is None:
            usual: Tls = "starttls" if self.live else "plain"
            object.__setattr__(self, "tls", "implicit" if self.port == IMPLICIT_TLS else usual)
        if self.tls == "plain" and self.live:
            raise InsecureSetup(f'{self.name}: plain SMTP is for localhost only; use tls="starttls" or "implicit"')
        if not _ADDRESS.fullmatch(self.sender_address) or not self.sender.isprintable():
            raise ConfigurationError(f"{self.name}: {self.sender!r} is no sender; write an address")

    @classmethod
    def from_env(cls) -> Self:
        """With SMTP_URL (`smtp://user:password@mail.example.org:587`, `smtps://…:465`) and SMTP_SENDER.

        User and password are URL-encoded: `@` is `%40`.

        Raises:
            MissingCredential: One of them is unset or empty.
            ConfigurationError: SMTP_URL is no such address.
        """
        require_env(
            {
                "SMTP_URL": "your mail server: smtp://user:password@host:587 or smtps://user:password@host:465",
                "SMTP_SENDER": "from whom mail comes, and where bounces go",
            }
        )
        url, sender = secret_from_env("SMTP_URL").reveal(), secret_from_env("SMTP_SENDER").reveal()
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if parts.scheme not in ("smtp", "smtps") or not host:
            raise ConfigurationError("SMTP_URL is smtp://user:password@host:587 or smtps://user:password@host:465")
        implicit = parts.scheme == "smtps"
        return cls(
            host=host,
            port=port or (IMPLICIT_TLS if implicit else SUBMISSION),
            username=unquote(parts.username) if parts.username else None,
            password=Secret(unquote(parts.password)) if parts.password else None,
            tls="implicit" if implicit else None,
            ca_file=os.environ.get("SMTP_CA_FILE") or None,
            sender=sender,
        )

    @property
    def live(self) -> bool:
        """Whether real people may be at the other end: everywhere but on this machine."""
        try:
            return not (self.host.rstrip(".") == "localhost" or ipaddress.ip_address(self.host).is_loopback)
        except ValueError:
            return True

    @property
    def sender_address(self) -> str:
        """The envelope's sender, where bounces go."""
        return parseaddr(self.sender)[1]

    def message_id(self, key: str) -> str:
        """The same for the same dispatch, however often it is submitted."""
        digest = hashlib.sha256(f"holdfast {self.name} {key}".encode()).hexdigest()[:32]
        return f"<{digest}@{self.sender_address.rpartition('@')[2]}>"

    async def send(self, wire: "SmtpWire", message: Message, address: str, *, key: str, effect: Effect) -> Accepted:
        """MAIL, RCPT, DATA: one recipient, one message.

        Raises:
            InvalidInput: The address is no plain e-mail address.
        """
        if not _ADDRESS.fullmatch(address):
            raise InvalidInput("that is no e-mail address; one plain address in ASCII")
        mail = self.render(message, address, key=key)
        await wire.send(mail, sender=self.sender_address, recipient=address, effect=effect)
        return Accepted(vendor_id=mail["Message-ID"])

    def render(self, message: Message, address: str, *, key: str) -> EmailMessage:
        """The message as e-mail: plain text, its first line as the subject where it has none."""
        mail = EmailMessage()
        mail["From"] = self.sender
        mail["To"] = address
        mail["Subject"] = _subject(message)
        mail["Message-ID"] = self.message_id(key)
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: out-of-office robots do not answer
        mail.set_content(message.text)
        return mail


def _subject(message: Message) -> str:
    first_line = message.text.strip().splitlines()[0]
    subject = " ".join((message.subject or first_line).split())
    return subject if len(subject) <= LONGEST_SUBJECT else f"{subject[: LONGEST_SUBJECT - 1]}…"
