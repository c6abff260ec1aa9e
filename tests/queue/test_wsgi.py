"""The door of a WSGI server: the same answers, from a hub in a thread of its own."""

import asyncio
import hashlib
import hmac
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from holdfast import Holdfast, Secrets, open_store
from holdfast.errors import WrongLoop
from holdfast.queue.receiver import MAX_BODY
from tests.payments.vendors import SigningVendor


class Server:
    """A WSGI server that calls the door, and checks that it keeps to the protocol."""

    def __init__(self, directory: Path) -> None:
        self.url = f"sqlite:///{directory}/holdfast.db"
        self.hub = Holdfast(
            store=self.url,
            secret=Secrets("hub-secret"),
            public_url="https://shop.example/webhooks",
            payments=[SigningVendor(name="signed")],
        )

    def post(
        self, path: str, body: bytes, *, secret: str = "webhook-secret", **environ: Any
    ) -> tuple[str, dict[str, str]]:
        given: dict[str, Any] = {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "/webhooks",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": "application/json",
            "HTTP_X_SIGNATURE": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
            "wsgi.input": io.BytesIO(body),
        } | environ
        setup_testing_defaults(given)
        answers: list[tuple[str, dict[str, str]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: object = None) -> Any:
            answers.append((status, dict(headers)))
            return lambda _: None

        content = validator(self.hub.receiver.wsgi)(given, start_response)
        list(content)
        content.close()  # type: ignore[attr-defined]
        return answers[0]

    def kept(self) -> list[bytes]:
        async def look() -> list[bytes]:
            async with open_store(self.url) as store:
                return [job.body for job in await store.jobs.list()]

        return asyncio.run(look())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.hub.receiver.wsgi.close()


def test_a_signed_delivery_is_kept_before_it_is_acknowledged(server: Server) -> None:
    status, headers = server.post("/signed", b"object-1")

    assert status == "200 OK"
    assert headers["Content-Type"] == "application/json"
    assert server.kept() == [b"object-1"]


def test_what_is_not_proven_is_refused_and_not_kept(server: Server) -> None:
    refusals = [
        server.post("/signed", b"object-1", secret="of somebody else"),
        server.post("/nobody", b"object-1"),
        server.post("/signed", b"x" * (MAX_BODY + 1)),
        server.post("/signed", b"", REQUEST_METHOD="GET"),
    ]

    assert [status[:3] for status, _ in refusals] == ["401", "404", "413", "405"]
    assert server.kept() == []


def test_a_body_of_unknown_length_is_read_to_its_end(server: Server) -> None:
    status, _ = server.post(
        "/signed", b"object-1", secret="webhook-secret", **{"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    )

    assert status == "200 OK"
    assert server.kept() == [b"object-1"]


def test_a_store_that_cannot_be_opened_asks_the_vendor_to_come_again(tmp_path: Path) -> None:
    server = Server(tmp_path / "missing")

    status, headers = server.post("/signed", b"object-1")

    assert status == "503 Service Unavailable"
    assert headers["Retry-After"] == "5"


def test_a_door_that_was_closed_opens_again(server: Server) -> None:
    server.post("/signed", b"object-1")
    server.hub.receiver.wsgi.close()

    status, _ = server.post("/signed", b"object-2")

    assert status == "200 OK"
    assert sorted(server.kept()) == [b"object-1", b"object-2"]


async def test_a_hub_that_is_open_in_a_loop_is_used_there(server: Server) -> None:
    async with server.hub:
        status, _ = await asyncio.to_thread(server.post, "/signed", b"object-1")

        assert [job.body for job in await server.hub.store.jobs.list()] == [b"object-1"]
    assert status == "200 OK"


async def test_the_thread_of_the_loop_itself_is_not_made_to_wait_for_itself(server: Server) -> None:
    async with server.hub:
        with pytest.raises(WrongLoop):
            server.post("/signed", b"object-1")

        assert await server.hub.store.jobs.list() == []
