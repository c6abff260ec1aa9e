"""No secret in plain view: in any place, in any form, and never in the message that says so."""

import base64
import html
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote, quote_plus

import pytest

from holdfast import Holdfast, Secret, Secrets
from holdfast.providers import Telegram
from holdfast.queue.audit import Audit
from holdfast.testing.clock import ManualClock
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.secrets import assert_no_secrets, secrets_of, stored
from holdfast.testing.simulators.slack import SlackSimulator
from holdfast.testing.simulators.twilio import TwilioSimulator
from holdfast.testing.simulators.zoom import ZoomSimulator

CANARY = 'canary/\'"key"+4b1d=ü<&>>>>>???'
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "URL": lambda text: quote(text, safe=""),
    "URL, lower case": lambda text: re.sub("%..", lambda escape: escape[0].lower(), quote(text, safe="")),
    "form": quote_plus,
    "JSON": json.dumps,
    "JSON, as PHP writes it": lambda text: json.dumps(text).replace("/", r"\/"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON without escapes": lambda text: json.dumps(text, ensure_ascii=False),
    "repr": lambda text: repr([text, "'"]),
    "HTML": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 without padding": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 in a URL": lambda text: quote(base64.b64encode(text.encode()).decode(), safe=""),
    "Basic, as the password": lambda text: base64.b64encode(f"u:{text}".encode()).decode(),
    "Basic, as another password": lambda text: base64.b64encode(f"us:{text}".encode()).decode(),
    "Basic, as the name": lambda text: base64.b64encode(f"{text}:".encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
}


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_a_secret_is_found_in_every_form_it_travels_in(write: Callable[[str], str]) -> None:
    text = f"Authorization: {write(CANARY)};"
    with pytest.raises(AssertionError, match="written in plain view") as failed:
        assert_no_secrets(text, secrets=CANARY)
    with pytest.raises(AssertionError, match="written in plain view"):
        assert_no_secrets(text.encode(), secrets=CANARY)
    assert write(CANARY) not in str(failed.value)
    assert "canary" not in str(failed.value)


def test_the_canary_is_spelled_differently_in_each_form() -> None:
    spelled = base64.b64encode(CANARY.encode()).decode()
    assert {"+", "/"} <= set(spelled)
    assert CANARY not in repr(CANARY)


@pytest.mark.parametrize("length", range(6, 13))
@pytest.mark.parametrize("before", ["", "a", "ab", "abc:"])
def test_base64_is_found_at_every_offset_and_length(length: int, before: str) -> None:
    secret = "Zq7+/x~Yw9.K"[:length]
    text = base64.b64encode(f"{before}{secret}!more".encode()).decode()
    if length > 6:  # in three bytes of six nothing of it would be its own
        with pytest.raises(AssertionError, match="in base64"):
            assert_no_secrets(text, secrets=secret)
    assert_no_secrets(base64.b64encode(b"another text altogether").decode(), secrets=secret)


def test_what_is_no_secret_is_let_through() -> None:
    assert_no_secrets("canary", b"\xff\x00", {"a": [1, None, 2.5, True]}, secrets=CANARY)


def test_a_secret_that_shows_itself_to_nobody_is_in_no_place() -> None:
    assert_no_secrets(Secret(CANARY), Secrets(CANARY), [Secret(CANARY)], secrets=CANARY)


# Places


def error_with(**how: bool) -> BaseException:
    try:
        try:
            raise KeyError(CANARY if how.get("context") else "x")
        except KeyError as cause:
            if how.get("cause"):
                raise ValueError("caused") from OSError(CANARY)
            raise ValueError("happened meanwhile") from (None if how.get("context") else cause)
    except ValueError as error:
        return error


def noted() -> BaseException:
    error = ValueError("x")
    error.add_note(f"with {CANARY}")
    return error


def carrying() -> BaseException:
    error = ValueError("x")
    error.request = {"headers": [("api-key", CANARY)]}  # type: ignore[attr-defined]  # as clients' errors do
    return error


class Quiet(Exception):
    """Says nothing of what it carries."""

    def __str__(self) -> str:
        return "quiet"

    __repr__ = __str__


@dataclass
class Order:
    """A thing with a field."""

    note: str = field(repr=False)


def record(message: str, *arguments: object, extra: dict[str, object] | None = None) -> logging.LogRecord:
    return logging.getLogger("shop").makeRecord("shop", logging.INFO, "f", 1, message, arguments, None, extra=extra)


def span(**parts: object) -> SimpleNamespace:
    return SimpleNamespace(**({"name": "POST", "attributes": {}, "events": [], "links": []} | parts))


PLACES: dict[str, object] = {
    "a list in a dict": {"a": ["x", CANARY]},
    "a key": {CANARY: 1},
    "a field that no repr shows": Order(CANARY),
    "a generator": (text for text in ["x", CANARY]),
    "an object": SimpleNamespace(anything=CANARY),
    "bytes": bytearray(CANARY.encode()),
    "a log's message": record(CANARY),
    "a log's arguments": record("%s", CANARY),
    "a log's arguments that do not fit": record("%s %s", CANARY),
    "a log's extra": record("x", extra={"headers": {"api-key": CANARY}}),
    "an error": ValueError(CANARY),
    "an error's arguments": Quiet(1, CANARY),
    "an error's cause": error_with(cause=True),
    "an error's context": error_with(context=True),
    "an error's note": noted(),
    "an error's attribute": carrying(),
    "an error in a group": ExceptionGroup("x", [ValueError("y"), ExceptionGroup("z", [KeyError(CANARY)])]),
    "a span's name": span(name=CANARY),
    "a span's attribute": span(attributes={"http.url": CANARY}),
    "a span's event": span(events=[span(name="exception", attributes={"exception.message": CANARY})]),
    "a span's link": span(links=[SimpleNamespace(attributes={"a": CANARY})]),
    "a span's status": span(status=SimpleNamespace(description=CANARY)),
    "a span's resource": span(resource=SimpleNamespace(attributes={"a": CANARY})),
    "an exporter": SimpleNamespace(get_finished_spans=lambda: (span(attributes={"a": CANARY}),)),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_secret_is_found_wherever_it_stands(place: object) -> None:
    with pytest.raises(AssertionError, match="written in plain view") as failed:
        assert_no_secrets("fine", place, secrets={"stripe api_key": CANARY})
    assert "place 2" in str(failed.value)
    assert "stripe api_key (sha256 " in str(failed.value)
    assert "canary" not in str(failed.value)


def test_variables_of_the_frames_an_error_went_through_are_nobodys_text() -> None:
    def fail() -> None:
        api_key = CANARY
        raise ValueError(f"{len(api_key)} characters")

    with pytest.raises(ValueError, match="characters") as failed:
        fail()
    assert_no_secrets(failed.value, secrets=CANARY)


def test_a_log_is_read_with_its_errors(caplog: pytest.LogCaptureFixture) -> None:
    # given
    with caplog.at_level(logging.INFO):
        logging.getLogger("shop").info("fine")
        assert_no_secrets(caplog, secrets=CANARY)
        try:
            raise ValueError(CANARY)
        except ValueError:
            logging.getLogger("shop").exception("failed")

    # then
    with pytest.raises(AssertionError, match=r"records\[1\] \(shop, ERROR\).exc_info ValueError, at 0: "):
        assert_no_secrets(caplog, secrets=CANARY)
    caplog.clear()


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "shop.db").write_bytes(b"\x00\xff" + CANARY.encode() + b"\x00")
    with pytest.raises(AssertionError, match=r"shop.db, at 2: "):
        assert_no_secrets(tmp_path / "shop.db", secrets=CANARY)


def test_what_refers_to_itself_is_read_once() -> None:
    ring: list[object] = ["x"]
    ring.append(ring)
    error = ValueError("x")
    error.__cause__ = error
    assert_no_secrets(ring, error, secrets=CANARY)


def test_a_journal_is_read_as_it_is_shown() -> None:
    # given
    journal = Journal(ManualClock())
    journal.note("step", CANARY)

    # then
    with pytest.raises(AssertionError, match=r"place 1 \(Journal\) timeline"):
        assert_no_secrets(journal, secrets=CANARY)
    journal.conceal(CANARY)
    assert_no_secrets(journal, secrets=CANARY)


def test_a_ledger_is_read() -> None:
    ledger = Ledger(ManualClock())
    ledger.record(Kind.MESSAGE, vendor="slack", id="1", key="ada", facts={"text": CANARY})
    with pytest.raises(AssertionError, match="ledger"):
        assert_no_secrets(ledger, secrets=CANARY)


async def test_what_a_hub_keeps_is_read() -> None:
    async with Holdfast(store="memory://", clock=ManualClock()) as hub:

        @hub.call("tell")
        async def tell(text: str) -> None:
            raise AssertionError(text)

        # given
        for number in range(120):
            await hub.outbox.add("tell", "fine", key=f"k{number}")
        assert_no_secrets(await stored(hub), secrets=CANARY)

        # when
        await hub.outbox.add("tell", CANARY, key="last")

        # then
        kept = await stored(hub)
        assert len(kept["jobs"]) == 121  # type: ignore[arg-type]  # a list
        with pytest.raises(AssertionError, match=r"jobs\[\d+\].body"):
            assert_no_secrets(kept, secrets=CANARY)


async def test_what_people_did_to_a_hub_is_read() -> None:
    async with Holdfast(store="memory://", clock=ManualClock()) as hub:

        @hub.call("tell")
        async def tell(text: str) -> None:
            raise AssertionError(text)

        await hub.outbox.add("tell", "fine", key="k1")
        [job] = await hub.queue.list()
        await hub.queue.reveal(job.id, by="ada", reason=f"because of {CANARY}")
        kept = await stored(hub)
    assert isinstance(kept["audits"][0], Audit)  # type: ignore[index]  # a list
    with pytest.raises(AssertionError, match=r"audits\[0\].reason"):
        assert_no_secrets(kept, secrets=CANARY)


def test_a_hub_itself_is_no_place() -> None:
    with pytest.raises(TypeError, match="await stored"):
        assert_no_secrets(Holdfast(store="memory://"), secrets=CANARY)


# Secrets


def test_a_simulators_credentials_are_taken_and_its_public_names_are_not() -> None:
    zoom, twilio, slack = ZoomSimulator(), TwilioSimulator(), SlackSimulator()

    assert set(secrets_of(zoom).values()) == {"zoom client_secret", "zoom webhook_secret"}
    assert {twilio.auth_token, twilio.key_secret} <= set(secrets_of(twilio))
    assert {"slack token", "slack client_secret", "slack incoming_webhook"} <= set(secrets_of(slack).values())
    for public in (zoom.account_id, zoom.client_id, twilio.account_sid, twilio.key_sid, slack.client_id):
        assert public not in secrets_of([zoom, twilio, slack])


def test_the_fakes_are_all_their_simulators() -> None:
    fakes = SimpleNamespace(simulators={"zoom": ZoomSimulator(webhook_secret="of-zoom"), "slack": SlackSimulator()})
    with pytest.raises(AssertionError, match=r"zoom webhook_secret \(sha256"):
        assert_no_secrets("of-zoom", secrets=fakes)


def test_webhook_secrets_that_were_rolled_are_secrets_still() -> None:
    # given
    zoom = ZoomSimulator(webhook_secret="first-secret")

    # when
    zoom.roll_secret()
    zoom.roll_secret()

    # then
    assert {"first-secret", zoom.old_secret, zoom.webhook_secret} <= set(secrets_of(zoom))


def test_a_providers_secrets_are_taken() -> None:
    provider = Telegram(token=Secret("4711:canary-token"), webhook_secret=Secrets("new-secret", "old-secret"))
    assert set(secrets_of(provider)) == {"4711:canary-token", "new-secret", "old-secret"}


@pytest.mark.parametrize("given", [[], {}, SimpleNamespace(simulators={}), ()])
def test_without_a_secret_nothing_is_proven(given: object) -> None:
    with pytest.raises(ValueError, match="no secrets were given"):
        assert_no_secrets("text", secrets=given)


def test_a_secret_too_short_to_look_for_is_refused() -> None:
    with pytest.raises(ValueError, match="the secret pin is too short"):
        assert_no_secrets("text", secrets={"pin": "12345"})


def test_what_can_hold_no_secret_is_refused() -> None:
    with pytest.raises(TypeError, match="int holds no secrets"):
        assert_no_secrets("text", secrets=7)


def test_many_findings_are_counted() -> None:
    with pytest.raises(AssertionError, match="and 10 more"):
        assert_no_secrets([CANARY] * 30, secrets=CANARY)


def test_a_secret_in_a_name_is_not_shown_by_saying_where() -> None:
    with pytest.raises(AssertionError) as failed:
        assert_no_secrets({CANARY: {"x": CANARY}}, secrets=CANARY)
    assert "canary" not in str(failed.value)
