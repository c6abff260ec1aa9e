"""The door: an ASGI app that answers a vendor 2xx only when what it sent is on disk."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlsplit

from holdfast.clock import Clock
from holdfast.errors import InvalidInput, NotOpen, StoreError
from holdfast.queue.backlog import Backlog
from holdfast.queue.inbox import to_job
from holdfast.queue.wsgi import Opened, WsgiReceiver
from holdfast.stores.store import Added, Jobs
from holdfast.telemetry import DeliveryArrived, Security, Telemetry
from holdfast.values import Secrets
from holdfast.webhooks.door import ReceivesWebhooks
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import KeyedUrl, Verdict

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY = 256 * 1024
READ_TIMEOUT = 10.0
STORE_TIMEOUT = 1.0


class TooLarge(Exception):
    """The body is over the cap."""


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
        telemetry: Telemetry,
        backlog: Backlog | None = None,
        opened: Opened | None = None,
        max_body: int = MAX_BODY,
    ) -> None:
        self._doors = doors
        self._jobs = jobs
        self._secret = secret
        self._public_url = public_url or ""
        self._clock = clock
        self._telemetry = telemetry
        self._backlog = backlog
        self._opened = opened
        self._max_body = max_body

    @cached_property
    def wsgi(self) -> WsgiReceiver:
        """The same door for Flask, Django and every other WSGI server."""
        if self._opened is None:
            raise NotOpen("this receiver has no hub to open")
        return WsgiReceiver(self, self._opened, max_body=self._max_body)

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
        answer = await self._receive(scope, receive)
        headers = [(b"content-type", answer.content_type.encode()), (b"content-length", b"%d" % len(answer.body))]
        if answer.status == 503:
            headers.append((b"retry-after", b"5"))
        if answer.status == 405:
            headers.append((b"allow", b"POST"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _receive(self, scope: Scope, receive: Receive) -> Answer:
        name, _, ticket = _path(scope).strip("/").partition("/")
        door = self._doors.get(name)
        if door is None:
            return _answer(404, error="no such door")
        if scope["method"] != "POST":
            return _answer(405, error="POST only")
        try:
            async with self._clock.timeout(READ_TIMEOUT):
                body = await self._read(receive)
        except TooLarge:
            return self._refuse(name, 413, "too_large", f"the body is over {self._max_body} bytes")
        except TimeoutError:
            return self._refuse(name, 408, "slow_body", "the body did not arrive in time")
        request = self._request(scope, body)
        verdict, attempt_id = self._verify(door, request, ticket)
        if not verdict.valid:
            # Who cannot know the URL is told nothing about it; who signs wrongly is told to sign rightly.
            status = 404 if door.scheme is None else 401
            return self._refuse(name, status, verdict.reason, verdict.hint)
        return await self._accept(door, request, attempt_id)

    def _verify(self, door: ReceivesWebhooks, request: RawRequest, ticket: str) -> tuple[Verdict, str]:
        if door.scheme is not None:
            secrets = door.webhook_secrets
            if secrets is None:
                return Verdict(valid=False, reason="no_secret", hint="configure the provider's webhook secret"), ""
            return door.scheme.verify(request, secrets), ""
        return KeyedUrl(door.name).verify(request, self._secret()), ticket.rpartition(".")[0]

    async def _accept(self, door: ReceivesWebhooks, request: RawRequest, attempt_id: str) -> Answer:
        try:
            handshake = door.handshake(request)
            deliveries: Sequence[Delivery] = [] if handshake else door.parse(request)
        except Exception:  # the border to a provider: it is authentic, so it is kept, whatever reading it raises
            handshake, deliveries = None, [_unread(request)]
        if handshake is not None:
            self._telemetry.emit(DeliveryArrived(door.name, "handshake", "", ""))
            return handshake
        try:
            if self._backlog is not None and self._backlog.is_full():
                self._telemetry.emit(DeliveryArrived(door.name, "unavailable", "backlog", ""))
                return _answer(503, error="try again")
            async with self._clock.timeout(STORE_TIMEOUT):
                added = await self._keep(door, request, deliveries, attempt_id)
        except (StoreError, NotOpen, TimeoutError) as error:
            self._telemetry.emit(DeliveryArrived(door.name, "unavailable", type(error).__name__, ""))
            return _answer(503, error="try again")
        for result in added:
            self._tell(door.name, result)
        return _answer(200, received=len(added))

    async def _keep(
        self, door: ReceivesWebhooks, request: RawRequest, deliveries: Sequence[Delivery], attempt_id: str
    ) -> Sequence[Added]:
        jobs = self._jobs()
        try:
            return await jobs.add([to_job(door.name, each, request, attempt_id=attempt_id) for each in deliveries])
        except InvalidInput:  # a text in it that no store can hold; the bytes can be held
            return await jobs.add([to_job(door.name, _unread(request), request, attempt_id=attempt_id)])

    def _tell(self, name: str, result: Added) -> None:
        outcome = {Added.NEW: "accepted", Added.DUPLICATE: "duplicate", Added.CONFLICT: "conflict"}[result]
        self._telemetry.emit(DeliveryArrived(name, outcome, "", ""))
        if result is Added.CONFLICT:
            self._telemetry.emit(Security("one delivery id with two bodies", name, ""))

    def _refuse(self, name: str, status: int, reason: str, hint: str) -> Answer:
        self._telemetry.emit(DeliveryArrived(name, "refused", reason, hint))
        return _answer(status, error=reason if status != 404 else "no such door")

    async def _read(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise TimeoutError
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > self._max_body:
                raise TooLarge
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _request(self, scope: Scope, body: bytes) -> RawRequest:
        query = scope.get("query_string", b"").decode("latin-1")
        return RawRequest(
            method=scope["method"],
            url=self._public_url
            + quote(_path(scope), safe="/.:-_~", errors="replace")
            + (f"?{query}" if query else ""),
            headers=[(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in scope["headers"]],
            body=body,
            received_at=self._clock.now(),
        )


def _unread(request: RawRequest) -> Delivery:
    return Delivery(type="unparsed", dedup_key=f"unparsed/{sha256(request.body).hexdigest()}", recognised=False)


def _path(scope: Scope) -> str:
    """The path below the mount: servers differ in whether `path` still holds `root_path`."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path


def _answer(status: int, **content: object) -> Answer:
    return Answer(status=status, body=json.dumps(content).encode())
