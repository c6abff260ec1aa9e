"""Signals reach every sink, disturb nobody, and show no secret."""

import base64
import inspect
import io
import json
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import telemetry as module
from holdfast.outcome import Cause
from holdfast.telemetry import (
    CallFinished,
    CircuitChanged,
    DeliveryArrived,
    JobFinished,
    LoggingSink,
    PaymentFlagged,
    Redactor,
    RetryScheduled,
    Security,
    Signal,
    Telemetry,
)
from holdfast.values import Secret, Secrets

SECRET = 'p@ss/wörd+"1&=\\é'
FINISHED = CallFinished("zoom", "create", "ok", 0.5, 1)
SIGNALS = [
    kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, Signal) and kind is not Signal
]


@pytest.fixture
def redactor() -> Redactor:
    redactor = Redactor()
    redactor.learn(Secret(SECRET))
    return redactor


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged at all, as text."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("holdfast")
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield written
    logger.removeHandler(handler)
    logger.setLevel(level)
    logger.propagate = propagates


# Sinks.


def test_every_sink_hears_every_signal_once() -> None:
    first: list[Signal] = []
    second: list[Signal] = []
    telemetry = Telemetry([first.append])
    telemetry.add(second.append)

    telemetry.emit(FINISHED)

    assert first == second == [FINISHED]


def test_without_a_sink_it_is_false_so_that_no_signal_need_be_made() -> None:
    telemetry = Telemetry()
    assert not telemetry

    telemetry.add(print)

    assert telemetry


def test_a_failing_sink_disturbs_neither_the_caller_nor_other_sinks_and_is_told_once(log: io.StringIO) -> None:
    heard: list[Signal] = []

    def broken(signal: Signal) -> None:
        raise RuntimeError("no disk")

    telemetry = Telemetry([broken, heard.append])

    for _ in range(3):
        telemetry.emit(FINISHED)

    assert heard == [FINISHED] * 3
    assert log.getvalue().count("a telemetry sink failed") == 1
    assert "no disk" in log.getvalue()


# Signals.


@pytest.mark.parametrize("kind", SIGNALS)
def test_every_signal_is_a_value_with_a_stable_name_and_a_sentence(kind: type[Signal]) -> None:
    assert is_dataclass(kind)
    assert kind.name.startswith("holdfast.")
    assert kind.level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
    assert (kind.__doc__ or "").endswith(".")
    assert not any("__dict__" in vars(base) for base in kind.__mro__)


def test_no_two_signals_share_a_name() -> None:
    names = [kind.name for kind in SIGNALS]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        (CallFinished, logging.DEBUG),
        (DeliveryArrived, logging.DEBUG),
        (RetryScheduled, logging.WARNING),
        (CircuitChanged, logging.WARNING),
        (PaymentFlagged, logging.ERROR),
        (Security, logging.ERROR),
    ],
)
def test_the_normal_is_quiet_what_we_do_for_you_warns_what_needs_you_is_an_error(
    kind: type[Signal], level: int
) -> None:
    assert kind.level == level


@pytest.mark.parametrize(
    ("signal", "severity"),
    [
        (DeliveryArrived("zoom", "accepted", "", ""), logging.DEBUG),
        (DeliveryArrived("zoom", "refused", "wrong_signature", ""), logging.WARNING),
        (JobFinished("events", "paid", "confirm", "done", 1), logging.DEBUG),
        (JobFinished("events", "paid", "confirm", "failed", 1), logging.WARNING),
        (JobFinished("events", "paid", "confirm", "dead", 24), logging.ERROR),
    ],
)
def test_one_signal_may_be_graver_than_another_of_its_kind(
    redactor: Redactor, caplog: pytest.LogCaptureFixture, signal: Signal, severity: int
) -> None:
    with caplog.at_level(logging.DEBUG, "holdfast"):
        LoggingSink(redactor)(signal)

    assert [record.levelno for record in caplog.records] == [severity]


def test_a_signal_becomes_a_line_of_its_own_logger_with_its_facts(
    redactor: Redactor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "holdfast"):
        LoggingSink(redactor)(CallFinished("zoom", "create", Cause.UNKNOWN, 0.0, 3))

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("holdfast.call", logging.DEBUG)
    assert record.getMessage() == "provider=zoom operation=create outcome=unknown seconds=0.0 attempts=3"
    assert record.__dict__["signal"] == "holdfast.call"
    assert record.__dict__["facts"]["attempts"] == 3


def test_what_is_empty_is_left_out(redactor: Redactor, log: io.StringIO) -> None:
    LoggingSink(redactor)(DeliveryArrived("zoom", "accepted", "", ""))

    assert log.getvalue() == "DEBUG holdfast.inbox.delivery provider=zoom result=accepted\n"


def test_a_level_nobody_wants_costs_no_line(redactor: Redactor, log: io.StringIO) -> None:
    logging.getLogger("holdfast").setLevel(logging.WARNING)

    LoggingSink(redactor)(FINISHED)
    LoggingSink(redactor)(RetryScheduled("zoom", "create", 1, 0.2))

    assert log.getvalue() == "WARNING holdfast.retry provider=zoom operation=create attempt=1 after=0.2\n"


