"""Recording the shapes of a sandbox's answers, and looking whether they still hold."""

import json
from collections.abc import Iterator, Mapping
from os import environ
from typing import Final, Literal, cast
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from holdfast.errors import CallFailed, InvalidInput, MissingCredential
from holdfast.http.origin import is_loopback, require_https
from holdfast.outcome import Cause
from holdfast.testing.drift.sandboxes import SANDBOXES, Read, Sandbox
from holdfast.testing.drift.shapes import Change, Shape, compare, shape_of

LARGEST: Final = 8 * 1024 * 1024
TIMEOUT: Final = 20.0


class Answered(BaseModel):
    """What one read was answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: int
    shape: Shape


class Baseline(BaseModel):
    """The shapes of one vendor's answers; nothing of what they said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    vendor: str
    base_url: str
    reads: dict[str, Answered]
    """By path, with its `{names}` as names."""

    def dump(self) -> str:
        """As JSON text, the same for the same shapes."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True) | {"format": 1}, indent=1) + "\n"

    @classmethod
    def load(cls, text: str) -> "Baseline":
        """Read what `dump` wrote.

        Raises:
            InvalidInput: It is none.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise InvalidInput(f"this is no baseline: {where}: {first['msg']}") from None


def record(vendor: str, *, base_url: str = "", variables: Mapping[str, str] = environ) -> Baseline:
    """Ask the vendor's sandbox everything there is to read, and keep the shapes of its answers.

    Raises:
        InvalidInput: There is nothing known of this vendor, or no address to ask.
        InsecureSetup: The address is plain http to another machine.
        MissingCredential: A variable of the environment is not set.
        CallFailed: It could not be reached, or did not answer as a sandbox in order does.
    """
    sandbox = _sandbox(vendor)
    asked = (base_url or sandbox.base_url).rstrip("/")
    reads: dict[str, Answered] = {}
    for path, status, value in _answers(sandbox, asked, variables):
        if status >= 400:
            raise _failed(Cause.REJECTED, f"{vendor}: GET {path} was answered {status}, which is nothing to keep")
        reads[path] = Answered(status=status, shape=shape_of(value))
    return Baseline(vendor=vendor, base_url=_without_password(asked), reads=reads)


def check(baseline: Baseline, *, base_url: str = "", variables: Mapping[str, str] = environ) -> list[Change]:
    """Ask again, and tell what is different.

    Raises:
        InvalidInput: There is nothing known of this vendor.
        MissingCredential: A variable of the environment is not set.
        CallFailed: It could not be reached, or refuses to say.
    """
    asked = (base_url or baseline.base_url).rstrip("/")
    changes: list[Change] = []
    for path, status, value in _answers(_sandbox(baseline.vendor), asked, variables):
        before = baseline.reads.get(path)
        if before is None:
            continue  # there was nothing to look at when it was recorded
        if status != before.status:
            text = f"answered {before.status}, and now {status}"
            changes.append(Change(kind="changed", read=path, place="", text=text))
        else:
            changes += compare(before.shape, shape_of(value), read=path)
    return changes


def _sandbox(vendor: str) -> Sandbox:
    if vendor not in SANDBOXES:
        raise InvalidInput(f"nothing is known of what to read at {vendor}; there are {', '.join(SANDBOXES)}")
    return SANDBOXES[vendor]


def _answers(sandbox: Sandbox, base_url: str, variables: Mapping[str, str]) -> Iterator[tuple[str, int, object]]:
    """Path, status and answer of each read that has what it needs; none that is a failure of ours or of the moment."""
    if not base_url:
        raise InvalidInput(f"{sandbox.vendor} is at no address of its own: name the one of your server")
    require_https(base_url, sandbox.vendor)
    known = {name: _variable(variable, variables) for name, variable in sandbox.settings.items()}
    headers = {name: template.format_map(known) for name, template in sandbox.headers.items()}
    basic = tuple(template.format_map(known) for template in sandbox.basic or ())
    auth = httpx.BasicAuth(*basic) if basic else None
    elsewhere = not is_loopback(base_url)  # a proxy of the environment cannot reach this machine
    with httpx.Client(headers=headers, auth=auth, timeout=TIMEOUT, trust_env=elsewhere) as client:
        for read in sandbox.reads:
            try:
                path = read.path.format_map({name: quote(value, safe=":") for name, value in known.items()})
            except KeyError:
                continue  # an earlier list was empty
            status, value = _get(client, base_url + path, f"{sandbox.vendor}: GET {read.path}")
            if status < 400 and sandbox.verdict and _step(value, sandbox.verdict) is not True:
                raise _failed(Cause.REJECTED, f"{sandbox.vendor}: GET {read.path} was answered with a failure")
            known |= _kept(read, value)
            yield read.path, status, value


def _variable(name: str, variables: Mapping[str, str]) -> str:
    text = variables.get(name, "").strip()
    if not text:
        raise MissingCredential(f"the environment variable {name} is not set")
    return text


def _get(client: httpx.Client, url: str, what: str) -> tuple[int, object]:
    """Nothing of the address shows in an error: it may hold a token."""
    try:
        with client.stream("GET", url) as answer:
            body = bytearray()
            for part in answer.iter_bytes():
                body += part
                if len(body) > LARGEST:
                    raise _failed(Cause.REJECTED, f"{what}: the answer is longer than {LARGEST} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _failed(Cause.NOT_SENT, f"{what}: no answer ({type(error).__name__})") from None
    if answer.status_code in (401, 403):
        raise _failed(Cause.CREDENTIAL, f"{what}: the credentials were refused ({answer.status_code})")
    if answer.status_code == 429 or answer.status_code >= 500:
        raise _failed(Cause.REFUSED, f"{what}: not now ({answer.status_code})")
    try:
        return answer.status_code, json.loads(bytes(body))
    except (ValueError, RecursionError):
        if answer.status_code >= 400:
            return answer.status_code, None
        raise _failed(Cause.REJECTED, f"{what}: the answer ({answer.status_code}) is not JSON") from None


def _kept(read: Read, value: object) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, place in read.keep.items():
        inside = value
        for step in place.split("."):
            inside = _step(inside, step)
        if isinstance(inside, str | int):
            found[name] = str(inside)
    return found


def _step(value: object, step: str) -> object:
    if isinstance(value, list):
        listed = cast(list[object], value)
        return listed[int(step)] if int(step) < len(listed) else None
    return cast(dict[str, object], value).get(step) if isinstance(value, dict) else None


def _failed(cause: Cause, text: str) -> CallFailed:
    return CallFailed.of(cause, text)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    place = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{place}{f':{parts.port}' if parts.port else ''}{parts.path}"
