"""The edge: what a plan says happens to real bytes on a real socket."""

import asyncio
import json
from functools import partial

import httpx
import pytest

from holdfast.http.errors import translate
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import (
    BadJson,
    Close,
    Dribble,
    Fault,
    Hang,
    Html,
    Latency,
    Refused,
    Reset,
    Stall,
    Status,
    TlsError,
    Truncate,
)
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.testing.simulators.simulator import Request, Response
from holdfast.testing.simulators.zoom import ZoomSimulator

INVOICE = {"out": False, "amount": 21}


@pytest.fixture
def lnbits() -> LNbitsSimulator:
    return LNbitsSimulator(seed=7)


async def create(client: httpx.AsyncClient, lnbits: LNbitsSimulator) -> httpx.Response:
    return await client.post("/api/v1/payments", json=INVOICE, headers={"X-Api-Key": lnbits.invoice_key})


def client_of(edge: Edge) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=edge.url, timeout=30, trust_env=False)


async def test_one_connection_carries_many_exchanges(lnbits: LNbitsSimulator) -> None:
    async with Edge(lnbits) as edge, client_of(edge) as client:
        # when
        created = [(await create(client, lnbits)).json() for _ in range(3)]
        listed = await client.get("/api/v1/payments", headers={"X-Api-Key": lnbits.invoice_key})

    # then
    assert [payment["amount"] for payment in listed.json()] == [21_000] * 3
    assert len({payment["payment_hash"] for payment in created}) == 3
    assert edge.listener.accepted == 1


