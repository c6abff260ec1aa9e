"""Only who has the secret is believed, and the operator learns why somebody was not."""

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidInput
from holdfast.values import Secret, Secrets
from holdfast.webhooks.request import RawRequest, ReceivedHeaders
from holdfast.webhooks.signatures import (
    HmacBody,
    HmacPairs,
    HmacTimestamped,
    KeyedUrl,
    Scheme,
    SharedSecretHeader,
    Verdict,
    read_path,
    sign_path,
    verify_path,
)

SPECS = Path(__file__).parents[3] / "shared" / "specs"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "correct-horse-battery-staple"
BODY = '{"id":"abc","name":"Grüezi","n":[1,2]}'.encode()

SBP = HmacBody("sbp-sig", prefix="sha256=")
ZOOM = HmacTimestamped("x-zm-signature", "x-zm-request-timestamp")
TELEGRAM = SharedSecretHeader("X-Telegram-Bot-Api-Secret-Token")
STRIPE = HmacPairs("stripe-signature")
KEYED = KeyedUrl("lnbits")


def arrived(
    headers: Mapping[str, str], body: bytes = BODY, *, url: str = "https://x.example/hooks", at: datetime = NOW
) -> RawRequest:
    return RawRequest(
        method="POST",
        url=url,
        headers=[(name.lower(), value) for name, value in headers.items()],
        body=body,
        received_at=at,
    )


def mac(message: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def sbp(signed: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"sbp-sig": "sha256=" + mac(signed, secret)}


def zoom(body: bytes, *, age: float = 0, secret: str = SECRET) -> dict[str, str]:
    timestamp = str(int(NOW.timestamp() - age))
    signature = "v0=" + mac(f"v0:{timestamp}:".encode() + body, secret)
    return {"x-zm-request-timestamp": timestamp, "x-zm-signature": signature}


def stripe(body: bytes, *more: str, age: float = 0, secret: str = SECRET) -> dict[str, str]:
    timestamp = str(int(NOW.timestamp() - age))
    signature = mac(f"{timestamp}.".encode() + body, secret)
    return {"stripe-signature": ",".join([f"t={timestamp}", f"v1={signature}", *more])}


# Vectors from elsewhere


def test_the_vector_of_swiss_bitcoin_pay() -> None:
    # given
    body = b'{"id":"abc","status":"settled"}'
    signature = "sha256=f633a84a311e3184ec5aa3841bf7de45dbc957e74ce8f56ac37439e77f6a5b65"

    # then
    assert SBP.verify(arrived({"SBP-Sig": signature}, body), Secrets("sbp-test-secret")) == Verdict(valid=True)


def vectors(path: str, key: str, names: str, chosen: Callable[[dict[str, Any]], bool]) -> list[Any]:
    """The published vectors, or one skipped test where they are not on this machine."""
    file = SPECS / path
    if not file.exists():
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"{path} is not here"))]
    found = [vector for vector in json.loads(file.read_text())[key] if chosen(vector)]
    return [pytest.param(vector, id=vector[names]) for vector in found]


PUBLISHED = {"slack", "zoom", "stripe", "sha256-header"}


@pytest.mark.parametrize(
    "vector",
    vectors("signature-vectors.json", "vectors", "id", lambda v: v["scheme"] in PUBLISHED),
)
def test_published_vectors(vector: dict[str, Any]) -> None:
    # given
    scheme: Scheme
    at = datetime.fromtimestamp(vector.get("now", 0), UTC)
    match vector["scheme"]:
        case "slack":
            scheme = HmacTimestamped("x-slack-signature", "x-slack-request-timestamp")
        case "stripe":
            scheme = STRIPE
        case "zoom":  # computed from a test that writes milliseconds: only the signature can be judged
            scheme = HmacTimestamped("x-zm-signature", "x-zm-request-timestamp", tolerance=1e15)
        case _:
            scheme = HmacBody(next(iter(vector["headers"])), prefix="sha256=")

    # when
    request = arrived(vector["headers"], vector["body"].encode(), at=at)

    # then
    assert scheme.verify(request, Secrets(vector["secret"])).valid is vector["valid"]


