"""Signature schemes: total functions from raw bytes and secrets to a verdict."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, Protocol
from urllib.parse import unquote, urlsplit

from holdfast.errors import InvalidInput
from holdfast.values import Secret, Secrets
from holdfast.webhooks.request import RawRequest

Algorithm = Literal["sha1", "sha256", "sha512"]
Encoding = Literal["hex", "base64"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether to believe a request, and if not, why and what to look at."""

    valid: bool
    reason: str = ""
    """`missing_header`, `malformed_header`, `malformed_url`, `wrong_signature`, `stale`, `future`; empty when valid."""
    hint: str = ""
    """What the operator should check first, in one sentence; never a secret, never the expected signature."""
    secret: int = 0
    """Which secret matched: 0 is the current one, more means a rotated one is still in use."""


class Scheme(Protocol):
    """How one vendor proves that a request is its own."""

    def verify(self, request: RawRequest, secrets: Secrets) -> Verdict:
        """Judge the request; never raises, compares in constant time, tries every secret."""
        ...


@dataclass(frozen=True, slots=True)
class HmacBody:
    """An HMAC of the raw body in one header: `HmacBody("sbp-sig", prefix="sha256=")`."""

    header: str
    prefix: str = ""
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"

    def verify(self, request: RawRequest, secrets: Secrets) -> Verdict:
        found = _signature(request, self.header, self.prefix, self.algorithm, self.encoding)
        if isinstance(found, Verdict):
            return found
        return _judge(found, request.body, secrets, self.algorithm, lambda body: body)


@dataclass(frozen=True, slots=True)
class HmacTimestamped:
    """An HMAC of time and raw body, the time in a header of its own; Zoom's and Slack's `v0`.

    `HmacTimestamped("x-zm-signature", "x-zm-request-timestamp")`. The time may be `tolerance` seconds before or after
    `request.received_at`; a right signature with a wrong time is `stale` or `future`, and the hint has the seconds.
    """

    header: str
    timestamp_header: str
    signed: str = "v0:{timestamp}:{body}"
    prefix: str = "v0="
    tolerance: float = 300
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"

    def verify(self, request: RawRequest, secrets: Secrets) -> Verdict:
        found = _signature(request, self.header, self.prefix, self.algorithm, self.encoding)
        if isinstance(found, Verdict):
            return found
        timestamp = _only(request, self.timestamp_header)
        if isinstance(timestamp, Verdict):
            return timestamp
        if not _TIMESTAMP.fullmatch(timestamp):
            return _malformed(f"{self.timestamp_header} is not a number of seconds")
        template = self.signed.replace("{timestamp}", timestamp).encode()
        verdict = _judge(found, request.body, secrets, self.algorithm, lambda body: template.replace(b"{body}", body))
        return _fresh(int(timestamp), self.tolerance, request, verdict) if verdict.valid else verdict


@dataclass(frozen=True, slots=True)
class HmacPairs:
    """Time and signatures as pairs in one header, `t=1700000000,v1=5257a869…`, as Stripe writes them.

    `HmacPairs("stripe-signature")`. Up to four signatures may stand there, as while a secret is rotated: one has to
    fit. Pairs of other names are passed over.
    """

    header: str
    timestamp: str = "t"
    signature: str = "v1"
    signed: str = "{timestamp}.{body}"
    tolerance: float = 300
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"

    def verify(self, request: RawRequest, secrets: Secrets) -> Verdict:
        text = _only(request, self.header)
        if isinstance(text, Verdict):
            return text
        times: list[str] = []
        signatures: list[str] = []
        for pair in text.split(","):
            name, _, value = pair.strip().partition("=")
            if name == self.timestamp:
                times.append(value)
            elif name == self.signature:
                signatures.append(value)
        if len(times) != 1 or not 0 < len(signatures) <= _MOST_SIGNATURES:
            return _malformed(f"{self.header} has not one {self.timestamp}= and 1 to 4 {self.signature}=")
        timestamp = times[0]
        if not _TIMESTAMP.fullmatch(timestamp):
            return _malformed(f"{self.timestamp}= in {self.header} is not a number of seconds")
        template = self.signed.replace("{timestamp}", timestamp).encode()
        verdict = _malformed(f"{self.signature}= in {self.header} is not {self.encoding}")
        for signature in signatures:
            found = _bytes(signature, self.header, self.algorithm, self.encoding)
            if isinstance(found, Verdict):
                verdict = found
                continue
            verdict = _judge(
                found, request.body, secrets, self.algorithm, lambda body: template.replace(b"{body}", body)
            )
            if verdict.valid:
                return _fresh(int(timestamp), self.tolerance, request, verdict)
        return verdict


