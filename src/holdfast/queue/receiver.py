"""The door: an ASGI app that answers a vendor 2xx only when what it sent is on disk."""

import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Any, Final
from urllib.parse import quote, urlsplit

from holdfast.clock import Clock
from holdfast.errors import InvalidInput, NotOpen, StoreError
from holdfast.queue.backlog import Backlog
from holdfast.queue.bodies import HungUp, Receive, TooLarge, read, unpack
from holdfast.queue.inbox import MOST_CONFLICTS, receipt, to_conflict, to_job, unread
from holdfast.queue.intake import MAX_BODY, Intake, ReceiverLimits, Source
from holdfast.queue.patience import Patience
from holdfast.queue.quarantine import Quarantine
from holdfast.queue.signals import OldSecretUsed
from holdfast.queue.upkeep import Upkeep
from holdfast.queue.wsgi import Opened, WsgiReceiver
from holdfast.stores.store import Added, Jobs, NewJob
from holdfast.telemetry import DeliveryArrived, Security, Telemetry
from holdfast.values import Secrets
from holdfast.webhooks.door import DoorFacts, ReceivesWebhooks, SupportsDoorFacts, SupportsProbes
from holdfast.webhooks.request import Answer, Delivery, RawRequest, ReceivedHeaders
from holdfast.webhooks.signatures import KeyedUrl, Verdict

__all__ = ["MAX_BODY", "Receiver", "ReceiverLimits"]

log = logging.getLogger("holdfast.receiver")

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

READ_TIMEOUT: Final = 10.0
STORE_TIMEOUT: Final = 1.0
RETRY_AFTER: Final = (5.0, 10.0)
"""Seconds; each vendor's request gets another figure between, so that they do not all come back at once."""
DELIVER: Final = ("POST", "PUT")
"""By which vendors deliver: nearly all by the first, MTN by the second."""
OUTCOMES: Final = {Added.NEW: "accepted", Added.DUPLICATE: "duplicate", Added.CONFLICT: "conflict"}


@dataclass(slots=True, eq=False)
class _Door:
    """A provider, and what is the same for each of its requests."""

    provider: ReceivesWebhooks
    name: str
    url: str
    facts: DoorFacts
    max_body: int
    source: Source
    keyed: KeyedUrl | None
    """How its URL is verified, where the vendor signs nothing."""
    probes: SupportsProbes | None
    upkeep: Upkeep | None


class _Unjudged(Exception):
    """What would prove the request cannot be had now."""


