"""Every exchange is written down: what was asked, what went wrong, how it ended, and whether the answer arrived."""

import httpx
import pytest

from holdfast.errors import OutcomeUnknown
from holdfast.http.transports import HttpRequest
from holdfast.testing.faults import BadJson, Fault, Hang, Latency, Reset, Status
from holdfast.testing.journal import Journal
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.simulator import Request, Response, Simulator, route


class Shop(Simulator):
    """A vendor that can fail at what nobody thought of."""

    vendor = "shop"

    @route("POST", "/orders", "orders.create")
    def create(self, request: Request) -> Response:
        if b"surprise" in request.body:
            raise KeyError("surprise")
        return Response.json({"id": 1}, status=201)


def order(*headers: tuple[str, str], body: bytes = b"{}") -> Request:
    return Request(method="POST", target="/orders", headers=headers, body=body)


@pytest.mark.parametrize(
    ("fault", "ending", "status"),
    [
        (None, "answered", 201),
        (Status(503), "answered", 503),
        (BadJson(), "answered", 201),
        (Reset(), "reset", 201),
        (Reset().before_effect(), "reset", None),
        (Hang(), "hang", 201),
    ],
    ids=repr,
)
def test_an_exchange_is_written_down_with_its_fault_and_its_end(
    fault: Fault | None, ending: str, status: int | None
) -> None:
    # given
    shop = Shop(journal=Journal())
    shop.faults.on("shop").script(fault)
    shop.faults.on("shop").always(Latency.constant(2))
    asked = order(("Idempotency-Key", "k1"))

    # when
    exchange = shop.exchange(asked)

    # then
    assert shop.journal is not None
    [call] = shop.journal.calls()
    assert call is exchange.record
    assert (call.vendor, call.operation, call.key, call.request) == ("shop", "orders.create", "k1", asked)
    assert (call.fault, call.ending, call.status, call.delay) == (fault, ending, status, 2)


def test_a_request_that_the_simulator_fails_at_is_written_down_too() -> None:
    shop = Shop(journal=Journal())
    with pytest.raises(KeyError):
        shop.exchange(order(body=b"surprise"))
    shop.exchange(order())
    assert shop.journal is not None
    assert [(call.ending, call.status) for call in shop.journal.calls()] == [("closed", None), ("answered", 201)]


async def test_in_process_it_is_known_whether_the_answer_arrived() -> None:
    # given
    shop = Shop(journal=Journal())
    shop.faults.on("shop").script(None, Reset())
    request = HttpRequest(method="POST", url="https://shop.test/orders")

    # when
    await InProcess(shop).send(request)
    with pytest.raises(OutcomeUnknown):
        await InProcess(shop).send(request)

    # then
    assert shop.journal is not None
    assert [call.arrived for call in shop.journal.calls()] == [True, False]


async def test_on_a_socket_what_is_lost_is_known_not_to_have_arrived() -> None:
    # given
    shop = Shop(journal=Journal())
    shop.faults.on("shop").script(Reset(), Latency.constant(0.001))

    # when
    async with Edge(shop) as edge, httpx.AsyncClient(base_url=edge.url, timeout=30, trust_env=False) as client:
        with pytest.raises(httpx.ReadError):
            await client.post("/orders")
        await client.post("/orders")

    # then
    assert shop.journal is not None
    assert [call.arrived for call in shop.journal.calls()] == [False, True]