@dataclass(frozen=True, slots=True)
class SharedSecretHeader:
    """The secret itself in a header, as Telegram does; it proves who sent it, nothing about the body."""

    header: str

    def verify(self, request: RawRequest, secrets: Secrets) -> Verdict:
        given = _only(request, self.header)
        if isinstance(given, Verdict):
            return given
        # Hashed first, so that not even the length shows in the time taken.
        matched = _first_equal(_hash(_raw(given)), (_hash(_key(secret)) for secret in secrets))
        if matched is not None:
            return Verdict(valid=True, secret=matched)
        return _wrong(f"{self.header} holds another secret; register the webhook again with the current one")


@dataclass(frozen=True, slots=True)
class KeyedUrl:
    """Our own MAC in the path we gave to a vendor that signs nothing: `{public_url}/{provider}/{attempt_id}.{mac}`.

    The secrets are the hub's, not the vendor's.
    """

    provider: str

    def verify(self, request: RawRequest, secrets: Secrets) -> Verdict:
        signed = read_path(request.url)
        if signed is None or signed.provider != self.provider:
            return Verdict(
                valid=False,
                reason="malformed_url",
                hint=f"the path does not end in /{self.provider}/{{attempt}}.{{mac}}; did the vendor get all of it?",
            )
        matched = verify_path(secrets, signed)
        if matched is None:
            return _wrong("the URL was not made with any of the hub's secrets, or was changed on its way")
        return Verdict(valid=True, secret=matched)


@dataclass(frozen=True, slots=True)
class SignedPath:
    """What a path says before it is verified."""

    provider: str
    attempt_id: str
    mac: str


def sign_path(secret: Secret, provider: str, attempt_id: str) -> str:
    """`/{provider}/{attempt_id}.{mac}`, to be put behind `public_url`.

    Raises:
        InvalidInput: A name outside `A-Z a-z 0-9 . _ : -`.
    """
    for name in (provider, attempt_id):
        if not _NAME.fullmatch(name):
            raise InvalidInput("a provider and an attempt in a URL are 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    return f"/{provider}/{attempt_id}.{_mac(secret, provider, attempt_id)}"


def read_path(url: str) -> SignedPath | None:
    """The parts of such a URL or path, not verified; None when it has another form."""
    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        return None
    parts = _PATH.search(path)
    return SignedPath(*parts.groups()) if parts else None


def verify_path(secrets: Secrets, signed: SignedPath) -> int | None:
    """The number of the secret that made this path; None when none did."""
    expected = (_mac(secret, signed.provider, signed.attempt_id).encode() for secret in secrets)
    return _first_equal(_raw(signed.mac), expected)


_BY_CURRENT: Final = Verdict(valid=True)
_NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_PATH: Final = re.compile(r"/([A-Za-z0-9._:-]{1,128})/([A-Za-z0-9._:-]{1,128})\.([0-9a-f]{32})\Z", re.ASCII)
_SIZES: Final = {"sha1": 20, "sha256": 32, "sha512": 64}
_TIMESTAMP: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-fA-F]*", re.ASCII)
_NO_SECONDS: Final = 10**11
_MOST_SIGNATURES: Final = 4  # each costs us work before we know who sends it
_KEYED_URL: Final = b"holdfast keyed-url 1"  # what else this secret signs begins with other words
# Whoever has no secret must not make us work for a hint: a body of 64 KiB can be written in ways of 50 MB.
_LARGEST_EXAMINED: Final = 16 * 1024
_DEEPEST_EXAMINED: Final = 32


def _mac(secret: Secret, provider: str, attempt_id: str) -> str:
    message = b"\0".join((_KEYED_URL, _raw(provider), _raw(attempt_id)))
    return hmac.digest(_key(secret), message, "sha256").hex()[:32]


def _judge(
    signature: bytes, body: bytes, secrets: Secrets, algorithm: Algorithm, message: Callable[[bytes], bytes]
) -> Verdict:
    keys = [secret.reveal().encode("utf-8", "surrogatepass") for secret in secrets]
    matched = _match(signature, message(body), keys, algorithm)
    if matched is not None:
        return _BY_CURRENT if matched == 0 else Verdict(valid=True, secret=matched)
    return _wrong(_why(signature, body, keys, algorithm, message))


def _fresh(timestamp: int, tolerance: float, request: RawRequest, verdict: Verdict) -> Verdict:
    age = request.received_at.timestamp() - timestamp
    if age > tolerance:
        hint = f"rightly signed, but {age:.0f} s before it arrived: a replay, or this machine's clock is ahead"
        return Verdict(valid=False, reason="stale", hint=hint, secret=verdict.secret)
    if age < -tolerance:
        hint = f"rightly signed, but {-age:.0f} s in our future: set this machine's clock by NTP"
        if timestamp > _NO_SECONDS:
            hint = "rightly signed, but the time is written in milliseconds, not in seconds"
        return Verdict(valid=False, reason="future", hint=hint, secret=verdict.secret)
    return verdict