@pytest.mark.parametrize(
    "vector",
    vectors(
        "meetings/signature-vectors.json", "webhooks", "provider", lambda v: v["provider"] in {"zoom", "agora", "daily"}
    ),
)
def test_vectors_of_meeting_vendors(vector: dict[str, Any]) -> None:
    # given
    scheme: Scheme
    headers = {vector["header"]: vector["value"], "timestamp": vector.get("timestamp", "0")}
    secret = vector.get("secret", "")
    match vector["provider"]:
        case "agora":
            scheme = HmacBody("agora-signature-v2")
        case "daily":
            scheme = HmacTimestamped(
                vector["header"], "timestamp", signed="{timestamp}.{body}", prefix="", encoding="base64"
            )
            secret = "daily-hmac-key-0123456789abcdef"
        case _:
            scheme = HmacTimestamped(vector["header"], "timestamp")

    # when
    request = arrived(headers, vector["body"].encode(), at=datetime.fromtimestamp(1700000000, UTC))

    # then
    assert scheme.verify(request, Secrets(secret)).valid
    assert scheme.verify(request, Secrets(secret + "x")).reason == "wrong_signature"


# Secrets that rotate


@pytest.mark.parametrize(
    ("scheme", "headers"),
    [
        (SBP, sbp(BODY, "old")),
        (ZOOM, zoom(BODY, secret="old")),
        (TELEGRAM, {"x-telegram-bot-api-secret-token": "old"}),
    ],
)
def test_every_secret_is_tried_and_the_verdict_says_which(scheme: Scheme, headers: dict[str, str]) -> None:
    assert scheme.verify(arrived(headers), Secrets("new", "old", "oldest")) == Verdict(valid=True, secret=1)
    assert scheme.verify(arrived(headers), Secrets("old")) == Verdict(valid=True, secret=0)


# Why a request is not believed


@pytest.mark.parametrize(
    ("scheme", "headers", "reason", "hint"),
    [
        (SBP, {}, "missing_header", "sbp-sig is missing"),
        (SBP, {"sbp-sig": mac(BODY)}, "malformed_header", "does not begin with sha256="),
        (SBP, {"sbp-sig": "sha256=xyz"}, "malformed_header", "not hex"),
        (SBP, {"sbp-sig": "sha256=" + "é" * 64}, "malformed_header", "not hex"),
        (SBP, {"sbp-sig": "sha256=ab"}, "malformed_header", "length"),
        (SBP, sbp(b"other"), "wrong_signature", "the vendor's dashboard"),
        (HmacBody("sig", encoding="base64"), {"sig": "!"}, "malformed_header", "not base64"),
        (ZOOM, {"x-zm-signature": "v0=" + mac(b"")}, "missing_header", "x-zm-request-timestamp"),
        (ZOOM, zoom(BODY) | {"x-zm-request-timestamp": ""}, "malformed_header", "not a number"),
        (ZOOM, zoom(BODY) | {"x-zm-request-timestamp": "-1"}, "malformed_header", "not a number"),
        (ZOOM, zoom(BODY) | {"x-zm-request-timestamp": "1"}, "wrong_signature", "dashboard"),
        (ZOOM, zoom(BODY, age=412), "stale", "412 s before"),
        (ZOOM, zoom(BODY, age=-412), "future", "412 s in our future"),
        (ZOOM, zoom(BODY, age=-999 * NOW.timestamp()), "future", "milliseconds"),
        (TELEGRAM, {}, "missing_header", "missing"),
        (TELEGRAM, {"x-telegram-bot-api-secret-token": "other"}, "wrong_signature", "register the webhook again"),
    ],
)
def test_a_refusal_says_why(scheme: Scheme, headers: dict[str, str], reason: str, hint: str) -> None:
    # when
    verdict = scheme.verify(arrived(headers), Secrets(SECRET))

    # then
    assert (verdict.valid, verdict.reason) == (False, reason)
    assert hint in verdict.hint


@pytest.mark.parametrize("age", [-300, 0, 300])
def test_five_minutes_of_drift_are_fine_either_way(age: int) -> None:
    assert ZOOM.verify(arrived(zoom(BODY, age=age)), Secrets(SECRET)).valid


@pytest.mark.parametrize(
    ("signed", "came", "hint"),
    [
        (BODY, json.dumps(json.loads(BODY)).encode(), "re-serialised"),
        (BODY, json.dumps(json.loads(BODY), indent=4, ensure_ascii=False).encode(), "re-serialised"),
        (json.dumps(json.loads(BODY)).encode(), BODY, "re-serialised"),
        (json.dumps(json.loads(BODY), ensure_ascii=False, indent=2).encode(), BODY, "re-serialised"),
        (BODY, BODY + b"\n", "line end"),
        (BODY + b"\n", BODY, "line end"),
        (BODY + b"\r\n", BODY, "line end"),
        (BODY, b"  " + BODY, "line end"),
        (b"a=1\nb=2", b"a=1\r\nb=2", "line end"),
        (BODY, b"", "arrived empty"),
    ],
)
@pytest.mark.parametrize("sign", [sbp, zoom])
def test_the_hint_finds_what_changed_the_body(
    sign: Callable[[bytes], dict[str, str]], signed: bytes, came: bytes, hint: str
) -> None:
    # when
    scheme = SBP if sign is sbp else ZOOM
    verdict = scheme.verify(arrived(sign(signed), came), Secrets("older", SECRET))

    # then
    assert (verdict.valid, verdict.reason) == (False, "wrong_signature")
    assert hint in verdict.hint


