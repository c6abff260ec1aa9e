"""Zoom: one token for all, a quota that is no outage, and a meeting that is found again by our own words."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar, cast

import pytest

from holdfast.errors import (
    CallFailed,
    CredentialRefused,
    MissingCredential,
    OutcomeUnknown,
    Refused,
    Rejected,
    Throttled,
)
from holdfast.http.tokens import TokenVendor
from holdfast.http.wire import JsonOut, encode_json
from holdfast.meetings.client import Meetings
from holdfast.meetings.models import Feature, Meeting, MeetingRequest, TryState
from holdfast.meetings.provider import CreateSemantics, MeetingProvider
from holdfast.providers.zoom import Zoom
from holdfast.runtime import Runtime
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Hang, Html, Reset, Status
from holdfast.testing.faults import Refused as Unreachable
from holdfast.testing.ledger import Kind
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.zoom import ZoomSimulator
from holdfast.values import Reference, Secret, Secrets
from holdfast.webhooks.door import ReceivesWebhooks
from holdfast.webhooks.request import RawRequest
from tests.meetings.vendors import LocalVendor
from tests.providers.connection import NOON, Canned, canned, connection, incoming

T = TypeVar("T")

SPECS = Path(__file__).parents[3] / "shared/specs/meetings"
TOKEN = "0123456789abcdefghijklmnop"
START = NOON + timedelta(days=1)
HOST_QUOTA = {
    "code": 429,
    "message": "You have exceeded the daily rate limit (100) of Meeting Create/Update API requests permitted for this "
    "particular user. You may resume these requests at GMT 00:00:00.",
}
MADE: dict[str, JsonOut] = {
    "id": 85746065123,
    "join_url": "https://zoom.us/j/85746065123?pwd=x",
    "start_url": "https://zoom.us/s/1?zak=z",
}


def zoom(**changes: object) -> Zoom:
    facts: dict[str, object] = {
        "account_id": ZoomSimulator.account_id,
        "client_id": ZoomSimulator.client_id,
        "client_secret": Secret(ZoomSimulator.client_secret),
        "host": "ada@example.org",
        "webhook_secret": Secrets("zoom-secret-token"),
        "base_url": "http://127.0.0.1/v2",
        "token_url": "http://127.0.0.1/oauth/token",
    }
    return Zoom(**facts | changes)  # type: ignore[arg-type]  # Zoom's own fields


def request(**changes: object) -> MeetingRequest:
    facts: dict[str, object] = {
        "reference": Reference("booking-1"),
        "token": TOKEN,
        "starts_at": START,
        "duration": timedelta(minutes=30),
    }
    return MeetingRequest(**facts | changes)  # type: ignore[arg-type]  # MeetingRequest's own fields


class Practice:
    """Meetings at a simulated Zoom, with a local provider behind it or none, through the real runtime."""

    def __init__(self, *others: LocalVendor, **facts: object) -> None:
        self.clock = ManualClock(NOON)
        self.zoom = ZoomSimulator(clock=self.clock, **facts)  # type: ignore[arg-type]  # its own keywords
        self.runtime = Runtime(
            "memory://",
            secret=Secrets("hub-secret"),
            clock=self.clock,
            transport=lambda _vendor: InProcess(self.zoom),
        )
        self.meetings = Meetings([zoom(), *others], runtime=self.runtime, deadline=1.5)

    async def __aenter__(self) -> "Practice":
        await self.meetings.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.meetings.__aexit__(None, None, None)

    async def book(self, reference: str = "booking-1", **wishes: object) -> Meeting:
        facts: dict[str, object] = {"starts_at": START, "duration": timedelta(minutes=30)}
        return await self.passing(self.meetings.create(reference, **facts | wishes))  # type: ignore[arg-type]  # its own keywords

    async def passing(self, work: Coroutine[object, object, T]) -> T:
        """Let time pass while something is done that may have to wait."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            for _ in range(2000):
                if task.done():
                    break
                await self.clock.advance(0.05)
            else:
                task.cancel()
        return task.result()


# Facts


def test_it_is_a_searchable_provider_with_a_token_and_a_door() -> None:
    provider: MeetingProvider = zoom()
    vendor: TokenVendor = zoom()
    door: ReceivesWebhooks = zoom()

    assert provider.capabilities.create is CreateSemantics.SEARCHABLE
    for protocol in (MeetingProvider, TokenVendor, ReceivesWebhooks):
        assert isinstance(provider, protocol)
    assert (vendor.name, door.name) == ("zoom", "zoom")


