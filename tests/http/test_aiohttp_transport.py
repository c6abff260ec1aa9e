"""aiohttp beneath an httpx client: its errors are httpx's, and it does nothing by itself."""

import asyncio
import inspect
import subprocess
import sys

import aiohttp
import httpx
import pytest

from holdfast.aiohttp import AiohttpTransport
from holdfast.http.aiohttp_transport import kind_of
from tests.http.byte_server import PATIENCE, Connection, Script, byte_server, closed_port

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
ERRORS = [
    kind
    for _, kind in inspect.getmembers(aiohttp.client_exceptions, inspect.isclass)
    if issubclass(kind, aiohttp.ClientError)
]


def one_place() -> httpx.AsyncClient:
    """A client that can have one request under way."""
    return httpx.AsyncClient(transport=AiohttpTransport(connections=1), timeout=httpx.Timeout(PATIENCE, pool=0.05))


def made(kind: type[Exception]) -> Exception:
    return kind.__new__(kind)


def test_only_these_of_aiohttp_prove_that_nothing_was_sent() -> None:
    not_sent = {httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol}
    assert {kind.__name__ for kind in ERRORS if kind_of(made(kind)) in not_sent} == {
        "ClientConnectorCertificateError",
        "ClientConnectorDNSError",
        "ClientConnectorError",
        "ClientConnectorSSLError",
        "ClientHttpProxyError",
        "ClientProxyConnectionError",
        "ClientSSLError",
        "ConnectionTimeoutError",
        "InvalidURL",
        "InvalidUrlClientError",
        "InvalidUrlRedirectClientError",
        "NonHttpUrlClientError",
        "NonHttpUrlRedirectClientError",
        "ServerFingerprintMismatch",
        "UnixClientConnectorError",
    }


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_of_aiohttp_has_a_class_of_httpx(kind: type[Exception]) -> None:
    assert issubclass(kind_of(made(kind)), httpx.TransportError)


async def test_a_full_pool_is_ours_and_says_nothing_of_the_vendor() -> None:
    async def hold(connection: Connection) -> None:
        await connection.send(OK[:-1])
        await connection.hang()

    async with byte_server(hold) as server, one_place() as client:
        async with client.stream("GET", server.url):
            # when the one place is taken
            with pytest.raises(httpx.PoolTimeout):
                await client.get(server.url)
            assert len(server.requests) == 1

        # then it is free again once that answer is closed
        async with client.stream("GET", server.url) as response:
            assert response.status_code == 200


async def test_a_place_comes_back_when_the_request_failed() -> None:
    async with byte_server(b"") as server, one_place() as client:
        for _ in range(3):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(server.url)


async def test_a_place_comes_back_once_when_the_answer_is_closed_twice() -> None:
    async with byte_server(OK) as server, one_place() as client:
        response = await client.get(server.url)
        await response.stream.aclose()  # type: ignore[union-attr]  # it is one of coroutines
        async with client.stream("GET", server.url):
            with pytest.raises(httpx.PoolTimeout):
                await client.get(server.url)


async def test_a_place_comes_back_when_the_caller_is_cancelled() -> None:
    # given
    reached = asyncio.Event()

    async def hang_first(connection: Connection) -> None:
        if reached.is_set():
            await connection.send(OK)
        else:
            reached.set()
            await connection.hang()

    async with byte_server(hang_first) as server, one_place() as client:
        asking = asyncio.create_task(client.get(server.url))
        await reached.wait()

        # when
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

        # then
        assert (await client.get(server.url)).text == "ok"


async def test_a_host_that_does_not_let_in_is_a_connect_timeout() -> None:
    # given a listener whose queue is full
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0, backlog=1)
    host, port = server.sockets[0].getsockname()

    async with AiohttpTransport() as transport, httpx.AsyncClient(transport=transport, timeout=PATIENCE) as client:
        # when no TLS handshake is ever answered
        with pytest.raises(httpx.ConnectTimeout):
            await client.get(f"https://{host}:{port}", timeout=httpx.Timeout(PATIENCE, connect=0.1))
    server.close()


def test_closed_it_can_be_used_in_another_loop() -> None:
    transport = AiohttpTransport(connections=1)

    async def use() -> None:
        async with byte_server(OK) as server, httpx.AsyncClient(transport=transport, timeout=PATIENCE) as client:
            async with asyncio.TaskGroup() as group:  # two, so that one waits
                asking = [group.create_task(client.get(server.url)) for _ in range(2)]
            assert [task.result().text for task in asking] == ["ok", "ok"]

    for _ in range(2):
        asyncio.run(use())


HARM = "correct-horse\r\nX-Evil: 1"


@pytest.mark.parametrize(
    ("method", "headers"), [(HARM, {}), ("GET", {"a": HARM}), ("GET", {HARM: "a"})], ids=["method", "value", "name"]
)
async def test_what_would_be_another_request_on_the_wire_is_not_sent_and_not_shown(
    method: str, headers: dict[str, str]
) -> None:
    async with byte_server(OK) as server, AiohttpTransport() as transport:
        # given
        request = httpx.Request(method, server.url, headers=headers)

        # when
        with pytest.raises(httpx.LocalProtocolError) as caught:
            await transport.handle_async_request(request)

        # then
        assert "correct-horse" not in str(caught.value)
        assert server.requests == []


async def test_a_user_in_the_address_is_no_second_credential() -> None:
    async with byte_server(OK) as server, AiohttpTransport() as transport:
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE) as client:
            await client.get(server.url.replace("://", "://ada:secret@"))
        assert server.requests[0].lower().count(b"authorization:") == 1


async def test_a_proxy_is_asked_and_its_refusal_was_never_sent() -> None:
    refused: Script | bytes = b"HTTP/1.1 407 Who\r\ncontent-length: 0\r\n\r\n"
    async with byte_server(refused) as proxy:
        async with (
            AiohttpTransport(proxy=proxy.url) as transport,
            httpx.AsyncClient(transport=transport, timeout=PATIENCE) as client,
        ):
            with pytest.raises(httpx.ProxyError):
                await client.get("https://shop.example")
        assert proxy.requests[0].startswith(b"CONNECT shop.example:443")

    unreachable = f"http://127.0.0.1:{closed_port()}"
    async with (
        AiohttpTransport(proxy=unreachable) as transport,
        httpx.AsyncClient(transport=transport, timeout=PATIENCE) as client,
    ):
        with pytest.raises(httpx.ProxyError):
            await client.get("https://shop.example")


@pytest.mark.parametrize(
    ("module", "package", "extra"), [("holdfast.aiohttp", "aiohttp", "fast"), ("holdfast.httpx2", "httpx2", "httpx2")]
)
def test_without_its_package_the_extra_is_named(module: str, package: str, extra: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import {module}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        f'MissingExtra: this needs an optional package; install it with: pip install "holdfast[{extra}]"' in ran.stderr
    )