@pytest.mark.parametrize(
    ("fault", "error", "offers"),
    [
        (Reset(), httpx.ReadError, 1),
        (Reset(after_bytes=40), httpx.ReadError, 1),
        (Reset().before_effect(), httpx.ReadError, 0),
        (Truncate(), httpx.RemoteProtocolError, 1),
        (Hang(seconds=0), httpx.RemoteProtocolError, 1),
        (Refused(seconds=0), httpx.ReadError, 0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_a_broken_exchange_breaks_on_the_wire_with_or_without_the_effect(
    lnbits: LNbitsSimulator, fault: Fault, error: type[Exception], offers: int
) -> None:
    # given
    lnbits.faults.on("lnbits", "payments.create").script(fault)

    # when
    async with Edge(lnbits) as edge, client_of(edge) as client:
        with pytest.raises(error):
            await create(client, lnbits)

    # then
    assert len(lnbits.ledger.entries(Kind.OFFER)) == offers
    assert lnbits.faults.fired == {f"lnbits.{fault.name}": 1}


async def test_a_hanging_vendor_holds_the_connection_until_the_client_gives_up(lnbits: LNbitsSimulator) -> None:
    # given
    lnbits.faults.on("lnbits", "payments.create").script(Hang())

    # when
    async with Edge(lnbits) as edge, client_of(edge) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                "/api/v1/payments",
                json=INVOICE,
                headers={"X-Api-Key": lnbits.invoice_key},
                timeout=httpx.Timeout(30, read=0.1),
            )
        again = await create(client, lnbits)

    # then
    assert again.status_code == 201
    assert len(lnbits.ledger) == 2


async def test_while_connections_are_refused_nobody_listens() -> None:
    # given
    clock = ManualClock()
    lnbits = LNbitsSimulator(seed=7, clock=clock)
    lnbits.faults.on("lnbits", "connect").script(Refused(seconds=60))

    async with Edge(lnbits) as edge, client_of(edge) as client:
        # when
        with pytest.raises(httpx.ConnectError) as caught:
            await create(client, lnbits)
        with pytest.raises(httpx.ConnectError):
            await create(client, lnbits)
        await clock.advance(60)
        answer = await create(client, lnbits)

    # then
    assert translate(caught.value).reason == "refused"
    assert answer.status_code == 201
    assert len(lnbits.ledger) == 1
    assert lnbits.faults.fired == {"lnbits.refused": 1}


@pytest.mark.parametrize("from_a_thread", [False, True])
async def test_a_refusal_planned_meanwhile_is_there_before_the_next_one_knocks(*, from_a_thread: bool) -> None:
    # given
    clock = ManualClock()
    lnbits = LNbitsSimulator(seed=7, clock=clock)
    async with Edge(lnbits) as edge, client_of(edge) as client:
        await create(client, lnbits)

        # when
        plan = partial(lnbits.faults.on("lnbits", "connect").first, 3, Refused(seconds=60))
        if from_a_thread:
            await asyncio.to_thread(plan)
            await clock.advance(0)
        else:
            plan()
        with pytest.raises(httpx.TransportError):  # the connection that waited is reset
            await create(client, lnbits)
        with pytest.raises(httpx.ConnectError):
            await create(client, lnbits)
        await clock.advance(60)  # the first connection was let in, two more are refused
        with pytest.raises(httpx.ConnectError):
            await create(client, lnbits)
        await clock.advance(60)
        answer = await create(client, lnbits)

    # then
    assert answer.status_code == 201


async def test_a_refusal_of_one_operation_resets_that_call_and_then_nobody_listens() -> None:
    # given
    clock = ManualClock()
    lnbits = LNbitsSimulator(seed=7, clock=clock)
    lnbits.faults.on("lnbits", "payments.create").script(Refused(seconds=60))

    # when
    async with Edge(lnbits) as edge, client_of(edge) as client:
        with pytest.raises(httpx.ReadError):
            await create(client, lnbits)
        with pytest.raises(httpx.ConnectError):
            await create(client, lnbits)

    # then
    assert len(lnbits.ledger) == 0


@pytest.mark.parametrize(
    ("fault", "received"),
    [(Close(), b""), (Hang(0), b""), (TlsError(), ConnectionResetError), (Reset(), ConnectionResetError)],
    ids=repr,
)
async def test_a_connection_can_break_before_a_request_is_read(
    lnbits: LNbitsSimulator, fault: Fault, received: bytes | type[OSError]
) -> None:
    # given
    lnbits.faults.on("lnbits", "connect").script(Latency.constant(0), fault)
    lnbits.faults.on("lnbits", "connect").at(0, fault)

    # when
    async with Edge(lnbits) as edge, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.listener.port)
        writer.write(b"GET /api/v1/rate/CHF HTTP/1.1\r\nhost: x\r\n\r\n")
        try:
            found: bytes | type[OSError] = await reader.read()
        except ConnectionResetError:
            found = ConnectionResetError
        writer.close()

    # then
    assert found == received or (found is ConnectionResetError and received == b"")  # what was sent may not be read
    assert not lnbits.requests


async def test_another_vendor_takes_over_at_the_same_address() -> None:
    # given
    clock = ManualClock()
    first, second = (LNbitsSimulator(seed=seed, clock=clock) for seed in (1, 2))
    async with Edge(first) as edge, client_of(edge) as client:
        await create(client, first)

        # when
        edge.simulator = second
        await create(client, second)
        first.faults.on("lnbits", "connect").always(Refused(60))
        ignored = edge.listener.refusing
        second.faults.on("lnbits", "connect").always(Refused(60))

        # then
        assert (ignored, edge.listener.refusing) == (False, True)
        assert (len(first.ledger), len(second.ledger)) == (1, 1)


async def test_refusing_resets_connections_that_wait() -> None:
    clock = ManualClock()
    lnbits = LNbitsSimulator(seed=7, clock=clock)
    async with Edge(lnbits) as edge, client_of(edge) as client:
        # given
        await create(client, lnbits)

        # when
        edge.listener.refuse(1)
        await clock.advance(0)
        assert edge.listener.refusing
        await clock.advance(1)
        await create(client, lnbits)

    # then
    assert edge.listener.accepted == 2


async def test_an_error_status_comes_with_its_headers_and_no_effect(lnbits: LNbitsSimulator) -> None:
    # given
    lnbits.faults.on("lnbits").script(Status(429, retry_after=7, body=b'{"detail":"slow"}'))

    # when
    async with Edge(lnbits) as edge, client_of(edge) as client:
        answer = await create(client, lnbits)

    # then
    assert (answer.status_code, answer.headers["retry-after"], answer.json()) == (429, "7", {"detail": "slow"})
    assert not len(lnbits.ledger)


@pytest.mark.parametrize("fault", [BadJson(), Html()], ids=lambda fault: fault.name)
async def test_an_unreadable_success_is_one_whose_effect_happened(lnbits: LNbitsSimulator, fault: Fault) -> None:
    # given
    lnbits.faults.on("lnbits").script(fault)

    # when
    async with Edge(lnbits) as edge, client_of(edge) as client:
        answer = await create(client, lnbits)

    # then
    assert answer.is_success
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    assert len(lnbits.ledger) == 1


@pytest.mark.parametrize("after", [0, 10, 120])
async def test_a_stall_lets_so_many_bytes_through(lnbits: LNbitsSimulator, after: int) -> None:
    # given
    lnbits.faults.on("lnbits", "payments.quote").script(Stall(after_bytes=after, seconds=0))

    # when
    async with Edge(lnbits) as edge, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.listener.port)
        writer.write(b"GET /api/v1/rate/CHF HTTP/1.1\r\nhost: x\r\n\r\n")
        received = await reader.read()
        writer.close()

    # then
    assert len(received) == min(after, len(received))
    assert b"HTTP/1.1 200 OK\r\n".startswith(received[:17])