@pytest.mark.parametrize(("base_url", "live"), [("https://api.zoom.us/v2", True), ("http://127.0.0.1/v2", False)])
def test_it_is_live_everywhere_but_on_this_machine(base_url: str, live: bool) -> None:
    assert zoom(base_url=base_url).live is live


NAMES = ("ZOOM_ACCOUNT_ID", "ZOOM_CLIENT_ID", "ZOOM_CLIENT_SECRET", "ZOOM_HOST")


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, f"{name}-value")
    monkeypatch.setenv("ZOOM_WEBHOOK_SECRET", "new-to-hide,old-to-hide")

    made = Zoom.from_env()

    assert made.host == "ZOOM_HOST-value"
    assert [secret.reveal() for secret in made.webhook_secrets or ()] == ["new-to-hide", "old-to-hide"]
    assert "SECRET-value" not in repr(made)
    assert "to-hide" not in repr(made)


@pytest.mark.parametrize("missing", NAMES)
def test_a_missing_credential_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv(missing)

    with pytest.raises(MissingCredential, match=missing):
        Zoom.from_env()


# What is sent


async def body_sent(**changes: object) -> dict[str, object]:
    answer = canned(MADE, 201)
    await zoom().create(connection(zoom(), answer), request(**changes))
    found: dict[str, object] = json.loads(answer.requests[0].content)
    return found


async def test_a_meeting_is_asked_for_in_utc_with_our_token_first() -> None:
    assert await body_sent(time_zone="Europe/Zurich") == {
        "topic": "Meeting",
        "agenda": f"[ref:{TOKEN}]",
        "type": 2,
        "start_time": "2026-03-03T12:00:00Z",
        "duration": 30,
        "timezone": "Europe/Zurich",
        "settings": {},
    }


async def test_fractions_are_left_out_of_times_and_added_to_durations() -> None:
    zone = START.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+05:30").tzinfo).replace(microsecond=123456)
    sent = await body_sent(starts_at=zone, duration=timedelta(minutes=30, seconds=1))

    assert (sent["start_time"], sent["duration"]) == ("2026-03-03T12:00:00Z", 31)


async def test_every_feature_has_its_setting() -> None:
    sent = await body_sent(features=frozenset(Feature))

    assert sent["settings"] == {"waiting_room": True, "join_before_host": True, "auto_recording": "cloud"}
    assert sent["default_password"] is True


async def test_a_host_of_ones_own_goes_safely_into_the_path() -> None:
    answer = canned(MADE, 201)
    await zoom().create(connection(zoom(), answer), request(host="a/b@example.org"))

    assert answer.requests[0].url.endswith("/v2/users/a%2Fb%40example.org/meetings")


@pytest.mark.skipif(not SPECS.exists(), reason="the shared specifications are not on this machine")
async def test_what_is_sent_fits_the_published_description() -> None:
    spec = json.loads((SPECS / "zoom-v2-2018-swagger.json").read_text())
    create = spec["paths"]["/users/{userId}/meetings"]["post"]
    schema = next(row["schema"] for row in create["parameters"] if row.get("in") == "body")

    sent = await body_sent(
        features=frozenset({Feature.WAITING_ROOM, Feature.JOIN_BEFORE_HOST, Feature.CLOUD_RECORDING})
    )

    described = fields(schema, spec)
    assert set(sent) <= set(described)
    for name, value in sent.items():
        fits(value, described[name], spec)
    assert {"get", "delete"} <= set(spec["paths"]["/meetings/{meetingId}"])


