"""What can be learned of a payment: the only things that change it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from holdfast.errors import CallFailed
from holdfast.payments.models import Quote
from holdfast.payments.provider import Capabilities, PaymentSnapshot
from holdfast.values import Money


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A provider was chosen and priced; the attempt is committed before its first byte."""

    at: datetime
    provider: str
    attempt_id: str
    price: Money
    quote: Quote | None
    timeout: timedelta
    expires_in: timedelta
    key_until: datetime | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resubmitted:
    """The same is asked of the same vendor once more, under the same key; committed before its first byte."""

    at: datetime
    number: int
    timeout: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """The provider answered a submission."""

    at: datetime
    number: int
    claim: int
    snapshot: PaymentSnapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """A submission failed, with what that proves."""

    at: datetime
    number: int
    claim: int
    error: CallFailed


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """The provider's object was fetched again; `None`: it has none of that id."""

    at: datetime
    number: int
    snapshot: PaymentSnapshot | None
    capabilities: Capabilities
    live: bool = True
    mismatch: str = ""
    """Why what the vendor answered cannot be about ours, where there is no snapshot because of that."""
    screen: bool = False
    """Money that came in is held until a check lets it pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LookedUp:
    """The provider was asked for an attempt by our own id; `None`: it shows nothing."""

    at: datetime
    number: int
    snapshot: PaymentSnapshot | None
    capabilities: Capabilities
    live: bool = True
    screen: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreachable:
    """The provider could not be asked; nothing was learned but that it was tried."""

    at: datetime
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Discovered:
    """The vendor holds an object that belongs to an attempt without an answer, whatever we believed of it."""

    at: datetime
    number: int
    vendor_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """Time went by: claims run out, offers end."""

    at: datetime
    capabilities: Mapping[str, Capabilities]


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdrawn:
    """The caller wants this offer gone: to make another, or, finally, none."""

    at: datetime
    number: int
    capabilities: Capabilities
    final: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewed:
    """The caller wants another offer; counts only when none that was shown can still be paid."""

    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptureStarted:
    """The vendor is about to be asked to move the money; committed before its first byte."""

    at: datetime
    number: int
    key: str
    money: Money
    timeout: timedelta
    key_until: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptureFailed:
    """It could not be asked, or did not answer, with what that proves."""

    at: datetime
    number: int
    claim: int
    error: CallFailed


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorizationFailed:
    """It could not be asked to set money aside, or did not answer, with what that proves."""

    at: datetime
    number: int
    error: CallFailed


class Decision(StrEnum):
    """What a check, or a person, says."""

    ALLOW = "allow"
    HOLD = "hold"
    DENY = "deny"


@dataclass(frozen=True, kw_only=True, slots=True)
class Screened:
    """A check of the caller's looked at the payment: before an offer is made, or before money counts."""

    at: datetime
    decision: Decision
    reason: str = ""


class Verdict(StrEnum):
    """What a person decided who looked for themselves."""

    NEVER_HAPPENED = "never_happened"
    """The attempt without an answer left nothing at the vendor; or the money asked for with one never moved."""
    ABANDON = "abandon"
    """It does not matter any more; money that comes all the same is still noticed."""
    RELEASE = "release"
    """What is held may pass."""
    REFUSE = "refuse"
    """What is held may not; the money has to go back, and no other offer is made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A person closed what only a person can; money that came in is never undone by it."""

    at: datetime
    verdict: Verdict
    number: int
    """Of the attempt; 0: the payment as a whole."""
    actor: str
    reason: str
    evidence: str


Fact = (
    Started
    | Resubmitted
    | Answered
    | Failed
    | Looked
    | LookedUp
    | Unreachable
    | Discovered
    | Passed
    | Withdrawn
    | Renewed
    | CaptureStarted
    | CaptureFailed
    | AuthorizationFailed
    | Screened
    | Resolved
)


def name(fact: Fact) -> str:
    """`started`, `looked_up`: as the history has it."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(fact).__name__).lower()


def note(fact: Resolved) -> str:
    """Who decided what, as the history has it."""
    return f"{fact.verdict} by {fact.actor}: {fact.reason} ({fact.evidence})"
