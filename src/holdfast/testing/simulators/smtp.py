"""A mail server, simulated: takes every message, remembers it, and fails when a plan says so."""

import asyncio
import email
import email.policy
import socket
from dataclasses import dataclass
from email.message import EmailMessage, MIMEPart
from types import TracebackType
from typing import ClassVar, Self

from holdfast.clock import Clock, SystemClock
from holdfast.testing.faults import (
    AuthExpired,
    Close,
    Drawn,
    Fault,
    Faults,
    Hang,
    RateLimited,
    Refused,
    Stage,
    Status,
)
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.listener import HOST, Listener, reset

_MAX = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Mail:
    """One message taken."""

    sender: str
    recipients: tuple[str, ...]
    content: EmailMessage


class SmtpSimulator:
    """A server on 127.0.0.1 that needs neither TLS nor a password: `async with SmtpSimulator() as server`.

    Faults are planned for `messages.send` and strike when the message is complete: `Status(451)` answers instead of
    taking it, as do `RateLimited` and `AuthExpired` with the codes for it; `Reset`, `Hang` and `Close` take it and lose
    the answer. `connect` knows `Refused`, `Close` and `Status(421)`.
    """

    vendor: ClassVar[str] = "smtp"

    def __init__(
        self,
        *,
        seed: int = 0,
        ledger: Ledger | None = None,
        faults: Faults | None = None,
        clock: Clock | None = None,
        host: str = HOST,
        port: int = 0,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.ledger = ledger if ledger is not None else Ledger(self.clock)
        self.faults = faults if faults is not None else Faults(seed)
        self.listener = Listener(self._serve, clock=self.clock, host=host, port=port)
        self.faults.meet(self.vendor, {"messages.send"}, self.clock)
        self.mails: list[Mail] = []

    @property
    def url(self) -> str:
        return f"smtp://{self.listener.address}"

    async def __aenter__(self) -> Self:
        await self.listener.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.listener.__aexit__(kind, error, trace)

    async def _serve(self, connection: socket.socket) -> None:
        fault = self.faults.draw(self.vendor, "connect").fault
        match fault:
            case None:
                await self._talk(connection, _Lines(connection))
            case Status():
                await _Lines(connection).say(f"{fault.status} not now")
            case Close():
                pass
            case _:
                if isinstance(fault, Refused):
                    self.listener.refuse(fault.seconds)
                reset(connection)

    async def _talk(self, connection: socket.socket, lines: "_Lines") -> None:
        await lines.say("220 simulated.test ESMTP")
        sender, recipients = "", list[str]()
        while (line := await lines.read()) is not None:
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    await lines.say("250-simulated.test", "250-8BITMIME", "250 SMTPUTF8")
                case "MAIL":
                    sender, recipients = _address(rest), []
                    await lines.say("250 OK")
                case "RCPT":
                    recipients.append(_address(rest))
                    await lines.say("250 OK")
                case "DATA":
                    await lines.say("354 go on")
                    body = await lines.read_message()
                    if body is None or not await self._take(connection, lines, sender, recipients, body):
                        return
                case "QUIT":
                    await lines.say("221 bye")
                    return
                case "HELO" | "RSET" | "NOOP":
                    await lines.say("250 OK")
                case _:
                    await lines.say("502 not implemented")

    async def _take(
        self, connection: socket.socket, lines: "_Lines", sender: str, recipients: list[str], body: bytes
    ) -> bool:
        """Whether the connection goes on."""
        drawn: Drawn = self.faults.draw(self.vendor, "messages.send", body=body)
        fault: Fault | None = drawn.fault
        if drawn.delay:
            await self.clock.sleep(drawn.delay)
        if fault is None or fault.stage not in (Stage.BEFORE_SEND, Stage.BEFORE_EFFECT):
            self._keep(sender, recipients, body)
        match fault:
            case Status():
                await lines.say(f"{fault.status} simulated")
            case RateLimited():
                await lines.say("451 4.7.1 too many messages, try again later")
            case AuthExpired():
                await lines.say("530 5.7.0 authentication required")
            case Close():
                return False
            case Hang():
                await self.clock.sleep(fault.seconds)
                return False
            case None:
                await lines.say(f"250 OK queued as {len(self.mails)}")
            case _:
                reset(connection)
                return False
        return True

    def _keep(self, sender: str, recipients: list[str], body: bytes) -> None:
        content = email.message_from_bytes(body, policy=email.policy.default)
        self.mails.append(Mail(sender=sender, recipients=tuple(recipients), content=content))
        told = {name: str(content.get(name, "")) for name in ("subject", "message-id")}
        body_of = content.get_body(("plain", "html"))
        told["text"] = "" if body_of is None else _text(body_of)
        for recipient in recipients:
            facts = {"to": recipient, **told}
            self.ledger.record(Kind.MESSAGE, vendor=self.vendor, id=f"{len(self.mails)}", key=recipient, facts=facts)


def _text(part: MIMEPart) -> str:
    raw = part.get_payload(decode=True)
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)


class _Lines:
    """The protocol's lines, in and out."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._read = b""

    async def say(self, *lines: str) -> None:
        data = "".join(f"{line}\r\n" for line in lines).encode()
        await asyncio.get_running_loop().sock_sendall(self._connection, data)

    async def read(self) -> str | None:
        line = await self._until(b"\r\n")
        return None if line is None else line.decode("utf-8", "replace").strip()

    async def read_message(self) -> bytes | None:
        body = await self._until(b"\r\n.\r\n")
        return None if body is None else body.replace(b"\r\n..", b"\r\n.")

    async def _until(self, end: bytes) -> bytes | None:
        while end not in self._read:
            more = await asyncio.get_running_loop().sock_recv(self._connection, 65_536)
            if not more or len(self._read) > _MAX:
                return None
            self._read += more
        found, _, self._read = self._read.partition(end)
        return found


def _address(rest: str) -> str:
    return rest.partition("<")[2].partition(">")[0]