def fields(schema: Mapping[str, object], spec: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Every property of an object schema, references and parts resolved."""
    if "$ref" in schema:
        found: object = spec
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = cast(Mapping[str, object], found)[part]
        return fields(cast(Mapping[str, object], found), spec)
    known = dict(cast(Mapping[str, Mapping[str, object]], schema.get("properties", {})))
    for piece in cast(list[Mapping[str, object]], schema.get("allOf", [])):
        known |= fields(piece, spec)
    return known


def fits(value: object, schema: Mapping[str, object], spec: Mapping[str, object]) -> None:
    if isinstance(value, dict):
        described = fields(schema, spec)
        for name, item in value.items():
            if name != "waiting_room":  # younger than the description
                fits(item, described[name], spec)
        return
    kinds: Mapping[object, type] = {"string": str, "integer": int, "boolean": bool}
    assert isinstance(value, kinds[schema["type"]])
    assert value in cast(list[object], schema.get("enum", [value]))


async def test_the_token_is_asked_for_with_basic_credentials_in_a_form() -> None:
    answer = canned({"access_token": "secret-token", "expires_in": 3600})
    token = await zoom().fetch_token(connection(zoom(), answer))

    asked = answer.requests[0]
    assert (asked.method, asked.url) == ("POST", "http://127.0.0.1/oauth/token")
    assert asked.content == b"grant_type=account_credentials&account_id=zoom-account"
    assert ("authorization", "Basic em9vbS1jbGllbnQ6em9vbS1jbGllbnQtc2VjcmV0") in asked.headers
    assert (token.value.reveal(), token.expires_in) == ("secret-token", 3600)


# What is answered


async def test_secret_parts_of_a_meeting_never_show() -> None:
    answer = canned(MADE | {"password": "pass-to-hide", "start_url": "https://zoom.us/s/1?zak=zak-to-hide"}, 201)
    snapshot = await zoom().create(connection(zoom(), answer), request())

    assert (snapshot.vendor_id, snapshot.token) == ("85746065123", TOKEN)
    assert snapshot.passcode == Secret("pass-to-hide")
    assert "to-hide" not in repr(snapshot)


@pytest.mark.parametrize(
    ("status", "body", "error", "reason"),
    [
        (401, {"code": 124, "message": "Invalid access token."}, CredentialRefused, ""),
        (400, {"code": 4711, "message": "Invalid access token, does not contain scopes"}, CredentialRefused, ""),
        (400, {"code": 300, "message": "Validation Failed."}, Rejected, ""),
        (404, {"code": 1001, "message": "User does not exist"}, Rejected, ""),
        (429, {"code": 429, "message": "You have reached the maximum per-second rate limit"}, Throttled, ""),
        (429, {"code": 429, "message": "Too many concurrent requests"}, Throttled, ""),
        (429, HOST_QUOTA, Refused, "host_quota"),
        (500, {"code": 500, "message": "Internal error"}, OutcomeUnknown, ""),
        (503, {}, OutcomeUnknown, ""),
    ],
)
async def test_every_answer_has_its_cause(
    status: int, body: dict[str, int | str], error: type[CallFailed], reason: str
) -> None:
    with pytest.raises(error) as caught:
        await zoom().create(connection(zoom(), canned(body, status)), request())

    assert caught.value.reason == reason
    assert caught.value.code == str(body.get("code", ""))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("content", [b"<error>no</error>", b"<html>", b"", b"\xff", b"[1]"])
async def test_a_refusal_that_is_no_json_is_judged_by_its_status(status: int, content: bytes) -> None:
    with pytest.raises(CallFailed) as caught:
        await zoom().create(connection(zoom(), Canned(status, content)), request())

    assert caught.value.status == status


@pytest.mark.parametrize("content", [b"<html>welcome</html>", b"", b"{}"])
async def test_a_success_nobody_can_read_is_unknown(content: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        await zoom().create(connection(zoom(), Canned(201, content)), request())


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"date": "Mon, 02 Mar 2026 22:30:00 GMT"}, HOST_QUOTA, 5400),
        ({}, HOST_QUOTA, 3600),
        ({"date": "Mon, 02 Mar 2026 12:00:00 GMT", "x-ratelimit-reset": "1772452807"}, {"code": 429}, 7),
        ({"date": "Mon, 02 Mar 2026 12:00:00 GMT", "retry-after": "2026-03-02T13:00:00Z"}, {"code": 429}, 3600),
        ({"date": "Mon, 02 Mar 2026 12:00:00 GMT", "x-ratelimit-reset": "soon"}, {"code": 429}, None),
        ({"date": "yesterday"}, {"code": 429}, None),
    ],
)
async def test_when_to_come_back_is_read_from_what_zoom_tells(
    headers: dict[str, str], body: dict[str, int | str], seconds: float | None
) -> None:
    answer = Canned(429, encode_json(body), tuple(headers.items()))
    with pytest.raises(CallFailed) as caught:
        await zoom().create(connection(zoom(), answer), request())

    assert caught.value.retry_after == seconds


async def test_a_meeting_that_is_gone_is_deleted() -> None:
    await zoom().delete(connection(zoom(), canned({"code": 3001, "message": "gone"}, 404)), "1")

    with pytest.raises(Rejected):
        await zoom().delete(connection(zoom(), canned({"code": 3000, "message": "running"}, 400)), "1")


# With a Zoom that remembers


async def test_a_meeting_is_made_found_read_and_deleted() -> None:
    async with Practice() as practice:
        meeting = await practice.book(topic="Consultation", prefer={Feature.PASSCODE})
        provider = zoom()
        http = practice.runtime.http(provider)
        wanted = request(token=meeting.attempts[0].token)
        found = await provider.find(http, wanted)
        missing = await provider.find(http, request())
        host = await practice.meetings.host_url("booking-1")
        await practice.passing(practice.meetings.cancel("booking-1"))
        gone = await provider.find(http, wanted)

    assert found is not None
    assert (found.vendor_id, found.join_url) == (meeting.vendor_id, meeting.join_url)
    assert (missing, gone) == (None, None)
    assert "zak=" in host.reveal()
    assert meeting.degraded == frozenset()
    [deleted] = practice.zoom.ledger.entries(Kind.MEETING_DELETED, key="Consultation")
    assert deleted.id == meeting.vendor_id


async def test_a_search_reads_every_page_and_only_the_days_around_the_start() -> None:
    async with Practice(quota=10_000) as practice:
        provider = zoom()
        http = practice.runtime.http(provider)
        for number in range(301):
            await provider.create(http, request(token=f"{number:026}"))
        await provider.create(http, request(token="z" * 26, starts_at=START + timedelta(days=9)))
        last = await provider.find(http, request(token=f"{300:026}"))
        pages = len([asked for asked in practice.zoom.requests if asked.method == "GET"])

    assert last is not None
    assert pages == 2


async def test_one_token_serves_all_calls_and_is_fetched_again_once_it_is_refused() -> None:
    async with Practice() as practice:
        await practice.book("booking-1")
        await practice.book("booking-2")
        assert practice.zoom.tokens_issued == 1
        practice.zoom.revoke()
        meeting = await practice.book("booking-3")

    assert practice.zoom.tokens_issued == 2
    assert meeting.route == ("zoom:made",)
    assert len(practice.zoom.live) == 3


async def test_a_hosts_spent_quota_is_no_outage_for_other_hosts() -> None:
    async with Practice(LocalVendor(), quota=1) as practice:
        routes = [(await practice.book(f"booking-{number}")).route for number in range(20)]
        other = await practice.book("booking-x", host="bob@example.org")

    assert routes == [("zoom:made",), *[("zoom:failed", "local:made")] * 19]
    assert other.route == ("zoom:made",)


async def test_a_host_nobody_knows_is_a_reason_to_ask_elsewhere() -> None:
    async with Practice(LocalVendor(), hosts=frozenset({"bob@example.org"})) as practice:
        meeting = await practice.book()

    assert meeting.route == ("zoom:failed", "local:made")


@pytest.mark.parametrize("fault", [Reset(), Reset(after_bytes=40), BadJson(), Html(), Status(500), Status(503)])
async def test_after_a_lost_answer_there_is_one_meeting_whatever_was_lost(
    fault: Reset | BadJson | Html | Status,
) -> None:
    async with Practice(LocalVendor()) as practice:
        practice.zoom.faults.on("zoom", "meetings.create").script(fault)
        meeting = await practice.book()
        for _ in range(10):
            await practice.clock.advance(6 * 3600)
            await practice.passing(practice.meetings.sweep())

    lost_before_effect = isinstance(fault, Status)
    assert meeting.provider == ("local" if lost_before_effect else "zoom")
    assert [str(held.id) for held in practice.zoom.live] == ([] if lost_before_effect else [meeting.vendor_id])


async def test_an_orphan_is_swept_when_the_search_came_too_late() -> None:
    async with Practice(LocalVendor()) as practice:
        practice.zoom.faults.on("zoom", "meetings.create").script(Reset())
        practice.zoom.faults.on("zoom", "meetings.find").script(Unreachable(), Unreachable(), Unreachable())
        meeting = await practice.book()
        assert (meeting.provider, len(practice.zoom.live)) == ("local", 1)
        await practice.clock.advance(45)
        await practice.passing(practice.meetings.sweep())
        swept = await practice.meetings.get("booking-1")

    assert practice.zoom.live == []
    assert swept.attempts[0].state is TryState.DELETED
    assert swept.join_url == meeting.join_url


# Webhooks


def signed(body: bytes, secret: str = "zoom-secret-token", *, at: datetime = NOON) -> RawRequest:
    time = str(int(at.timestamp()))
    mac = hmac.new(secret.encode(), f"v0:{time}:".encode() + body, hashlib.sha256).hexdigest()
    return incoming(body, ("x-zm-request-timestamp", time), ("x-zm-signature", f"v0={mac}"))


@pytest.mark.parametrize(
    ("asked", "valid"),
    [
        (signed(b"{}"), True),
        (signed(b"{}", "another"), False),
        (signed(b"{}", at=NOON - timedelta(seconds=301)), False),
        (incoming(b"{}"), False),
    ],
)
def test_only_what_is_rightly_and_freshly_signed_is_believed(asked: RawRequest, valid: bool) -> None:
    assert zoom().scheme.verify(asked, Secrets("zoom-secret-token")).valid is valid


def test_the_time_a_signature_stays_good_can_be_set() -> None:
    late = signed(b"{}", at=NOON - timedelta(minutes=85))

    assert zoom(webhook_tolerance=5400).scheme.verify(late, Secrets("zoom-secret-token")).valid


@pytest.mark.skipif(not SPECS.exists(), reason="the shared vectors are not on this machine")
def test_the_published_vectors_are_met() -> None:
    rows = {row["provider"]: row for row in json.loads((SPECS / "signature-vectors.json").read_text())["webhooks"]}
    vector, validation = rows["zoom"], rows["zoom-url-validation"]
    headers = (("x-zm-request-timestamp", vector["timestamp"]), ("x-zm-signature", vector["value"]))
    arrived = RawRequest(
        method="POST",
        url="https://x.test",
        headers=headers,
        body=vector["body"].encode(),
        received_at=datetime.fromtimestamp(int(vector["timestamp"]), UTC),
    )
    asked: JsonOut = {"event": "endpoint.url_validation", "payload": {"plainToken": validation["plainToken"]}}
    answer = zoom().handshake(signed(encode_json(asked)))

    assert zoom().scheme.verify(arrived, Secrets(vector["secret"])).valid
    assert answer is not None
    assert json.loads(answer.body) == {name: validation[name] for name in ("plainToken", "encryptedToken")}


def test_a_validation_is_answered_with_the_secret_it_was_signed_with() -> None:
    provider = zoom(webhook_secret=Secrets("new", "old"))
    body = encode_json({"event": "endpoint.url_validation", "payload": {"plainToken": "plain"}})
    answer = provider.handshake(signed(body, "old"))

    assert answer is not None
    assert json.loads(answer.body)["encryptedToken"] == hmac.new(b"old", b"plain", hashlib.sha256).hexdigest()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"event": "meeting.started"}'])
def test_what_is_no_validation_gets_no_handshake(body: bytes) -> None:
    assert zoom().handshake(signed(body)) is None


def event(name: str, about: Mapping[str, object], at: int = 1700000000123, **more: object) -> bytes:
    payload = {"account_id": "acc", "object": about}
    return json.dumps({"event": name, "event_ts": at, "payload": payload, **more}).encode()


JOINED = {"id": "85746065", "uuid": "4444AAA==", "participant": {"user_id": "16778240", "participant_uuid": "p-1"}}


@pytest.mark.parametrize(
    ("body", "key", "vendor_id"),
    [
        (event("meeting.created", {"id": 85746065}), "meeting.created:85746065:1700000000123", "85746065"),
        (event("meeting.started", {"id": "7", "uuid": "u=="}), "meeting.started:u==:1700000000123", "7"),
        (
            event("meeting.participant_joined", JOINED),
            "meeting.participant_joined:4444AAA==:1700000000123:p-1",
            "85746065",
        ),
        (
            event(
                "recording.completed",
                {"id": 7, "uuid": "u==", "recording_files": [{"recording_end": "2026-03-02T12:00:00Z"}, {}]},
            ),
            "recording.completed:u==:1700000000123::2026-03-02T12:00:00Z",
            "7",
        ),
    ],
)
def test_an_event_is_known_by_what_happened_to_whom_and_when(body: bytes, key: str, vendor_id: str) -> None:
    (delivery,) = zoom().parse(incoming(body))

    assert (delivery.dedup_key, delivery.vendor_id, delivery.recognised) == (key, vendor_id, True)


def test_a_recording_delivered_with_another_download_token_is_the_same() -> None:
    bodies = [event("recording.completed", {"id": 7}, download_token=token) for token in ("one", "two")]
    one, two = (zoom().parse(incoming(body))[0] for body in bodies)

    assert (one.dedup_key, one.digest) == (two.dedup_key, two.digest)


def test_an_event_nobody_knows_is_kept_and_an_unreadable_one_is_said_to_be() -> None:
    (delivery,) = zoom().parse(incoming(event("phone.rang", {})))
    assert (delivery.type, delivery.recognised) == ("phone.rang", False)

    with pytest.raises(ValueError, match="event"):
        zoom().parse(incoming(b"{}"))


async def test_a_hanging_zoom_does_not_keep_the_caller_waiting() -> None:
    async with Practice(LocalVendor()) as practice:
        practice.zoom.faults.on("zoom").always(Hang())
        before = practice.clock.monotonic()
        meeting = await practice.book()
        waited = practice.clock.monotonic() - before
        await practice.clock.advance(120)

    assert meeting.provider == "local"
    assert waited <= 1.5
