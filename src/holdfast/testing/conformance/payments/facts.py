"""What a provider says of itself: a frozen value, whose claims are what it has, and which tells no secret."""

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass, replace
from typing import Any, Final

from holdfast.errors import CallFailed, InsecureSetup
from holdfast.http.origin import is_loopback
from holdfast.http.session import Http
from holdfast.http.transports import HttpResponse
from holdfast.payments.provider import (
    Lookup,
    PaymentProvider,
    Refunding,
    SupportsAuthorizing,
    SupportsCapture,
    SupportsLookup,
    SupportsRefundLookup,
    SupportsRefunds,
    SupportsRevoking,
    WebhookTrust,
)
from holdfast.testing.conformance.payments.bench import Bench
from holdfast.testing.conformance.payments.promise import Promise, demand
from holdfast.testing.faults import Status
from holdfast.values import Secret, Secrets
from holdfast.webhooks.door import ReceivesWebhooks

QUOTED: Final = (
    (400, "application/json", '{{"code": "{0}", "message": "{0}", "reason": "{0}", "detail": "{0}", "error": "{0}"}}'),
    (401, "application/json", '{{"error": {{"code": "{0}", "message": "{0}", "type": "{0}"}}}}'),
    (500, "text/html", "<html>{0}</html>"),
    (200, "application/json", '{{"{0}": "{0}", "id": {{"{0}": 1}}}}'),
    (200, "text/html", "<html>{0}</html>"),
)
"""Answers of a vendor that writes down what it knows of us."""


def promises(provider: PaymentProvider) -> Iterator[Promise]:
    """Of every provider."""
    yield Promise.of(is_a_frozen_value)
    yield Promise.of(claims_what_it_has)
    yield Promise.of(tells_whether_money_is_real)
    yield Promise.of(speaks_https)
    yield Promise.of(shows_no_secret)
    for status, kind, form in QUOTED:
        yield Promise.of(quotes_no_secret, status, kind, form, named=f"{status}-{kind.rpartition('/')[2]}")


async def is_a_frozen_value(bench: Bench) -> None:
    """It is a frozen dataclass, the same after every verb as before."""
    provider: Any = bench.provider
    demand(is_dataclass(provider), f"{type(provider).__name__} is no dataclass")
    demand(provider.__dataclass_params__.frozen, f"{type(provider).__name__} is not frozen")
    demand(replace(provider) == provider, "a copy of it is not equal to it")
    held = bench.fields

    await bench.paid()
    bench.wire.fault = Status(500)
    await bench.outcome(bench.create(bench.request()))

    demand(bench.fields == held, "it is not what it was before it was used")


async def claims_what_it_has(bench: Bench) -> None:
    """Each capability has its protocol, and each protocol its capability."""
    provider: object = bench.provider
    able = bench.able
    receives = isinstance(provider, ReceivesWebhooks)
    signed = isinstance(provider, ReceivesWebhooks) and provider.scheme is not None
    claims = {
        "a lookup, and find": (able.lookup is not Lookup.NONE, isinstance(provider, SupportsLookup)),
        "revocable or releasable, and revoke": (
            able.revocable or able.releasable,
            isinstance(provider, SupportsRevoking),
        ),
        "authorizes, and authorize": (able.authorizes, isinstance(provider, SupportsAuthorizing)),
        "captures, and capture": (able.captures or able.manual_capture, isinstance(provider, SupportsCapture)),
        "refunding, and refund": (able.refunding is not Refunding.NONE, isinstance(provider, SupportsRefunds)),
        "trusted webhooks, and parse": (able.webhook_trust is not WebhookTrust.NONE, receives),
        "signed webhooks, and a scheme": (able.webhook_trust is WebhookTrust.SIGNED_BODY, signed),
    }
    for what, (claimed, has) in claims.items():
        demand(claimed == has, f"{what}: it claims {'it' if claimed else 'none'}, and has {'it' if has else 'none'}")
    found_again = isinstance(provider, SupportsRefundLookup) and not isinstance(provider, SupportsRefunds)
    demand(not found_again, "find_refund without refund")
    if able.currencies is not None:
        demand(bool(able.currencies), "it takes no currency at all; None is any")


async def tells_whether_money_is_real(bench: Bench) -> None:
    """With the simulator's credentials it says that no money is real, and so do its snapshots."""
    provider: object = bench.provider
    live: object = getattr(provider, "live", not is_loopback(bench.provider.base_url))
    demand(isinstance(live, bool), f"live is {live!r}, and not whether money is real")
    demand(not live, "it calls the simulator's money real: give it a test's credentials, or an address of this machine")

    request = bench.request()
    made = await bench.create(request)
    seen = await bench.fetch(made.vendor_id)

    for snapshot in (made, seen):
        demand(snapshot.live is not True, "a snapshot calls the simulator's money real")


async def speaks_https(bench: Bench) -> None:
    """Its address is https, or of this machine; with another it cannot be used."""
    provider: Any = bench.provider
    url = bench.provider.base_url
    demand(url.startswith("https://") or is_loopback(url), f"its address is {url}")
    try:
        Http(replace(provider, base_url="http://pay.example.org"), bench.wire, bench.witness, bench.clock)
    except InsecureSetup:
        return
    demand(False, "it can be used over plain http with another machine")


async def shows_no_secret(bench: Bench) -> None:
    """Neither its repr nor its text, nor that of what it returns, tells a secret."""
    provider = bench.provider
    hidden = [value for value in bench.fields.values() if isinstance(value, Secret | Secrets)]

    made = await bench.create(bench.request())
    seen = await bench.fetch(made.vendor_id)

    demand(bool(hidden), "no field of it is a Secret, so that nothing hides what it signs in with")
    bench.silent(repr(provider), str(provider), f"{provider}", repr(made), repr(seen))


async def quotes_no_secret(status: int, kind: str, form: str, bench: Bench) -> None:
    """A vendor that writes our secrets into its answers is not quoted: by no error, no snapshot and no log."""
    secrets = [secret for value in bench.fields.values() for secret in _revealed(value)]
    said = form.format(" ".join(secrets).replace('"', "")).encode()
    bench.wire.forge = lambda _: HttpResponse(status=status, headers=(("content-type", kind),), content=said)

    with _listening() as heard:
        outcome = await bench.outcome(bench.create(bench.request()))

    bench.silent(*heard, *(() if isinstance(outcome, CallFailed) else (repr(outcome),)))
    demand(isinstance(outcome, CallFailed) or status == 200, f"{status} is taken for a success")


@contextmanager
def _listening() -> Generator[list[str]]:
    """Whatever is logged meanwhile, by anybody and of any level."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(f"{logging.Formatter().format(record)} {vars(record)}")

    root, ear = logging.getLogger(), Ear()
    level = root.level
    root.addHandler(ear)
    root.setLevel(logging.DEBUG)
    try:
        yield heard
    finally:
        root.setLevel(level)
        root.removeHandler(ear)


def _revealed(value: object) -> list[str]:
    if isinstance(value, Secret):
        return [value.reveal()]
    return [secret.reveal() for secret in value] if isinstance(value, Secrets) else []
