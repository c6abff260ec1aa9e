"""Write docs/reference/providers.md from what the providers say of themselves: python scripts/feature_matrix.py."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.meetings.provider import Capabilities as MeetingCapabilities
from holdfast.notifications.provider import Capabilities as NotificationCapabilities
from holdfast.outcome import Effect
from holdfast.payments.provider import Capabilities as PaymentCapabilities
from holdfast.payments.provider import Lookup, Refunding, WebhookTrust
from holdfast.providers import installed_providers

TARGET: Final = Path(__file__).parents[1] / "docs" / "reference" / "providers.md"
OURS: Final = "holdfast.providers."

HEAD: Final = """# Providers and what they can do

This page is written from the code by `python scripts/feature_matrix.py`; do not edit it by hand.
"""
FEW: Final = 12
"""Currencies that are named one by one."""
EFFECTS: Final[Mapping[Effect, str]] = {
    Effect.READ: "nothing",
    Effect.IDEMPOTENT: "nothing more",
    Effect.KEYED: "nothing more, under the same key",
    Effect.ONCE: "a second effect",
}
LOOKUPS: Final[Mapping[Lookup, str]] = {
    Lookup.NONE: "no",
    Lookup.AUTHORITATIVE: "yes; nothing found proves nothing",
    Lookup.AUTHORITATIVE_ABSENCE: "yes; nothing found proves absence",
}
TRUST: Final[Mapping[WebhookTrust, str]] = {
    WebhookTrust.SIGNED_BODY: "signed body",
    WebhookTrust.KEYED_URL: "unsigned, keyed URL",
    WebhookTrust.NONE: "none",
}

REFUNDS: Final[Mapping[Refunding, str]] = {
    Refunding.NONE: "by hand",
    Refunding.API: "yes",
    Refunding.MANUAL: "claimed by the payer, or by hand",
}

Column = tuple[str, Callable[[type, Any], str]]


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _currencies(_: type, can: PaymentCapabilities) -> str:
    if can.currencies is None:
        return "any the vendor knows"
    return ", ".join(sorted(can.currencies)) if len(can.currencies) <= FEW else f"{len(can.currencies)} currencies"


def _features(_: type, can: MeetingCapabilities) -> str:
    return ", ".join(f"`{feature}`" for feature in sorted(can.features)) or "none"


def _receives(kind: type, _: object) -> str:
    return _yes(hasattr(kind, "parse"))


FAMILIES: Final[Sequence[tuple[str, type, Sequence[Column]]]] = (
    (
        "Payments",
        PaymentCapabilities,
        (
            ("asked in", _currencies),
            ("converts other currencies", lambda kind, _: _yes(hasattr(kind, "quote"))),
            ("creating twice makes", lambda _, can: EFFECTS[can.create_effect]),
            ("can be looked up by our id", lambda _, can: LOOKUPS[can.lookup]),
            ("offers can be revoked", lambda _, can: _yes(can.revocable)),
            ("money set aside", lambda _, can: _yes(can.manual_capture)),
            ("refunds", lambda _, can: REFUNDS[can.refunding]),
            ("webhooks", lambda _, can: TRUST[can.webhook_trust]),
        ),
    ),
    (
        "Meetings",
        MeetingCapabilities,
        (
            ("creation", lambda _, can: f"`{can.create}`"),
            ("features", _features),
            ("receives webhooks", _receives),
        ),
    ),
    (
        "Notifications",
        NotificationCapabilities,
        (
            ("channel", lambda _, can: str(can.channel)),
            ("over", lambda kind, _: str(getattr(kind, "wire", "")).upper()),
            ("longest text", lambda _, can: f"{can.max_length:,}"),
            ("sending twice makes", lambda _, can: EFFECTS[can.effect]),
            ("receipts", lambda _, can: _yes(can.receipts)),
            ("receives webhooks", _receives),
        ),
    ),
)


def providers() -> dict[str, type]:
    """Those that come with holdfast, by name."""
    return {name: entry.load() for name, entry in installed_providers().items() if entry.value.startswith(OURS)}


def generate() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_sections()])


def _sections() -> Iterator[str]:
    found = providers()
    for title, kind, columns in FAMILIES:
        rows = {name: one for name, one in found.items() if isinstance(getattr(one, "capabilities", None), kind)}
        yield f"## {title}\n"
        yield _row(["provider", "class", *(name for name, _ in columns)])
        yield _row(["---"] * (len(columns) + 2))
        for name, one in rows.items():
            can = getattr(one, "capabilities")  # noqa: B009  # a plain type has none, as far as the checker knows
            cells = [say(one, can) for _, say in columns]
            yield _row([f"[{name}](../providers/{name}.md)", f"`{one.__name__}`", *cells])
        yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    TARGET.write_text(generate(), encoding="utf-8")
