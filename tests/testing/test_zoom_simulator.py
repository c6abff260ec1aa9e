"""The simulated Zoom refuses, forgets and cuts off as the real one does."""

import hashlib
import hmac
import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.intents import meeting
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators import load_simulator
from holdfast.testing.simulators.simulator import Request, Response
from holdfast.testing.simulators.zoom import ZoomSimulator

VECTORS = Path(__file__).parents[3] / "shared/specs/meetings/signature-vectors.json"
START = "2026-03-02T12:00:00Z"


class Client:
    """Asks the simulator as Zoom's documentation says."""

    def __init__(self, **facts: object) -> None:
        self.clock = ManualClock(datetime(2026, 3, 1, 23, 50, tzinfo=UTC))
        self.zoom = ZoomSimulator(clock=self.clock, **facts)  # type: ignore[arg-type]  # its own keywords
        self.token = self.fetch_token()

    def fetch_token(self, client_secret: str = ZoomSimulator.client_secret, **form: str) -> str:
        fields = {"grant_type": "account_credentials", "account_id": self.zoom.account_id} | form
        basic = b64encode(f"{self.zoom.client_id}:{client_secret}".encode()).decode()
        response = self.zoom.handle(
            Request(
                method="POST",
                target="/oauth/token",
                headers=(("Authorization", f"Basic {basic}"),),
                body="&".join(f"{name}={value}" for name, value in fields.items()).encode(),
            )
        )
        return str(json.loads(response.body).get("access_token", json.loads(response.body)))

    def ask(self, method: str, target: str, data: object = None) -> Response:
        body = b"" if data is None else json.dumps(data).encode()
        headers = (("authorization", f"Bearer {self.token}"),)
        return self.zoom.handle(Request(method=method, target=f"/v2{target}", headers=headers, body=body))

    def create(self, **facts: object) -> Response:
        wanted = {"topic": "Consultation", "type": 2, "start_time": START, "duration": 30, "agenda": "[ref:abc]"}
        return self.ask("POST", "/users/ada%40example.org/meetings", wanted | facts)


def data(response: Response) -> dict[str, object]:
    found: dict[str, object] = json.loads(response.body)
    return found


def meetings(response: Response) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(response.body)["meetings"]
    return found


def header(response: Response, name: str) -> str:
    return dict(response.headers).get(name, "")


def test_it_is_found_by_its_vendors_name() -> None:
    assert load_simulator("zoom") is ZoomSimulator


def test_a_new_token_ends_the_life_of_the_one_before() -> None:
    client = Client()
    old = client.token
    client.token = client.fetch_token()
    assert client.create().status == 201

    client.token = old

    refused = client.create()
    assert (refused.status, data(refused)["code"]) == (401, 124)


async def test_a_token_lives_an_hour() -> None:
    client = Client()
    await client.clock.advance(3600)

    assert data(client.create()) == {"code": 124, "message": "Access token is expired."}


@pytest.mark.parametrize(
    "wrong", [{"client_secret": "no"}, {"account_id": "another"}, {"grant_type": "client_credentials"}]
)
def test_a_token_is_given_for_the_right_credentials_only(wrong: dict[str, str]) -> None:
    client = Client()

    assert "error" in client.fetch_token(**wrong)
    assert client.zoom.tokens_issued == 1


def test_a_meeting_is_kept_read_and_deleted_once() -> None:
    client = Client()
    made = data(client.create())
    path = f"/meetings/{made['id']}"

    assert isinstance(made["id"], int)
    assert str(made["id"]) in str(made["join_url"])
    assert "zak=" in str(made["start_url"])
    assert data(client.ask("GET", path))["password"] == made["password"]
    assert [client.ask("DELETE", path).status for _ in range(2)] == [204, 404]
    assert data(client.ask("GET", path))["code"] == 3001
    assert client.zoom.live == []
    entry, deleted = client.zoom.ledger.entries(key="Consultation")
    assert (entry.kind, entry.id, entry.facts["agenda"]) == (Kind.MEETING, str(made["id"]), "[ref:abc]")
    assert (deleted.kind, deleted.id) == (Kind.MEETING_DELETED, str(made["id"]))
    client.zoom.ledger.never(meeting(reference="Consultation"))


def test_a_list_shows_no_secrets_and_cuts_agendas_off() -> None:
    client = Client()
    client.create(agenda="[ref:abc]\n" + "x" * 1000)

    (listed,) = meetings(client.ask("GET", "/users/ada%40example.org/meetings"))

    assert len(listed["agenda"]) == 250
    assert listed["agenda"].startswith("[ref:abc]")
    assert not {"start_url", "password", "settings"} & set(listed)