def test_a_line_and_its_facts_show_no_secret(redactor: Redactor, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "holdfast"):
        LoggingSink(redactor)(Security("forged", "zoom", f"key {SECRET}"))

    (record,) = caplog.records
    assert SECRET not in record.getMessage()
    assert record.__dict__["facts"]["detail"] == "key ***"


def test_a_vendors_words_cannot_forge_a_line(redactor: Redactor, log: io.StringIO) -> None:
    LoggingSink(redactor)(DeliveryArrived("zoom", "refused", "bad\nERROR holdfast.security all is lost\r\x1b[2J", ""))

    assert len(log.getvalue().splitlines()) == 1
    assert "\x1b" not in log.getvalue()


# Redaction by value.


def spelled(text: str) -> dict[str, str]:
    raw = text.encode()
    return {
        "plain": text,
        "path": quote(text, safe=""),
        "path with slashes": quote(text),
        "lower case path": re.sub("%..", lambda escape: escape[0].lower(), quote(text, safe="")),
        "form": quote_plus(text),
        "json": json.dumps(text)[1:-1],
        "json with letters": json.dumps(text, ensure_ascii=False)[1:-1],
        "repr": repr(text)[1:-1],
        "hex": raw.hex(),
        "base64": base64.b64encode(raw).decode(),
        "base64 without padding": base64.b64encode(raw).decode().rstrip("="),
        "base64 for addresses": base64.urlsafe_b64encode(raw).decode(),
    }


@pytest.mark.parametrize("form", list(spelled(SECRET)))
def test_a_known_secret_is_blotted_in_every_form_it_travels_in(redactor: Redactor, form: str) -> None:
    text = spelled(SECRET)[form]

    assert redactor.redact(f"before <{text}> after") == "before <***> after"


@pytest.mark.parametrize("ahead", ["", "a", "ab", "api-user:"])
@pytest.mark.parametrize("behind", ["", "x", "xy", ":end"])
def test_a_known_secret_is_blotted_within_base64_of_more(redactor: Redactor, ahead: str, behind: str) -> None:
    text = base64.b64encode(f"{ahead}{SECRET}{behind}".encode()).decode()

    shown = redactor.redact(f"<{text}>")

    assert "***" in shown
    assert len(shown.replace("***", "")) <= len(ahead + behind) * 4 / 3 + 10


@given(secret=st.text(min_size=6, max_size=40), before=st.text(max_size=5), after=st.text(max_size=5))
def test_whatever_the_secret_no_form_of_it_is_left(secret: str, before: str, after: str) -> None:
    redactor = Redactor()
    redactor.learn(Secret(secret))

    for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()):
        if "*" not in form:
            assert form not in redactor.redact(before + form + after)


def test_every_secret_a_provider_holds_is_learnt() -> None:
    @dataclass(frozen=True)
    class Account:
        token: Secret

    @dataclass(frozen=True)
    class Provider:
        account: Account
        webhook: Secrets
        more: tuple[Secret, ...]
        named: dict[str, Secret]
        name: str = "vendor-name"
        key: Secret | None = None

    redactor = Redactor()
    redactor.learn(
        Provider(
            Account(Secret("first-secret")),
            Secrets("second-secret", "third-secret"),
            (Secret("fourth-secret"),),
            {"a": Secret("fifth-secret")},
        )
    )

    text = "first-secret second-secret third-secret fourth-secret fifth-secret vendor-name"
    assert redactor.redact(text) == "*** *** *** *** *** vendor-name"


def test_a_secret_inside_another_does_not_save_the_rest_of_it() -> None:
    redactor = Redactor()
    redactor.learn(Secrets("abcdef", "abcdef-and-more"))

    assert redactor.redact("abcdef-and-more abcdef") == "*** ***"


def test_what_is_too_short_to_be_a_secret_blots_nothing() -> None:
    redactor = Redactor()
    redactor.learn(Secrets("abc", "de"))

    assert redactor.redact("abc def decade") == "abc def decade"


def test_a_line_of_a_key_file_is_blotted_too() -> None:
    redactor = Redactor()
    redactor.learn(Secret("-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\n-----END KEY-----\n"))

    assert redactor.redact("got MIIEvQIBADANBgkqhkiG9w0BAQ") == "got ***"


def test_a_class_or_a_plain_object_teaches_nothing() -> None:
    @dataclass
    class Provider:
        token: Secret

    redactor = Redactor()
    for holder in (Provider, None, "text", 5, object()):
        redactor.learn(holder)

    assert redactor.redact("text 5") == "text 5"


# Redaction by shape.


