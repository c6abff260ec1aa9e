"""Every exception holdfast raises.

HoldfastError
├── ConfigurationError                 fix the program or its settings
│   ├── MissingCredential              a secret is absent or empty
│   ├── MissingExtra                   an optional package is not installed
│   ├── InsecureSetup                  a live credential beside http:// or memory://
│   ├── WrongLoop                      used from another event loop than it was opened in
│   └── NotOpen                        used outside `async with`
├── InvalidInput (ValueError)          refused before anything was sent
│   ├── InvalidMoney
│   ├── UnknownCurrency
│   ├── InvalidReference
│   ├── NaiveDatetime
│   └── InvalidPolicy
├── CallFailed                         one exchange with one vendor, by cause
│   ├── NotSent                        nothing happened
│   │   ├── CircuitOpen                we did not even try
│   │   ├── OnHold                     the vendor asked this credential to pause
│   │   ├── RateLimited                our own limit: no slot of the rate in time
│   │   └── BulkheadFull               our own limit: no place among the concurrent calls in time
│   ├── Throttled                      nothing happened, slow down
│   ├── Refused                        nothing happened, come back
│   ├── CredentialRefused              nothing happened, fix the credential
│   ├── Rejected                       the vendor said no
│   ├── OutcomeUnknown                 it may have happened; we keep finding out
│   └── Mismatch                       it happened otherwise than asked
├── Exhausted                          every provider failed; carries each failure
├── ReferenceConflict                  the reference is taken by something else
├── NotFound                           no such record
├── AlreadyHandled                     this handler did this event before
├── CallInsideTransaction              a vendor call while a transaction is open
├── RetryLater                         a handler asks to be run again
├── Permanent                          a handler says that trying again cannot help
└── StoreError
    ├── StoreUnavailable               down, locked, or full: nothing was kept
    ├── SchemaTooNew                   written by a newer holdfast
    ├── VersionConflict                somebody else changed the record first
    ├── AlreadyReplayed                somebody else replayed the job first
    ├── BackupUnusable                 no backup, a damaged one, or one of another engine
    ├── StoreNotEmpty                  there is something where a backup was to be restored
    ├── LeaseLost                      somebody else owns the work now
    └── Unreadable                     what is kept cannot be opened
        ├── UnknownKey                 sealed under a key that is not there
        └── Forgotten                  its subject's key was destroyed
"""

from collections.abc import Mapping
from typing import Self

from holdfast.outcome import Cause


class HoldfastError(Exception):
    """The root of everything raised here; `except HoldfastError` catches all of it."""

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy(), tuple(getattr(self, "__notes__", ())))


def _restore(
    kind: type[HoldfastError], args: tuple[object, ...], state: dict[str, object], notes: tuple[str, ...]
) -> HoldfastError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    if notes:
        error.__notes__ = list(notes)
    return error


class ConfigurationError(HoldfastError):
    """The program or its settings are wrong; nothing was sent."""


class MissingCredential(ConfigurationError):
    """A secret is absent or empty; `variables` are those that are not set, each with what it is for."""

    def __init__(self, words: str = "", *, variables: Mapping[str, str] | None = None) -> None:
        super().__init__(words or _not_set(variables or {}))
        self.variables = dict(variables or {})


def _not_set(variables: Mapping[str, str]) -> str:
    listed = [f"{name}: {purpose}" if purpose else name for name, purpose in variables.items()]
    if len(listed) == 1:
        return f"an environment variable is not set: {listed[0]}"
    return "\n  ".join(["these environment variables are not set:", *listed])


class MissingExtra(ConfigurationError, ImportError):
    """An optional package is not installed; the message is the install line."""

    def __init__(self, extra: str) -> None:
        super().__init__(f'this needs an optional package; install it with: pip install "holdfast[{extra}]"')
        self.extra = extra


class InsecureSetup(ConfigurationError):
    """A live credential would travel in clear, or live money would be kept in memory only."""


class WrongLoop(ConfigurationError):
    """An object opened in one event loop was used from another."""


class NotOpen(ConfigurationError):
    """An object was used before `async with` opened it, or after it closed."""


class InvalidInput(HoldfastError, ValueError):
    """Input that cannot be right, refused before anything was sent."""


class InvalidMoney(InvalidInput):
    """Not an exact amount of one currency."""


class UnknownCurrency(InvalidInput):
    """Neither an ISO 4217 code nor BTC nor USDC."""

    def __init__(self, currency: object) -> None:
        super().__init__(f"{currency!r} is no currency: use an ISO 4217 code in capitals, BTC or USDC")
        self.currency = currency