def _match(signature: bytes, message: bytes, keys: Sequence[bytes], algorithm: Algorithm) -> int | None:
    # Not `hmac.digest`: it lets go of the interpreter, also for what takes two microseconds, and must win it back.
    return _first_equal(signature, [hmac.new(key, message, algorithm).digest() for key in keys])


def _first_equal(given: bytes, expected: Iterable[bytes]) -> int | None:
    """Compares with every candidate, whichever matches, so that the time taken tells nothing."""
    matched = None
    for number, candidate in enumerate(expected):
        if hmac.compare_digest(given, candidate) and matched is None:
            matched = number
    return matched


def _why(
    signature: bytes, body: bytes, keys: Sequence[bytes], algorithm: Algorithm, message: Callable[[bytes], bytes]
) -> str:
    """Look for the body or the key that would have matched."""
    if not body:
        return "the body arrived empty: something before us consumed it"
    if len(body) <= _LARGEST_EXAMINED and _depth(body) <= _DEEPEST_EXAMINED:
        trimmed = [key.strip() for key in keys]
        if trimmed != keys and _match(signature, message(body), trimmed, algorithm) is not None:
            return "the configured secret has blanks or a line end around it"
        for changed, hint in _other_bodies(body):
            if changed != body and _match(signature, message(changed), keys, algorithm) is not None:
                return hint
    tried = "the secret" if len(keys) == 1 else f"any of the {len(keys)} secrets"
    return f"not signed with {tried}, or the body was changed; compare with the secret in the vendor's dashboard"


def _depth(body: bytes) -> int:
    """How deep the brackets are nested, those within texts included: indented, each level costs on every line."""
    return max(accumulate((byte in b"[{") - (byte in b"]}") for byte in body), default=0)


def _other_bodies(body: bytes) -> Iterator[tuple[bytes, str]]:
    blanks = "blanks or a line end were added to the body or taken from it on its way; verify the raw bytes"
    for changed in (body.strip(), body + b"\n", body + b"\r\n", body.replace(b"\r\n", b"\n")):
        yield changed, blanks
    try:
        value: object = json.loads(body)
        texts = [
            json.dumps(value, ensure_ascii=escape, separators=separators)
            for separators in ((",", ":"), (", ", ": "))
            for escape in (False, True)
        ]
        texts.append(json.dumps(value, ensure_ascii=False, indent=2))
        for text in texts:
            yield (
                text.encode(),
                "your proxy or framework re-serialised the body: verify the raw bytes, before any parser",
            )
    except (ValueError, RecursionError):
        return


def _signature(
    request: RawRequest, header: str, prefix: str, algorithm: Algorithm, encoding: Encoding
) -> bytes | Verdict:
    text = _only(request, header)
    if isinstance(text, Verdict):
        return text
    if not text.startswith(prefix):
        return _malformed(f"{header} does not begin with {prefix}")
    return _bytes(text.removeprefix(prefix), header, algorithm, encoding)


def _bytes(text: str, header: str, algorithm: Algorithm, encoding: Encoding) -> bytes | Verdict:
    try:
        signature = _decode(text, encoding)
    except ValueError:
        return _malformed(f"{header} is not {encoding}")
    if len(signature) != _SIZES[algorithm]:
        return _malformed(f"{header} has not the length of {algorithm}")
    return signature


def _decode(text: str, encoding: Encoding) -> bytes:
    if encoding == "base64":
        return base64.b64decode(text, validate=True)
    if not _HEX.fullmatch(text):
        raise ValueError
    return bytes.fromhex(text)


def _only(request: RawRequest, header: str) -> str | Verdict:
    """The header's value, blanks around it removed; a second one that differs is somebody's trick."""
    given = request.all(header)
    if len(given) == 1:
        return given[0].strip()
    values = {value.strip() for value in given}
    if not values:
        hint = (
            f"{header} is missing: not from the vendor, signing is off in its dashboard, or a proxy dropped the header"
        )
        return Verdict(valid=False, reason="missing_header", hint=hint)
    if len(values) > 1:
        return _malformed(f"{header} came more than once, with different values")
    return values.pop()


def _malformed(hint: str) -> Verdict:
    return Verdict(valid=False, reason="malformed_header", hint=hint)


def _wrong(hint: str) -> Verdict:
    return Verdict(valid=False, reason="wrong_signature", hint=hint)


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _key(secret: Secret) -> bytes:
    return _raw(secret.reveal())


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