@pytest.mark.parametrize(
    "secret",
    [
        "sk_live_51H8abcdefghij",
        "rk_test_51H8abcdefghij",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "xoxb-1234567890-abcdefghij",
        "123456789:AAEhBP0av28fvhbEXAMPLEabcdefghijklm",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "sbp_ck_1234567890",
    ],
)
def test_what_looks_like_a_secret_is_blotted_though_nobody_told(secret: str) -> None:
    assert Redactor().redact(f"before {secret} after") == "before *** after"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "POST https://api.telegram.org/bot123456789:AAEhBP0av28fvhbEXAMPLEabcdefghijklm/sendMessage",
            "POST https://api.telegram.org/bot***/sendMessage",
        ),
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer ***"),
        ("{'authorization': 'bearer abc'}", "{'authorization': 'bearer ***'}"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("https://zoom.us/j/1?pwd=abc&zak=def", "https://zoom.us/j/1?pwd=***&zak=***"),
        ("https://8x8.vc/room?jwt=abc", "https://8x8.vc/room?jwt=***"),
        ("/oauth?token=abc&x=1", "/oauth?token=***&x=1"),
        ("client_secret=abc&access_token=def", "client_secret=***&access_token=***"),
        ("postgresql://shop:hunter2@db/shop", "postgresql://***@db/shop"),
        ("redis://:hunter2@cache:6379", "redis://***@cache:6379"),
        ("key -----BEGIN RSA PRIVATE KEY-----\nMII\nE==\n-----END RSA PRIVATE KEY----- end", "key *** end"),
        ("-----BEGIN PRIVATE KEY-----\nMII cut of", "***"),
    ],
)
def test_a_secret_in_its_usual_place_is_blotted(text: str, shown: str) -> None:
    assert Redactor().redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "payment order-4711 of 120.00 CHF at 12:30:00",
        "https://api.example.com:8443/checkout/abc?page=2",
        "zoom: create rejected (404, code 3001): Meeting does not exist",
        "mail to ann@example.com at http://localhost:8025/inbox",
        "2026-01-01T00:00:00+00:00",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert Redactor().redact(text) == text


# As a filter.


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("shop").makeRecord("shop", logging.ERROR, "shop.py", 1, message, arguments, None)
    vars(made).update(extra)
    return made


def test_as_a_filter_it_redacts_the_message_with_its_arguments(redactor: Redactor) -> None:
    line = record("failed with %s and 100%% of %d", SECRET, 7)

    assert redactor.filter(line)

    assert line.getMessage() == "failed with *** and 100% of 7"


def test_as_a_filter_it_redacts_tracebacks_stacks_and_extras(redactor: Redactor) -> None:
    line = record("failed", stack_info=f"Stack {SECRET}", body=f"body {SECRET}", size=5)
    try:
        raise ValueError(f"bad key {SECRET}")
    except ValueError as error:
        line.exc_info = (ValueError, error, error.__traceback__)

    redactor.filter(line)
    text = logging.Formatter().format(line)

    assert SECRET not in text
    assert "ValueError: bad key ***" in text
    assert line.__dict__["body"] == "body ***"
    assert line.__dict__["size"] == 5


def test_as_a_filter_it_does_not_break_on_a_message_that_does_not_fit_its_arguments(redactor: Redactor) -> None:
    line = record("%d items", SECRET)

    assert redactor.filter(line)

    assert SECRET not in line.getMessage()
    assert "%d items" in line.getMessage()


def test_a_hostile_text_is_redacted_in_no_time() -> None:
    text = "-eyJ" * 65_536  # one that begins to look like a token at every fourth character

    began = time.perf_counter()
    redacted = Redactor().redact(text)

    assert redacted == text
    assert time.perf_counter() - began < 60


def test_a_failing_sinks_own_password_is_not_logged(log: io.StringIO) -> None:
    def broken(_signal: Signal) -> None:
        raise RuntimeError("cannot reach redis://:sesame-open@host")

    Telemetry([broken]).emit(FINISHED)

    assert "told once" in log.getvalue()
    assert "sesame" not in log.getvalue()


def test_extras_are_redacted_however_deep(redactor: Redactor) -> None:
    record = logging.makeLogRecord({"msg": "x", "nested": {"deep": [SECRET, (SECRET, 5)]}})

    redactor.filter(record)

    assert vars(record)["nested"] == {"deep": ["***", ("***", 5)]}


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("authorization: BEARER abcDEF123456", "abcDEF"),
        ("Authorization: Bearer  abcDEF123456", "abcDEF"),
        ("https://zoom.us/j/1?Pwd=AbCdEf.1", "AbCdEf"),
        ("x-api-key: 0123456789abcdef", "0123456789"),
        ('{"password": "hunter two"}', "hunter"),
        ("refresh_token=abcdef1234", "abcdef"),
        ("redirect=https%3A%2F%2Fx%3Ftoken%3DAbCdEf12", "AbCdEf"),
        ("pat_sk_live_51Hx1234abcd", "51Hx12"),
        ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN"),
        ("key-0123456789abcdef0123456789abcdef", "0123456789"),
        ("re_123456_abcdefghijklmnop", "abcdefghij"),
        ("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", "ngeVfQ"),
        ("https://hooks.slack.com/services/T000/B000/XXXXYYYY", "XXXXYYYY"),
    ],
)
def test_more_that_looks_like_a_secret_is_blotted_out(text: str, secret: str) -> None:
    redacted = Redactor().redact(text)

    assert secret not in redacted
    assert "***" in redacted
