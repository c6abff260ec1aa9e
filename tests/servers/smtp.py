"""A real SMTP server in a thread, which refuses, greylists or hangs up as it is told."""

import asyncio
import email
import email.policy
import threading
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.servers.ports import LOOPBACK


@dataclass(frozen=True, kw_only=True)
class ReceivedMail:
    """A message with the envelope it came in."""

    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage


class _Listener(Controller):
    """A controller that lets the kernel choose the port."""

    port: int

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]  # has no annotations


class SmtpServer:
    """Take mail on the loopback and keep it.

    `refuse` maps a recipient to the reply it always gets, `greylist` holds the recipients that get a 451 the first
    time. With `drop_after_data` the message is kept, but the connection closes before the 250.
    """

    host = LOOPBACK
    port: int

    def __init__(self, *, refuse: dict[str, str] | None = None, drop_after_data: bool = False) -> None:
        self.refuse = dict(refuse or {})
        self.greylist: set[str] = set()
        self.drop_after_data = drop_after_data
        self._messages: list[ReceivedMail] = []
        self._lock = threading.Lock()
        self._listener: _Listener | None = None

    @property
    def messages(self) -> tuple[ReceivedMail, ...]:
        """What has arrived so far, oldest first."""
        with self._lock:
            return tuple(self._messages)

    def start(self) -> None:
        """Listen on a free port."""
        self._listener = _Listener(self, hostname=self.host, port=0, server_hostname="smtp.test")
        self._listener.start()
        self.port = self._listener.port

    def stop(self) -> None:
        """Hang up on everybody and end the thread."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # aiosmtpd looks its hooks up by the name of the command
    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Accept the recipient, or answer what it was given."""
        if address in self.refuse:
            return self.refuse[address]
        if address in self.greylist:
            self.greylist.discard(address)
            return "451 4.7.1 greylisted, try again later"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep the message, then answer or hang up."""
        assert envelope.mail_from is not None
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        with self._lock:
            self._messages.append(
                ReceivedMail(sender=envelope.mail_from, recipients=tuple(envelope.rcpt_tos), message=message)
            )
            queue_id = len(self._messages)
        if self.drop_after_data:
            assert server.transport is not None
            server.transport.close()  # what is written after this never leaves
        return f"250 2.0.0 OK: queued as {queue_id}"