def test_the_hint_finds_a_secret_copied_with_its_line_end() -> None:
    verdict = SBP.verify(arrived(sbp(BODY)), Secrets(SECRET + "\n"))
    assert not verdict.valid
    assert "blanks or a line end" in verdict.hint


def test_a_large_body_is_not_examined_for_a_hint() -> None:
    body = b'{"a": "' + b"x" * 100_000 + b'"}'
    compact = json.dumps(json.loads(body), separators=(",", ":")).encode()
    assert "dashboard" in SBP.verify(arrived(sbp(compact), body), Secrets(SECRET)).hint


def test_two_different_signatures_are_one_too_many() -> None:
    # given
    right, wrong = sbp(BODY)["sbp-sig"], sbp(b"other")["sbp-sig"]
    request = RawRequest(
        method="POST", url="", headers=[("sbp-sig", right), ("sbp-sig", wrong)], body=BODY, received_at=NOW
    )

    # then
    assert SBP.verify(request, Secrets(SECRET)).reason == "malformed_header"


# Our own MAC in the URL


def test_a_signed_path_is_recognised() -> None:
    # given
    path = sign_path(Secret(SECRET), "lnbits", "att-1.2:x")
    request = arrived({}, url=f"https://api.example.ch/webhooks{path}?x=1")

    # then
    signed = read_path(request.url)
    assert signed is not None
    assert (signed.provider, signed.attempt_id, len(signed.mac)) == ("lnbits", "att-1.2:x", 32)
    assert KEYED.verify(request, Secrets("new", SECRET)) == Verdict(valid=True, secret=1)
    assert verify_path(Secrets("other"), signed) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.replace("a1", "a2"), "wrong_signature"),
        (lambda path: path.replace("/lnbits/", "/momo/"), "malformed_url"),
        (lambda path: path[:-1], "malformed_url"),
        (lambda path: path[:-32] + "0" * 32, "wrong_signature"),
        (lambda path: path.upper(), "malformed_url"),
        (lambda path: path + "/", "malformed_url"),
        (lambda path: path + "%0A", "malformed_url"),
        (lambda path: "/lnbits/a1", "malformed_url"),
        (lambda path: "", "malformed_url"),
        (lambda path: "//[", "malformed_url"),
    ],
)
def test_a_changed_path_is_refused(change: Callable[[str], str], reason: str) -> None:
    request = arrived({}, url=change(sign_path(Secret(SECRET), "lnbits", "a1")))
    assert KEYED.verify(request, Secrets(SECRET)).reason == reason


def test_a_path_of_one_provider_is_none_of_another() -> None:
    mac_of = {
        sign_path(Secret(SECRET), name, attempt).rpartition(".")[2] for name, attempt in [("a", "bc"), ("ab", "c")]
    }
    assert len(mac_of) == 2


@pytest.mark.parametrize(("provider", "attempt"), [("a/b", "c"), ("a", "b/c"), ("", "c"), ("a", ""), ("a", "b\n")])
def test_a_name_that_would_change_the_path_is_refused(provider: str, attempt: str) -> None:
    with pytest.raises(InvalidInput):
        sign_path(Secret(SECRET), provider, attempt)


def test_the_url_key_signs_nothing_else() -> None:
    path = sign_path(Secret(SECRET), "lnbits", "a1")
    assert mac(b"lnbits/a1")[:32] not in path


def test_of_equal_secrets_the_first_is_the_one_that_matched() -> None:
    assert SBP.verify(arrived(sbp(BODY)), Secrets("new", SECRET, SECRET)) == Verdict(valid=True, secret=1)


# Pairs in one header