class Receiver:
    """Mount it where `public_url` points: `app.mount("/webhooks", hub.receiver)`.

    `/{provider}` for vendors that sign, `/{provider}/{attempt}.{mac}` for those that do not.
    """

    def __init__(
        self,
        doors: Mapping[str, ReceivesWebhooks],
        jobs: Callable[[], Jobs],
        secret: Callable[[], Secrets],
        *,
        public_url: str | None,
        clock: Clock,
        chance: random.Random,
        telemetry: Telemetry,
        redact: Callable[[str], str] = str,
        backlog: Backlog | None = None,
        opened: Opened | None = None,
        limits: ReceiverLimits | None = None,
        upkeep: Mapping[str, Upkeep] | None = None,
    ) -> None:
        """`redact` takes secrets out of what is kept in `quarantine`; `upkeep` looks after providers, by name."""
        limits = limits or ReceiverLimits()
        self._jobs = jobs
        self._secret = secret
        self._public_url = public_url or ""
        self._clock = clock
        self._chance = chance
        self._telemetry = telemetry
        self._backlog = backlog
        self._opened = opened
        self._limits = limits
        self._intake = Intake(limits)
        self._reading = Patience(READ_TIMEOUT, clock)
        self._storing = Patience(STORE_TIMEOUT, clock)
        self.quarantine = Quarantine(clock, redact)
        """What was refused: `counts` of all, and the last that were `kept`."""
        self._upkeep = upkeep or {}
        self._doors = {name: self._prepare(name, provider) for name, provider in doors.items()}
        self._by_path = {f"/{name}": door for name, door in self._doors.items()}

    @cached_property
    def wsgi(self) -> WsgiReceiver:
        """The same door for Flask, Django and every other WSGI server."""
        if self._opened is None:
            raise NotOpen("this receiver has no hub to open")
        most = max((door.max_body for door in self._doors.values()), default=self._limits.max_body)
        return WsgiReceiver(self, self._opened, max_body=most)

    @property
    def root_path(self) -> str:
        """The path of `public_url`, below which vendors call."""
        return urlsplit(self._public_url).path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "websocket":  # anybody may ask for one, and an exception would be answered with 500
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            raise RuntimeError("the receiver speaks HTTP only; run the hub's lifespan in the app it is mounted in")
        answer = await self._answer(scope, receive)
        body = answer.body
        headers = [(b"content-type", answer.content_type.encode()), (b"content-length", b"%d" % len(body))]
        if answer.headers:
            headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _prepare(self, name: str, provider: ReceivesWebhooks) -> _Door:
        facts = provider.door if isinstance(provider, SupportsDoorFacts) else DoorFacts()
        return _Door(
            provider=provider,
            name=name,
            url=f"{self._public_url}/{name}",
            facts=facts,
            max_body=facts.max_body or self._limits.max_body,
            source=self._intake.source(signed=provider.scheme is not None),
            keyed=KeyedUrl(name) if provider.scheme is None else None,
            probes=provider if isinstance(provider, SupportsProbes) else None,
            upkeep=self._upkeep.get(name),
        )

    # In the order in which it happens: where to, how much, who, what, kept.

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path = _path(scope)
        door, ticket = self._by_path.get(path), ""
        if door is None:
            name, _, ticket = path.strip("/").partition("/")
            door = self._doors.get(name)
            if door is None:
                return NO_SUCH_DOOR
        address = None
        if door.keyed is not None or scope["method"] not in DELIVER:
            early = self._look_at_url(door, self._request(scope, door, path, b""), _client(scope))
            if early is not None:
                return early
            address = self._intake.address(_client(scope))
        wait = door.source.admit(self._clock.monotonic(), address)
        if wait:
            return self._later(door, "rate", at_least=wait)
        try:
            if len(self._reading) >= self._limits.reading:
                self._reading.give_up_oldest()
            with self._reading.limit():
                body = await read(receive, door.max_body)
        except TooLarge:
            return self._refuse(door, 413, "too_large", f"the body is over {door.max_body} bytes")
        except TimeoutError:
            return self._later(door, "slow_body")
        except HungUp:
            return self._later(door, "hung_up")
        if not door.source.hold(len(body)):
            return self._later(door, "memory")
        try:
            return await self._judge(door, self._request(scope, door, path, body), scope, ticket)
        finally:
            door.source.let_go(len(body))
            if door.upkeep is not None:
                door.upkeep.begin()

    def _look_at_url(self, door: _Door, request: RawRequest, client: str) -> Answer | None:
        """What can be said before a body is read; None: it is to be read."""
        try:
            verdict = self._verify(door, request) if door.keyed is not None else VALID
        except _Unjudged as error:
            return self._later(door, "secret", hint=f"no request can be verified: {error}")
        if not verdict.valid:  # who cannot know the URL is told nothing about it
            return self._refuse(door, 404, verdict.reason, verdict.hint, request, client)
        return None if request.method in DELIVER else _probe(door, request)

    async def _judge(self, door: _Door, request: RawRequest, scope: Scope, ticket: str) -> Answer:
        if door.keyed is None:
            try:
                verdict = self._verify(door, request)
            except _Unjudged as error:
                return self._later(door, "secret", hint=f"no request can be verified: {error}")
            if not verdict.valid:
                return self._refuse(door, door.facts.refused, verdict.reason, verdict.hint, request, _client(scope))
            if verdict.secret:
                self._telemetry.emit(OldSecretUsed(door.name, verdict.secret))
            ticket = ""
        try:
            found = self._read(door, request)
        except TooLarge:
            hint = f"the body is over {door.max_body} bytes once it is unpacked"
            return self._refuse(door, 413, "too_large", hint, request, _client(scope))
        if isinstance(found, Answer):
            self._telemetry.emit(DeliveryArrived(door.name, "handshake", "", ""))
            return found
        return await self._accept(door, *found, ticket.rpartition(".")[0])

    def _verify(self, door: _Door, request: RawRequest) -> Verdict:
        """Raises _Unjudged: nobody can say."""
        try:
            if door.keyed is not None:
                return door.keyed.verify(request, self._secret())
            scheme, secrets = door.provider.scheme, door.provider.webhook_secrets
            if scheme is None or secrets is None:
                return NO_SECRET
            return scheme.verify(request, secrets)
        except Exception as error:  # the border to where secrets come from, and to a provider's own scheme
            raise _Unjudged(type(error).__name__) from error

    def _read(self, door: _Door, request: RawRequest) -> tuple[RawRequest, Sequence[Delivery]] | Answer:
        """What is in a verified request, unpacked. Raises TooLarge."""
        try:
            if request.all("content-encoding"):
                request = _unpacked(request, door.max_body)
            handshake = door.provider.handshake(request)
            return (request, door.provider.parse(request)) if handshake is None else handshake
        except TooLarge:
            raise
        except Exception:  # the border to a provider: it is authentic, so it is kept, whatever reading it raises
            return request, [unread(request)]

    async def _accept(
        self, door: _Door, request: RawRequest, deliveries: Sequence[Delivery], attempt_id: str
    ) -> Answer:
        try:
            if self._backlog is not None and (full := self._backlog.refuses(signed=door.keyed is None)):
                return self._later(door, full)
            with self._storing.limit():
                kept, added = await self._keep(door.name, request, deliveries, attempt_id)
        except (StoreError, NotOpen, TimeoutError) as error:
            return self._later(door, type(error).__name__)
        if self._backlog is not None:
            self._backlog.took(len(kept), len(request.body))
        for result in added:
            if result is not Added.NEW or self._telemetry.hears(DeliveryArrived):
                self._tell(door.name, result)
        body = b'{"received": %d, "receipt": "%s"}' % (len(kept), receipt(kept))
        return Answer(status=door.facts.accepted, body=body)

    async def _keep(
        self, name: str, request: RawRequest, deliveries: Sequence[Delivery], attempt_id: str
    ) -> tuple[Sequence[NewJob], Sequence[Added]]:
        jobs = self._jobs()
        given = [to_job(name, each, request, attempt_id=attempt_id) for each in deliveries]
        try:
            added = await jobs.add(given)
        except InvalidInput:  # a text in it that no store can hold; the bytes can be held
            given = [to_job(name, unread(request), request, attempt_id=attempt_id)]
            added = await jobs.add(given)
        if Added.CONFLICT in added:
            for job, result in zip(given, added, strict=True):
                if result is Added.CONFLICT:
                    await _keep_conflict(jobs, job)
        return given, added

    # What is answered, and told of.

    def _tell(self, name: str, result: Added) -> None:
        self._telemetry.emit(DeliveryArrived(name, OUTCOMES[result], "", ""))
        if result is Added.CONFLICT:
            self._telemetry.emit(Security("one delivery id with two bodies", name, ""))

    def _refuse(
        self, door: _Door, status: int, reason: str, hint: str, request: RawRequest | None = None, client: str = ""
    ) -> Answer:
        times = self.quarantine.count(door.name, reason)
        if times:  # of a flood not every request is worth a line
            self._telemetry.emit(DeliveryArrived(door.name, "refused", reason, hint, times))
            if request is not None:
                self.quarantine.keep(request, door.name, reason, hint, client)
        return NO_SUCH_DOOR if status == 404 else _error(status, reason)

    def _later(self, door: _Door, reason: str, *, hint: str = "", at_least: float = 0.0) -> Answer:
        """The vendor is to come again: in a code that makes it do so, and not all at the same moment."""
        times = self.quarantine.count(door.name, reason)
        if times:
            self._telemetry.emit(DeliveryArrived(door.name, "unavailable", reason, hint, times))
        return _error(
            door.facts.later, "try again", ("retry-after", str(ceil(at_least + self._chance.uniform(*RETRY_AFTER))))
        )

    def _request(self, scope: Scope, door: _Door, path: str, body: bytes) -> RawRequest:
        url, query = door.url, scope.get("query_string", b"")
        if query or path not in self._by_path:
            url = self._public_url + quote(path, safe="/.:-_~", errors="replace")
            url += f"?{query.decode('latin-1')}" if query else ""
        return RawRequest(
            method=scope["method"],
            url=url,
            headers=ReceivedHeaders(scope["headers"]),
            body=body,
            received_at=self._clock.now(),
        )