class InvalidReference(InvalidInput):
    """A reference outside 1 to 64 of `A-Z a-z 0-9 . _ : -`."""

    def __init__(self, reference: object) -> None:
        super().__init__(f"{reference!r} is no reference: use 1 to 64 characters of A-Z a-z 0-9 . _ : -")
        self.reference = reference


class NaiveDatetime(InvalidInput):
    """A datetime without a time zone names no instant."""

    def __init__(self, argument: str) -> None:
        super().__init__(f"{argument} has no time zone; write datetime(..., tzinfo=UTC) or use ZoneInfo")
        self.argument = argument


class InvalidPolicy(InvalidInput):
    """An option outside its range."""


class CallFailed(HoldfastError):
    """One exchange with one vendor failed; `cause` says what that means."""

    cause: Cause = Cause.UNKNOWN
    provider: str = ""
    operation: str = ""
    status: int | None = None
    """The HTTP status, or the protocol's own number; None when there was no answer."""
    code: str = ""
    """The vendor's own error code, verbatim."""
    reason: str = ""
    """Our finer word beside the cause: `recipient_gone`, `host_quota`, `card_declined`."""
    retry_after: float | None = None
    """Seconds after which trying again makes sense, if anybody said so."""
    request_id: str = ""
    local: bool = False
    """Rejected here, by an open circuit or a limit: the vendor was not asked."""
    hard: bool = False
    """Counts at once towards opening the circuit: connect, DNS, TLS, timeout, 5xx."""
    narrow: bool = False
    """The pause the vendor asks for concerns the call's own scope, such as a host or a chat, not the credential."""

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        operation: str = "",
        status: int | None = None,
        code: str = "",
        reason: str = "",
        retry_after: float | None = None,
        request_id: str = "",
        local: bool = False,
        hard: bool = False,
        narrow: bool = False,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.operation = operation
        self.status = status
        self.code = code
        self.reason = reason
        self.retry_after = retry_after
        self.request_id = request_id
        self.local = local
        self.hard = hard
        self.narrow = narrow

    @classmethod
    def of(cls, cause: Cause, message: str, **facts: object) -> "CallFailed":
        """The exception class that stands for `cause`."""
        return _BY_CAUSE[cause](message, **facts)  # type: ignore[arg-type]  # facts are CallFailed's own keywords


class NotSent(CallFailed):
    """The request never left: nothing happened, trying again or elsewhere is safe."""

    cause = Cause.NOT_SENT


class CircuitOpen(NotSent):
    """The provider has been failing, so it was not asked; `retry_after` says when a probe is due."""

    why: str = ""
    """Why the circuit is open."""

    @classmethod
    def at(cls, provider: str, operation: str, why: str, retry_after: float | None, state: str = "open") -> Self:
        """The one a guard raises; its text is made when it is read, for in an outage hardly any is."""
        error = cls.__new__(cls)
        error.__dict__ = {
            "provider": provider,
            "operation": operation,
            "why": why,
            "retry_after": retry_after,
            "reason": state,
            "local": True,
        }
        return error

    def __str__(self) -> str:
        if self.args:
            return super().__str__()
        why = f" ({self.why})" if self.why else ""
        then = "" if self.retry_after is None else f"; ask again in {self.retry_after:.3g} s"
        state = "open" if self.reason == "half_open" else self.reason
        return f"{self.provider}: circuit {state}{why}, {self.operation} was not sent{then}"


class OnHold(NotSent):
    """Not tried: the vendor asked this credential to pause; `retry_after` says for how long."""


class RateLimited(NotSent):
    """Not tried: the policy's own rate has no slot in time; `retry_after` says when to ask again."""


class BulkheadFull(NotSent):
    """Not tried: as many calls as the policy allows are under way, and there was no time or room to wait."""


class Throttled(CallFailed):
    """The vendor asked us to slow down: nothing happened."""

    cause = Cause.THROTTLED


class Refused(CallFailed):
    """The vendor said it did not process the request, and may later."""

    cause = Cause.REFUSED


class CredentialRefused(CallFailed):
    """The vendor did not accept our credential: nothing happened."""

    cause = Cause.CREDENTIAL


class Rejected(CallFailed):
    """The vendor understood and said no: asking again changes nothing."""

    cause = Cause.REJECTED


class OutcomeUnknown(CallFailed):
    """The request may have taken effect and the answer is missing; do not repeat it, we are finding out."""

    cause = Cause.UNKNOWN


class Mismatch(CallFailed):
    """The vendor did something else than was asked: other amount, currency or reference."""

    cause = Cause.MISMATCH


