"""What a webhook looks like on the wire: rightly signed, and as each forger would send it."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Final

from holdfast.testing.faults import chance
from holdfast.testing.simulators.simulator import Headers, Simulator, Webhook

_STALE: Final = timedelta(hours=1)


class Manner(StrEnum):
    """As what a webhook is sent."""

    GENUINE = "genuine"
    DUPLICATE = "duplicate"
    RETRY = "retry"
    STRAGGLER = "straggler"
    """Genuine, signed with the secret that is being replaced, by a vendor that does not sign with both."""
    CHALLENGE = "challenge"
    """The vendor asks the endpoint to prove itself."""
    LIE = "lie"
    """Through the right door, signed with the right key, and untrue: what re-fetching is for."""
    WRONG_KEY = "wrong_key"
    ALTERED_BYTE = "altered_byte"
    STALE = "stale"
    """Signed an hour ago: somebody has kept it and sends it again."""
    WRONG_URL = "wrong_url"
    """To an address nobody was given; where the address is signed, with the signature of another one."""
    MISSING_HEADER = "missing_header"
    OLD_VERSION = "old_version"
    """The right signature, under the name of a scheme that nobody checks."""
    RESERIALISED = "reserialised"
    """The same meaning in other bytes, with the signature of the original."""
    RETIRED_SECRET = "retired_secret"
    """Signed with a secret that counts no more since it was rolled."""

    @property
    def forged(self) -> bool:
        """Whether the receiver must refuse it."""
        return self in _FORGED

    @property
    def genuine(self) -> bool:
        """Whether it is the vendor's own try to deliver: one that is tried again until it is accepted."""
        return self in (Manner.GENUINE, Manner.RETRY, Manner.STRAGGLER)


_FORGED: Final = frozenset(
    {
        Manner.WRONG_KEY,
        Manner.ALTERED_BYTE,
        Manner.STALE,
        Manner.WRONG_URL,
        Manner.MISSING_HEADER,
        Manner.OLD_VERSION,
        Manner.RESERIALISED,
        Manner.RETIRED_SECRET,
    }
)


def forgeries(simulator: Simulator, webhook: Webhook) -> list[Manner]:
    """What a forger can try that this vendor's way of signing gives away."""
    now = simulator.clock.now()

    def signed(body: bytes = webhook.body, at: datetime = now, url: str = webhook.url) -> Headers:
        return simulator.sign(body, secret="k", at=at, url=url)

    genuine = signed()
    if not genuine:
        return [Manner.WRONG_URL]
    tries = {
        Manner.WRONG_KEY: True,
        Manner.ALTERED_BYTE: signed(webhook.body + b" ") != genuine,
        Manner.STALE: signed(at=now - _STALE) != genuine,
        Manner.WRONG_URL: signed(url=_another(webhook.url)) != genuine,
        Manner.MISSING_HEADER: True,
        Manner.OLD_VERSION: simulator.schemes is not None,
        Manner.RESERIALISED: signed(reserialised(webhook.body)) != genuine,
        Manner.RETIRED_SECRET: bool(simulator.retired_secrets) and not webhook.secret,
    }
    return [manner for manner, gives_away in tries.items() if gives_away]


def dress(
    simulator: Simulator, webhook: Webhook, manner: Manner, at: datetime, *, url: str = ""
) -> tuple[str, Headers, bytes]:
    """Address, headers and body of the webhook when it is sent in this manner; `url` stands for its own address."""
    url = url or webhook.url
    body, signed_url = webhook.body, url
    if manner is Manner.STALE:
        at -= _STALE
    if manner is Manner.WRONG_URL:
        signed_url = _another(url)
    signature = simulator.sign_with(body, secrets=_secrets(simulator, webhook, manner), at=at, url=signed_url)
    random = chance(simulator.seed, webhook.about, manner)
    match manner:
        case Manner.ALTERED_BYTE:
            body = altered(body, random)
        case Manner.RESERIALISED:
            body = reserialised(body)
        case Manner.OLD_VERSION if simulator.schemes is not None:
            signature = _renamed(signature, *simulator.schemes)
        case Manner.MISSING_HEADER:
            missing = random.choice(signature) if signature else None
            signature = [header for header in signature if header != missing]
        case Manner.WRONG_URL if not signature:
            url = signed_url
        case _:
            pass
    return url, (*webhook.headers, *signature), body


def altered(body: bytes, random: Random) -> bytes:
    """The same with one digit or letter changed: it still reads well."""
    places = [index for index, byte in enumerate(body) if chr(byte).isdigit()] or [0]
    place = random.choice(places)
    return body[:place] + (b"7" if body[place : place + 1] != b"7" else b"8") + body[place + 1 :]


def reserialised(body: bytes) -> bytes:
    """The same meaning in other bytes, as a framework writes what it has parsed; JSON, or the fields of a form."""
    try:
        value: object = json.loads(body)
    except ValueError:
        return b"%%%02X" % body[0] + body[1:] if body else body
    spaced = json.dumps(value).encode()
    return spaced if spaced != body else json.dumps(value, separators=(",", ":")).encode()


def _secrets(simulator: Simulator, webhook: Webhook, manner: Manner) -> Sequence[str]:
    """What it is signed with, newest first."""
    own = webhook.secret or simulator.webhook_secret
    old = "" if webhook.secret else simulator.old_secret
    match manner:
        case Manner.WRONG_KEY:
            return [f"{own}-of-somebody-else"]
        case Manner.RETIRED_SECRET if simulator.retired_secrets:
            return [simulator.retired_secrets[-1]]
        case Manner.STRAGGLER if old:
            return [old]
        case _:
            return [own, old] if old and simulator.signs_with_both else [own]


def _another(url: str) -> str:
    """An address that differs in its last character."""
    return url[:-1] + ("0" if url[-1:] != "0" else "1")


def _renamed(signature: Headers, known: str, unknown: str) -> Headers:
    """Whoever takes the value and does not look at the scheme's name is taken in."""
    return [(name, value.replace(f"{known}=", f"{unknown}=")) for name, value in signature]
