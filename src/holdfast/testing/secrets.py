"""No secret in a log, a span, an error or a store: `assert_no_secrets(caplog, spans, secrets=[fakes])`."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final, cast
from urllib.parse import quote, quote_plus

from holdfast.testing.places import stored, texts
from holdfast.values import Secret, Secrets

__all__ = ["assert_no_secrets", "secrets_of", "stored"]

_SHORTEST: Final = 6
"""Shorter ones would be found in anything."""
_SECRET_NAMES: Final = re.compile(r"(?:key|secret|token|password|incoming_webhook)$")
"""Credentials that are not public, as account ids are."""
_MOST: Final = 20
_Names = dict[str, str]


def assert_no_secrets(*places: object, secrets: object) -> None:
    """No secret is written in any of these places, in whatever form.

    Places are text and bytes, pytest's `caplog`, log records, spans, exceptions with their causes and notes, files by
    their `Path`, a journal, `await stored(hub)`, and collections of these. Secrets are text, `Secret`s, mappings of
    names to them, the fakes or a simulator, whose credentials and webhook secrets are taken, or providers. Forms are
    plain, URL-encoded, escaped for JSON, Python and HTML, hexadecimal, and base64, also amid other text as in Basic
    authentication. The message says where, and shows a fingerprint only.

    Raises:
        AssertionError: There is one.
        ValueError: No secret is given, or one that is too short to look for.
    """
    __tracebackhide__ = True
    wanted = secrets_of(secrets)
    forms = _forms_of(wanted)
    # The longest first, so that what is found is called what it is.
    pattern = re.compile(b"|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))
    found: list[str] = []
    for number, place in enumerate(places, 1):
        for where, text in texts(place, _kind(place, number)):
            masked = pattern.sub(b"***", where.encode()).decode("utf-8", "replace")
            for match in pattern.finditer(text):
                told = f"{masked}, at {match.start()}: {forms[match[0]]}"
                found += [told] if told not in found else []
    if found:
        more = f"\n  and {len(found) - _MOST} more" if len(found) > _MOST else ""
        raise AssertionError(
            "secrets are written in plain view:" + "".join(f"\n  {one}" for one in found[:_MOST]) + more
        )


def secrets_of(holder: object) -> Mapping[str, str]:
    """The secrets that it is or holds, and what each is called.

    Raises:
        ValueError: There is none, or one that is too short to look for.
        TypeError: It can hold none.
    """
    found: _Names = {}
    for name, secret in _secrets(holder, ""):
        if len(secret) < _SHORTEST:
            raise ValueError(
                f"the secret {name or 'given'} is too short to look for: fewer than {_SHORTEST} characters"
            )
        if name not in found.setdefault(secret, name).split(", "):
            found[secret] += f", {name}"
    if not found:
        raise ValueError("no secrets were given, so none could be found: secrets=[fakes]")
    return found


def _secrets(holder: object, name: str) -> Iterator[tuple[str, str]]:
    match holder:
        case str():
            yield name, holder
        case bytes():
            yield name, holder.decode("utf-8", "surrogateescape")
        case Secret():
            yield name, holder.reveal()
        case Mapping():
            for key, value in cast(Mapping[object, object], holder).items():
                yield from _secrets(value, f"{name} {key}".strip())
        case _ if hasattr(holder, "credentials"):
            yield from _of_simulator(holder)
        case _ if hasattr(holder, "simulators"):
            simulators: object = cast(Any, holder).simulators
            yield from _secrets(simulators, name)
        case _ if is_dataclass(holder) and not isinstance(holder, type):
            for field in fields(holder):
                value = getattr(holder, field.name)
                if isinstance(value, Secret | Secrets):
                    yield from _secrets(value, f"{getattr(holder, 'name', type(holder).__name__)} {field.name}")
        case Iterable():
            for item in cast(Iterable[object], holder):
                yield from _secrets(item, name)
        case _:
            raise TypeError(f"a {type(holder).__name__} holds no secrets")


def _of_simulator(simulator: Any) -> Iterator[tuple[str, str]]:
    known = {name: secret for name, secret in simulator.credentials.items() if _SECRET_NAMES.search(name)}
    known["webhook_secret"] = getattr(simulator, "webhook_secret", "")
    known["old webhook_secret"] = getattr(simulator, "old_secret", "")
    known |= {f"retired webhook_secret {n}": old for n, old in enumerate(getattr(simulator, "retired_secrets", ()))}
    yield from ((f"{simulator.vendor} {name}", secret) for name, secret in known.items() if secret)


def _forms_of(wanted: Mapping[str, str]) -> dict[bytes, str]:
    """Each form of each secret, and what to say when it is found."""
    forms: dict[bytes, str] = {}
    for secret, name in wanted.items():
        print_of = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        for form, written in _written(secret):
            forms.setdefault(written, f"{name or 'a secret'} (sha256 {print_of}…), {form}")
    return forms


def _written(secret: str) -> Iterator[tuple[str, bytes]]:
    raw = secret.encode("utf-8", "surrogateescape")
    yield "as it is", raw
    for form, text in _escaped(secret):
        yield form, text.encode("utf-8", "surrogateescape")
    yield "in hexadecimal", raw.hex().encode()
    yield "in hexadecimal", raw.hex().upper().encode()
    for spelled in _base64(raw):
        yield "in base64", spelled.encode()
        yield "in base64, URL-encoded", quote(spelled, safe="").encode()


def _escaped(secret: str) -> Iterator[tuple[str, str]]:
    for encoded in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield "URL-encoded", encoded
        yield "URL-encoded", re.sub("%[0-9A-F]{2}", lambda escape: escape[0].lower(), encoded)
    for json_text in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield "escaped for JSON", json_text
        yield "escaped for JSON", json_text.replace("/", r"\/")
        yield "escaped for JSON twice", json.dumps(json_text)[1:-1]
    yield "escaped for Python", repr(secret)[1:-1]
    yield "escaped for HTML", html.escape(secret)


def _base64(raw: bytes) -> Iterator[str]:
    """Amid other bytes, as behind `user:`, it is spelled in one of three ways; its edges there are not its own."""
    for before in range(3):
        spelled = base64.b64encode(bytes(before) + raw).decode()[(0, 2, 3)[before] :]
        own = spelled if spelled[-1] != "=" else spelled.rstrip("=")[:-1]
        if len(own) >= _SHORTEST:
            yield own
            yield own.replace("+", "-").replace("/", "_")


def _kind(place: object, number: int) -> str:
    name = type(place).__name__
    return f"place {number}" if isinstance(place, str | bytes) else f"place {number} ({name})"