def test_a_list_comes_in_pages_and_between_days() -> None:
    client = Client()
    for _ in range(3):
        client.create()
    client.create(start_time="2026-04-01T12:00:00Z")
    path = "/users/ada%40example.org/meetings?page_size=2&from=2026-03-01&to=2026-03-03"

    first = client.ask("GET", path)
    second = client.ask("GET", f"{path}&next_page_token={data(first)['next_page_token']}")

    assert (len(meetings(first)), len(meetings(second))) == (2, 1)
    assert data(second)["next_page_token"] == ""


async def test_a_hosts_quota_ends_with_the_day_and_its_headers_mislead() -> None:
    client = Client(quota=2)
    made = data(client.create())
    assert client.ask("PATCH", f"/meetings/{made['id']}", {"topic": "Other"}).status == 204

    refused = client.create()
    assert refused.status == 429
    assert "daily rate limit (2)" in str(data(refused)["message"])
    assert "particular user" in str(data(refused)["message"])
    assert header(refused, "x-ratelimit-remaining") == "5893"
    assert header(refused, "retry-after") == ""
    assert client.zoom.faults.fired["zoom.host_quota"] == 1
    assert client.ask("POST", "/users/bob/meetings", {"type": 2}).status == 201

    await client.clock.advance(600)
    assert client.create().status == 201


@pytest.mark.parametrize("wrong", [{"type": 4}, {"agenda": "x" * 2001}, {"start_time": "2026-03-02T12:00:00.5Z"}])
def test_what_zoom_would_not_take_is_refused(wrong: dict[str, object]) -> None:
    refused = Client().create(**wrong)

    assert (refused.status, data(refused)["code"]) == (400, 300)


def test_a_host_nobody_knows_and_a_path_nobody_has() -> None:
    client = Client(hosts=frozenset({"bob@example.org"}))

    assert data(client.create())["code"] == 1001
    assert client.ask("GET", "/phones").body.startswith(b"<")


def test_what_happens_in_a_meeting_is_told_signed() -> None:
    client = Client(webhook_url="http://127.0.0.1/webhooks/zoom", webhook_secret="secret")
    made = data(client.create())
    number = int(str(made["id"]))
    client.zoom.start(number)
    client.zoom.join(number, "Ada")
    client.zoom.leave(number, "Ada")
    client.zoom.end(number)
    client.ask("DELETE", f"/meetings/{number}")

    told = [json.loads(webhook.body) for webhook in client.zoom.outbox]
    assert [row["event"] for row in told] == [
        "meeting.created",
        "meeting.started",
        "meeting.participant_joined",
        "meeting.participant_left",
        "meeting.ended",
        "meeting.deleted",
    ]
    assert [type(row["payload"]["object"]["id"]) for row in told] == [int, str, str, str, str, int]
    assert told[2]["payload"]["object"]["participant"]["user_name"] == "Ada"
    at = client.clock.now()
    mac = hmac.new(b"secret", f"v0:{int(at.timestamp())}:body".encode(), hashlib.sha256).hexdigest()
    assert dict(client.zoom.sign(b"body", secret="secret", at=at))["x-zm-signature"] == f"v0={mac}"


def test_the_receiver_is_asked_to_prove_its_secret() -> None:
    client = Client(webhook_url="http://127.0.0.1/webhooks/zoom")
    plain = client.zoom.validate_url()

    body = json.loads(client.zoom.outbox[0].body)
    assert (body["event"], body["payload"]) == ("endpoint.url_validation", {"plainToken": plain})


@pytest.mark.skipif(not VECTORS.exists(), reason="the shared vectors are not on this machine")
def test_it_signs_as_the_published_vector_says() -> None:
    vector = next(row for row in json.loads(VECTORS.read_text())["webhooks"] if row["provider"] == "zoom")
    at = datetime.fromtimestamp(int(vector["timestamp"]), UTC) + timedelta(milliseconds=400)

    signed = dict(ZoomSimulator().sign(vector["body"].encode(), secret=vector["secret"], at=at))

    assert signed == {"x-zm-request-timestamp": vector["timestamp"], "x-zm-signature": vector["value"]}


def test_after_a_reset_nothing_is_left() -> None:
    client = Client()
    client.create()
    client.zoom.reset()

    assert client.zoom.live == []
    assert client.create().status == 401