_BY_CAUSE: dict[Cause, type[CallFailed]] = {
    kind.cause: kind for kind in (NotSent, Throttled, Refused, CredentialRefused, Rejected, OutcomeUnknown, Mismatch)
}


class Exhausted(HoldfastError):
    """Two or more providers were tried and none could; `failures` holds each one's error, in order."""

    def __init__(self, operation: str, failures: tuple[CallFailed, ...]) -> None:
        tried = "; ".join(str(failure) for failure in failures)
        super().__init__(f"{operation}: every provider failed ({tried})")
        self.operation = operation
        self.failures = failures

    @property
    def retry_after(self) -> float | None:
        """The earliest moment, in seconds from the failure, at which one of them may work again."""
        return min((f.retry_after for f in self.failures if f.retry_after is not None), default=None)


class ReferenceConflict(HoldfastError):
    """The reference names something else already: other money, another time, another request."""

    def __init__(self, kind: str, reference: str, difference: str) -> None:
        super().__init__(f"{kind} {reference} exists with {difference}; use another reference for another {kind}")
        self.kind = kind
        self.reference = reference
        self.difference = difference


class NotFound(HoldfastError, LookupError):
    """No such record."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"there is no {kind} {key}")
        self.kind = kind
        self.key = key


class AlreadyHandled(HoldfastError):
    """This handler's effect for this event is already committed; the worker records the job as done."""

    def __init__(self, event: str, handler: str) -> None:
        super().__init__(f"{handler} has handled {event} before")
        self.event = event
        self.handler = handler


class CallInsideTransaction(HoldfastError):
    """A vendor was about to be called while `handled_in` holds a transaction open; call before or after it."""

    def __init__(self, operation: str) -> None:
        super().__init__(f"{operation} inside handled_in: call the vendor before or after the transaction")
        self.operation = operation


class RetryLater(HoldfastError):
    """Raised by a handler: run me again in `after` seconds; it counts no failure."""

    def __init__(self, why: str, *, after: float) -> None:
        super().__init__(f"{why}; again in {after:g} s")
        self.after = after


class Permanent(HoldfastError):
    """Raised by a handler: trying again cannot help; the job goes to the dead letters at once."""

    def __init__(self, why: str = "", *, reason: str = "permanent") -> None:
        super().__init__(why)
        self.reason = reason
        """What the dead letter says: `permanent`, or `unknown` where it may have happened."""


class StoreError(HoldfastError):
    """The store could not do what was asked."""


class StoreUnavailable(StoreError):
    """The store is down, locked or full; nothing was kept, try again."""


class SchemaTooNew(StoreError):
    """The store was written by a newer holdfast."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(f"the store has schema {found}, this holdfast knows up to {known}; upgrade holdfast")
        self.found = found
        self.known = known


class VersionConflict(StoreError):
    """Somebody else changed the record first; read it again and decide again."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"{kind} {key} changed meanwhile; read it again")
        self.kind = kind
        self.key = key


class AlreadyReplayed(StoreError):
    """The job is not of the generation that was looked at: it was replayed meanwhile; nothing was changed."""

    def __init__(self, job_id: str, generation: int) -> None:
        super().__init__(f"job {job_id} was replayed meanwhile and is at generation {generation}; look at it again")
        self.job_id = job_id
        self.generation = generation


class BackupUnusable(StoreError):
    """The file is no backup, is damaged, or was made from another engine; nothing was changed."""


class StoreNotEmpty(StoreError):
    """A backup is restored into an empty store, unless it is told to replace what is there; nothing was changed."""


class LeaseLost(StoreError):
    """The lease ran out and somebody else may own the work; stop, and change nothing."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is no longer ours")
        self.what = what


class Unreadable(StoreError):
    """What the store keeps was altered, moved to another place, or is not sealed where everything has to be."""

    def __init__(self, what: str, why: str = "it was altered, or belongs to another row") -> None:
        super().__init__(f"{what} cannot be opened: {why}")
        self.what = what
        self.why = why


class UnknownKey(Unreadable):
    """It is sealed under a key that is not there; nothing is lost, bring the key back."""

    def __init__(self, what: str, key_id: str) -> None:
        super().__init__(what, f"it is sealed under key {key_id}, which is not in the key ring; put it back there")
        self.key_id = key_id


class Forgotten(Unreadable):
    """Whom it was about was forgotten, and the key destroyed; nobody can read it again."""

    def __init__(self, what: str, subject: str) -> None:
        super().__init__(what, f"{subject} was forgotten")
        self.subject = subject
