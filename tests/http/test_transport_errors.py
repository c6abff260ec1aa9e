"""Every exception of httpx has its row, and no row shows a secret."""

import pickle
import socket
import ssl
import traceback

import httpx
import pytest

from holdfast.errors import CallFailed
from holdfast.http.errors import MEANINGS, translate
from holdfast.http.transports import HttpRequest, HttpxTransport
from holdfast.outcome import Cause

HTTPX_EXCEPTIONS = [
    kind for name in httpx.__all__ if isinstance(kind := getattr(httpx, name), type) and issubclass(kind, Exception)
]
SECRET = "correct-horse-battery"


def make(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    error.args = ("text of httpx",)
    return error


@pytest.mark.parametrize("kind", HTTPX_EXCEPTIONS)
def test_no_exception_of_httpx_is_missing_from_the_table(kind: type[Exception]) -> None:
    assert kind in MEANINGS


@pytest.mark.parametrize("kind", list(MEANINGS))
def test_every_row_makes_an_error_that_survives_pickle(kind: type[Exception]) -> None:
    # when
    error = translate(make(kind))

    # then
    assert error.cause is MEANINGS[kind].cause
    assert "text of httpx" not in str(error)
    assert pickle.loads(pickle.dumps(error)).cause is error.cause


def test_only_these_prove_that_nothing_was_sent() -> None:
    assert {kind.__name__ for kind, row in MEANINGS.items() if row.cause is Cause.NOT_SENT} == {
        "ConnectError",
        "ConnectTimeout",
        "InvalidURL",
        "LocalProtocolError",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
    }


def test_a_full_pool_may_be_tried_again_and_says_nothing_of_the_vendor() -> None:
    error = translate(httpx.PoolTimeout(""))
    assert (error.hard, error.local) == (False, False)


def test_an_exception_from_nowhere_proves_nothing() -> None:
    class Novelty(httpx.ConnectError):
        pass

    assert translate(Novelty("")).cause is Cause.NOT_SENT
    assert translate(RuntimeError("")).cause is Cause.UNKNOWN


@pytest.mark.parametrize(
    ("beneath", "reason"),
    [
        (ConnectionRefusedError(), "refused"),
        (socket.gaierror(), "dns"),
        (ssl.SSLCertVerificationError(), "tls"),
        (ExceptionGroup("several addresses", [OSError(), ConnectionRefusedError()]), "refused"),
        (None, "connect"),
    ],
)
def test_what_lies_beneath_tells_failed_connections_apart(beneath: Exception | None, reason: str) -> None:
    # given
    error = httpx.ConnectError("")
    error.__cause__ = OSError("all attempts failed")
    error.__cause__.__cause__ = beneath

    # then
    assert translate(error).reason == reason


@pytest.mark.parametrize(
    "request_",
    [
        HttpRequest(method="GET", url="https://shop.example/", headers=[("authorization", f"Bearer {SECRET}é")]),
        HttpRequest(method="GET", url="http://127.0.0.1:9/", headers=[("authorization", f"Bearer {SECRET}\n")]),
        HttpRequest(method="GET", url=f"https://shop.example:{SECRET}/"),
        HttpRequest(method="GET", url=f"nonsense://{SECRET}/"),
        HttpRequest(method="GET", url=f"https://shop.example/{SECRET}/\x00"),
    ],
)
async def test_a_request_that_cannot_be_written_is_not_sent_and_not_shown(request_: HttpRequest) -> None:
    # given
    transport = HttpxTransport()

    # when
    with pytest.raises(CallFailed) as caught:
        await transport.send(request_)

    # then
    assert caught.value.cause is Cause.NOT_SENT
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in repr(request_)


@pytest.mark.parametrize("error", [httpx.ReadError(""), httpx.ConnectTimeout(""), ConnectionResetError()])
async def test_a_fault_raised_in_process_means_the_same(error: Exception) -> None:
    # given
    def fail(_request: httpx.Request) -> httpx.Response:
        raise error

    # when
    with pytest.raises(CallFailed) as caught:
        await HttpxTransport(httpx.MockTransport(fail)).send(HttpRequest(method="GET", url="https://shop.example/"))

    # then
    assert caught.value.cause is translate(error).cause
    assert caught.value.__cause__ is error


async def test_closing_twice_is_harmless() -> None:
    transport = HttpxTransport()
    await transport.aclose()
    await transport.aclose()