async def _keep_conflict(jobs: Jobs, job: NewJob) -> None:
    """Keep it aside for a person, unless it is there already, or so many others are."""
    for number in range(MOST_CONFLICTS):
        [added] = await jobs.add([to_conflict(job, number)])
        if added is not Added.CONFLICT:
            return


def _unpacked(request: RawRequest, most: int) -> RawRequest:
    """Raises TooLarge, ValueError."""
    body = unpack(request.body, ",".join(request.all("content-encoding")), most)
    return replace(request, body=body, headers=[each for each in request.headers if each[0] != "content-encoding"])


def _probe(door: _Door, request: RawRequest) -> Answer:
    """To whatever delivers nothing."""
    answer = None
    if door.probes is not None and request.method in ("GET", "HEAD"):
        try:
            answer = door.probes.probe(request)
        except Exception as error:  # the border to a provider: nothing in the request is proven
            log.warning("%s: a probe could not be read: %s", door.name, type(error).__name__)
    probed = () if door.probes is None else ("GET", "HEAD")
    return answer or _error(405, "POST or PUT only", ("allow", ", ".join((*probed, *DELIVER))))


def _path(scope: Scope) -> str:
    """The path below the mount: servers differ in whether `path` still holds `root_path`."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path


def _client(scope: Scope) -> str:
    """Whose address it is: behind a proxy the server has to be told to trust what that says."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _error(status: int, words: str, *headers: tuple[str, str]) -> Answer:
    return Answer(status=status, body=json.dumps({"error": words}).encode(), headers=headers)


VALID: Final = Verdict(valid=True)
NO_SECRET: Final = Verdict(valid=False, reason="no_secret", hint="configure the provider's webhook secret")
NO_SUCH_DOOR: Final = _error(404, "no such door")