async def test_a_dribble_is_the_whole_answer_byte_by_byte_on_a_connection_that_is_kept(lnbits: LNbitsSimulator) -> None:
    # given
    lnbits.faults.on("lnbits", "payments.quote").script(Dribble(1e-6))

    # when
    async with Edge(lnbits) as edge, client_of(edge) as client:
        answers = [await client.get("/api/v1/rate/CHF") for _ in range(2)]

    # then
    assert answers[0].json() == answers[1].json()
    assert edge.listener.accepted == 1


async def test_latency_delays_the_answer_and_nothing_else(lnbits: LNbitsSimulator) -> None:
    lnbits.faults.on("lnbits").always(Latency(0.001, 0.001))
    async with Edge(lnbits) as edge, client_of(edge) as client:
        assert (await create(client, lnbits)).status_code == 201


async def test_what_is_not_http_is_answered_400_and_closed(lnbits: LNbitsSimulator) -> None:
    async with Edge(lnbits) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.listener.port)
        writer.write(b"nonsense\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400")


async def test_a_body_over_the_cap_is_answered_413(lnbits: LNbitsSimulator) -> None:
    async with Edge(lnbits) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.listener.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n" + b"x" * 1_200_000)
        answer = await reader.readline()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413")


async def test_leaving_resets_what_is_connected_and_frees_the_port(lnbits: LNbitsSimulator) -> None:
    # given
    async with Edge(lnbits) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.listener.port)
        writer.write(b"GET /api/v1/rate/CHF HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")

    # then
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    async with Edge(lnbits, port=edge.listener.port) as again:
        assert again.url == edge.url


async def test_whoever_waits_for_a_100_is_told_to_go_on(lnbits: LNbitsSimulator) -> None:
    async with asyncio.timeout(30), Edge(lnbits) as edge:
        # given
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.listener.port)
        body = json.dumps(INVOICE).encode()
        writer.write(b"POST /api/v1/payments HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n")
        writer.write(f"x-api-key: {lnbits.invoice_key}\r\ncontent-length: {len(body)}\r\n\r\n".encode())

        # when
        go_on = await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        answer = await reader.readuntil(b"\r\n\r\n")

        # then
        assert go_on.startswith(b"HTTP/1.1 100")
        assert answer.startswith(b"HTTP/1.1 201")
        writer.close()


async def test_a_body_in_chunks_and_two_requests_at_once_are_understood(lnbits: LNbitsSimulator) -> None:
    async with asyncio.timeout(30), Edge(lnbits) as edge:
        # given
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.listener.port)
        body = json.dumps(INVOICE).encode()
        head = f"POST /api/v1/payments HTTP/1.1\r\nhost: x\r\nx-api-key: {lnbits.invoice_key}\r\n".encode()
        chunks = b"".join(b"1\r\n" + body[place : place + 1] + b"\r\n" for place in range(len(body)))
        asked = head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

        # when
        writer.write(asked + asked.replace(b"host: x", b"host: x\r\nconnection: close"))
        answers = await reader.read()

        # then
        assert answers.count(b"HTTP/1.1 201") == 2
        assert len(lnbits.ledger) == 2
        writer.close()


async def test_head_is_answered_without_a_body_and_204_without_a_length() -> None:
    zoom = ZoomSimulator(seed=7)
    async with Edge(zoom) as edge, client_of(edge) as client:
        # given
        basic = (zoom.client_id, zoom.client_secret)
        grant = {"grant_type": "account_credentials", "account_id": zoom.account_id}
        token = (await client.post("/oauth/token", params=grant, auth=basic)).json()["access_token"]
        bearer = {"authorization": f"Bearer {token}"}
        meeting = (await client.post("/v2/users/a/meetings", json={}, headers=bearer)).json()["id"]

        # when
        head = await client.head("/v2/nothing")
        deleted = await client.delete(f"/v2/meetings/{meeting}", headers=bearer)
        again = await client.get(f"/v2/meetings/{meeting}", headers=bearer)

    # then
    assert (head.status_code, head.content, int(head.headers["content-length"]) > 0) == (404, b"", True)
    assert (deleted.status_code, "content-length" in deleted.headers) == (204, False)
    assert (again.status_code, edge.listener.accepted) == (404, 1)


class Broken(LNbitsSimulator):
    """Fails at what nobody thought of."""

    def answer(self, request: Request) -> Response:
        if "surprise" in request.target:
            raise KeyError("surprise")
        return super().answer(request)


async def test_a_request_nobody_thought_of_is_a_500_and_the_others_are_served(caplog: pytest.LogCaptureFixture) -> None:
    async with Edge(Broken(seed=7)) as edge, client_of(edge) as client:
        surprised = await client.get("/api/v1/rate/surprise")
        served = await client.get("/api/v1/rate/CHF")

    assert (surprised.status_code, served.status_code) == (500, 200)
    assert "lnbits failed at payments.quote" in caplog.text