def test_one_right_signature_among_several_is_enough() -> None:
    wrong = f"v1={mac(b'another', 'another')}"
    headers = stripe(BODY, wrong, "v0=what", "junk", "v2")

    assert STRIPE.verify(arrived(headers), Secrets("new", SECRET)) == Verdict(valid=True, secret=1)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "missing_header"),
        ("", "malformed_header"),
        ("t=1", "malformed_header"),
        (f"v1={'0' * 64}", "malformed_header"),
        (f"t=1,t=2,v1={'0' * 64}", "malformed_header"),
        (f"t=1,{','.join([f'v1={0:064}'] * 5)}", "malformed_header"),
        (f"t=x,v1={'0' * 64}", "malformed_header"),
        ("t=1,v1=zz", "malformed_header"),
        ("t=1,v1=00", "malformed_header"),
        (f"t=1,v1={'0' * 64}", "wrong_signature"),
    ],
)
def test_pairs_that_prove_nothing(header: str | None, reason: str) -> None:
    headers = {} if header is None else {"stripe-signature": header}

    assert STRIPE.verify(arrived(headers), Secrets(SECRET)).reason == reason


@pytest.mark.parametrize(("age", "reason"), [(301, "stale"), (-301, "future"), (300, ""), (-300, "")])
def test_the_time_in_a_pair_counts(age: float, reason: str) -> None:
    assert STRIPE.verify(arrived(stripe(BODY, age=age)), Secrets(SECRET)).reason == reason


# Headers


def test_headers_of_a_server_read_as_text_in_order() -> None:
    headers = ReceivedHeaders([(b"a", b"1"), (b"b", b"\xe9"), (b"a", b"3")])
    request = RawRequest(method="POST", url="", headers=headers, body=b"", received_at=NOW)

    assert list(headers) == [("a", "1"), ("b", "é"), ("a", "3")]
    assert (len(headers), headers[1], headers[1:]) == (3, ("b", "é"), [("b", "é"), ("a", "3")])
    assert (request.all("A"), request.header("B"), request.header("é")) == (["1", "3"], "é", None)


# Whatever arrives

texts = st.text(max_size=80)
names = st.sampled_from([*("sbp-sig", "x-zm-signature", "x-zm-request-timestamp", "x", "stripe-signature")])
pairs = st.lists(st.sampled_from(["t", "v1", "v0", ""]).flatmap(lambda name: st.builds(f"{name}={{}}".format, texts)))
values = (
    texts
    | pairs.map(",".join)
    | st.builds("sha256={}".format, texts)
    | st.builds("v0={}".format, texts)
    | st.just("v0=" + mac(BODY))
)
bodies = st.binary() | st.just(BODY) | st.just(b"[" * 5000) | st.just(b'"\\ud800"') | st.just(b"1" * 5000)


SCHEMES = [SBP, ZOOM, TELEGRAM, KEYED, STRIPE, HmacBody("x", encoding="base64", algorithm="sha1")]


@pytest.mark.parametrize("scheme", SCHEMES)
@given(
    headers=st.lists(st.tuples(names, values)),
    body=bodies,
    url=texts | st.builds("https://x.example/lnbits/{}".format, texts),
    secrets=st.lists(st.text(min_size=1), min_size=1, max_size=3),
)
def test_nothing_that_arrives_raises_or_shows_a_secret(
    scheme: Scheme, headers: list[tuple[str, str]], body: bytes, url: str, secrets: list[str]
) -> None:
    # given
    hidden = [f"{text}-{SECRET}" for text in secrets]
    request = RawRequest(method="POST", url=url, headers=headers, body=body, received_at=NOW)

    # when
    verdict = scheme.verify(request, Secrets(hidden))

    # then
    assert not verdict.valid
    assert verdict.reason
    assert verdict.hint
    assert not any(text in repr(verdict) for text in hidden)
    assert not any(mac(body, text) in repr(verdict) for text in hidden)


@given(st.binary(), st.text(min_size=1), st.text(st.characters(codec="ascii"), min_size=1))
def test_what_was_rightly_signed_is_believed(body: bytes, secret: str, other: str) -> None:
    key = secret.encode("utf-8", "surrogatepass")
    headers = {"sbp-sig": "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()}
    assert SBP.verify(arrived(headers, body), Secrets(other + "x" + secret, secret)) == Verdict(valid=True, secret=1)


def test_a_deep_body_is_not_examined_for_a_hint() -> None:
    body = b"[" * 40 + b"1, 2" + b"]" * 40
    indented = json.dumps(json.loads(body), indent=2).encode()  # of a deeper and longer one: 50 MB
    verdict = HmacBody("sbp-sig", prefix="sha256=").verify(arrived(sbp(indented), body), Secrets(SECRET))
    assert (verdict.valid, verdict.reason) == (False, "wrong_signature")
    assert "re-serialised" not in verdict.hint
