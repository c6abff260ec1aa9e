"""Signals: one type per happening, emitted once; sinks write them where they are read."""

import base64
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import ClassVar, cast
from urllib.parse import quote, quote_plus

from holdfast.values import Secret, Secrets


@dataclass(frozen=True, slots=True)
class Signal:
    """Something happened; the fields hold no secret and no personal data beyond the caller's own reference."""

    name: ClassVar[str] = "holdfast.signal"
    level: ClassVar[int] = logging.DEBUG

    @property
    def severity(self) -> int:
        """The level of this very signal; some are grave for one result and ordinary for another."""
        return self.level


@dataclass(frozen=True, slots=True)
class CallFinished(Signal):
    """A guarded call ended; `outcome` is `ok`, the cause of its failure, `cancelled`, or `error`: the caller's own."""

    name: ClassVar[str] = "holdfast.call"
    provider: str
    operation: str
    outcome: str
    seconds: float
    attempts: int


@dataclass(frozen=True, slots=True)
class AttemptFailed(Signal):
    """One exchange of a call failed."""

    name: ClassVar[str] = "holdfast.attempt"
    provider: str
    operation: str
    attempt: int
    cause: str
    status: int | None
    reason: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class RetryScheduled(Signal):
    """The call is tried again in `after` seconds."""

    name: ClassVar[str] = "holdfast.retry"
    level: ClassVar[int] = logging.WARNING
    provider: str
    operation: str
    attempt: int
    after: float


@dataclass(frozen=True, slots=True)
class RetryDenied(Signal):
    """The call is not tried again: `budget`, `unsafe`, `deadline`, `attempts` or `nested`."""

    name: ClassVar[str] = "holdfast.retry_denied"
    provider: str
    operation: str
    why: str


@dataclass(frozen=True, slots=True)
class CallHedged(Signal):
    """A second call of the same kind was begun beside one that took longer than usual."""

    name: ClassVar[str] = "holdfast.hedge"
    provider: str
    operation: str
    after: float
    """Seconds the first one had taken."""


@dataclass(frozen=True, slots=True)
class StaleAnswer(Signal):
    """An old answer was given, because a new one could not be had."""

    name: ClassVar[str] = "holdfast.stale_answer"
    level: ClassVar[int] = logging.WARNING
    provider: str
    operation: str
    age: float
    """Seconds since it was fetched."""
    cause: str


@dataclass(frozen=True, slots=True)
class CredentialHeld(Signal):
    """A credential pauses, because the vendor asked for it or refused it."""

    name: ClassVar[str] = "holdfast.hold"
    level: ClassVar[int] = logging.WARNING
    provider: str
    credential: str
    """What the program calls it; empty where there is one for all."""
    seconds: float


@dataclass(frozen=True, slots=True)
class CircuitChanged(Signal):
    """A circuit changed its state."""

    name: ClassVar[str] = "holdfast.circuit"
    level: ClassVar[int] = logging.WARNING
    provider: str
    operation: str
    before: str
    after: str
    reason: str
    open_for: float


@dataclass(frozen=True, slots=True)
class SharedStateChanged(Signal):
    """Other processes can be heard, `ok`, or not, `degraded`: then each one's circuits decide alone."""

    name: ClassVar[str] = "holdfast.shared_state"
    state: str

    @property
    def severity(self) -> int:
        return logging.WARNING if self.state == "degraded" else self.level


@dataclass(frozen=True, slots=True)
class CallRejected(Signal):
    """A call was not made; `layer` says why: `circuit`, `hold`, `rate`, `concurrency`, `deadline` or `key`."""

    name: ClassVar[str] = "holdfast.rejected"
    provider: str
    operation: str
    layer: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class FellOver(Signal):
    """Another provider was asked instead."""

    name: ClassVar[str] = "holdfast.fallback"
    level: ClassVar[int] = logging.WARNING
    operation: str
    from_provider: str
    to_provider: str
    cause: str


@dataclass(frozen=True, slots=True)
class OutcomeBecameUnknown(Signal):
    """An effect may have happened and its answer is missing."""

    name: ClassVar[str] = "holdfast.outcome_unknown"
    level: ClassVar[int] = logging.WARNING
    provider: str
    operation: str
    reference: str


@dataclass(frozen=True, slots=True)
class DeliveryArrived(Signal):
    """A vendor called: accepted, duplicate, conflict, refused, handshake or unavailable."""

    name: ClassVar[str] = "holdfast.inbox.delivery"
    provider: str
    result: str
    reason: str
    hint: str
    times: int | None = None
    """Of what is refused or unavailable, one a second is told of: so many there were since the last time."""

    @property
    def severity(self) -> int:
        return logging.WARNING if self.result in ("conflict", "refused", "unavailable") else self.level


@dataclass(frozen=True, slots=True)
class JobFinished(Signal):
    """A job ran: done, ignored, failed, snoozed, dead, permanent, unknown or lost."""

    name: ClassVar[str] = "holdfast.job"
    queue: str
    kind: str
    handler: str
    result: str
    attempts: int

    @property
    def severity(self) -> int:
        if self.result in ("dead", "permanent", "unknown"):
            return logging.ERROR
        return logging.WARNING if self.result in ("failed", "lost") else self.level


@dataclass(frozen=True, slots=True)
class PaymentChanged(Signal):
    """A payment has another status."""

    name: ClassVar[str] = "holdfast.payment"
    reference: str
    provider: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class PaymentFlagged(Signal):
    """A payment needs a person's look."""

    name: ClassVar[str] = "holdfast.payment.flagged"
    level: ClassVar[int] = logging.ERROR
    reference: str
    provider: str
    anomaly: str


@dataclass(frozen=True, slots=True)
class MoneyDiffers(Signal):
    """Our books and a vendor's differ, and a person has to look; `reference` is empty where no record knows it."""

    name: ClassVar[str] = "holdfast.payment.differs"
    level: ClassVar[int] = logging.ERROR
    provider: str
    finding: str
    reference: str


@dataclass(frozen=True, slots=True)
class FeeKept(Signal):
    """A vendor kept so much of a payment; `estimated`: by its price list, as it did not say."""

    name: ClassVar[str] = "holdfast.payment.fee"
    provider: str
    money: str
    estimated: bool


@dataclass(frozen=True, slots=True)
class SpendLimitReached(Signal):
    """The fees of a vendor on one day, in UTC, reached the limit set for it; told once a day."""

    name: ClassVar[str] = "holdfast.payment.spend_limit"
    level: ClassVar[int] = logging.WARNING
    provider: str
    day: str
    spent: str
    limit: str


@dataclass(frozen=True, slots=True)
class Security(Signal):
    """Somebody may be trying something."""

    name: ClassVar[str] = "holdfast.security"
    level: ClassVar[int] = logging.ERROR
    what: str
    provider: str
    detail: str


@dataclass(frozen=True, slots=True)
class SweepRan(Signal):
    """A sweep looked at what was due."""

    name: ClassVar[str] = "holdfast.sweep"
    kind: str
    looked: int
    changed: int


Sink = Callable[[Signal], object]


class Telemetry:
    """Hands every signal to every sink; false when nobody listens."""

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        self.sinks: list[Sink] = list(sinks)
        """Empty: nobody listens, so that a signal need not even be made."""
        self._broken: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self.sinks)

    def add(self, sink: Sink) -> None:
        """Listen from now on."""
        self.sinks.append(sink)

    def hears(self, kind: type[Signal]) -> bool:
        """Whether any sink wants signals of this type at their usual level: ask where they are many.

        A sink that does not want all has a method `hears` of its own, which says so.
        """
        for sink in self.sinks:
            choosy: Callable[[type[Signal]], bool] | None = getattr(sink, "hears", None)
            if choosy is None or choosy(kind):
                return True
        return False

    def emit(self, signal: Signal) -> None:
        """Tell every sink; one that fails is reported once and never disturbs the call."""
        for sink in self.sinks:
            try:
                sink(signal)
            except Exception as error:  # the border to a user's sink: watching must not break what is watched
                if id(sink) not in self._broken:
                    self._broken.add(id(sink))
                    # A sink's error may quote its own address and password, and no filter of ours need be installed.
                    trace = Redactor().redact("".join(traceback.format_exception(error)))
                    logging.getLogger("holdfast.telemetry").error("a telemetry sink failed; told once\n%s", trace)


_SHAPES = re.compile(
    r"""
    (?<![A-Za-z0-9])[sr]k_(?:live|test)_[A-Za-z0-9]{6,}          # Stripe
    | (?<![A-Za-z0-9])(?:AKIA[0-9A-Z]{16}|AIza[\w-]{35}|gh[pousr]_\w{36,}|key-[0-9a-f]{32})
    | (?<![A-Za-z0-9])(?:SG\.[\w-]{16,}\.[\w-]{16,}|re_[A-Za-z0-9]{6,}_[A-Za-z0-9]{12,})
    | (?<=hooks\.slack\.com/services/)[^\s"'<>]+ | (?<=discord\.com/api/webhooks/)[^\s"'<>]+
    | \bwhsec_[A-Za-z0-9+/=_-]{6,}
    | \bxox[a-z]-[A-Za-z0-9-]{6,}                  # Slack
    | (?<!\d)\d{5,}:[A-Za-z0-9_-]{35}              # Telegram, also in its URLs
    | (?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]*   # JWT; begun once, for text may be hostile
    | (?<=bearer\ )[^\s"',]+ | (?<=bearer\ \ )[^\s"',]+ | (?<=basic\ )[A-Za-z0-9+/=]{6,}
    | (?<=zak=)[^&\s"']+ | (?<=pwd=)[^&\s"']+ | (?<=jwt=)[^&\s"']+ | (?<=token=)[^&\s"']+ | (?<=token%3d)[^&\s"']+
    | (?<=secret=)[^&\s"']+ | (?<=password=)[^&\s"']+ | (?<=api_key=)[^&\s"']+ | (?<=api-key:\ )[^\s"',]+
    | (?<=password"\:\ ")[^"]+ | (?<=password'\:\ ')[^']+ | (?<=api_key'\:\ ')[^']+ | (?<=api_key"\:\ ")[^"]+
    | (?<=://)[^/\s:@"']*:[^/\s@"']+(?=@)          # user and password in an address
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | \bsbp_ck_[A-Za-z0-9._-]{6,}
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_SHORTEST = 6
_SHORTEST_LINE = 20
"""A line of a longer secret, such as a key file, that is blotted alone too."""


class Redactor(logging.Filter):
    """Blots secrets out of text: those it was told, in every form they travel in, and whatever looks like one.

    It is a `logging.Filter` too: `logging.getLogger("shop").addFilter(redactor)`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def learn(self, holder: object) -> None:
        """Learn a secret, or all that a provider's fields hold."""
        found = set(_texts(holder))
        if found - self._known:
            self._known |= found
            forms = {form for text in self._known for form in _forms(text)}
            self._pattern = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))

    def redact(self, text: str) -> str:
        """The text with every secret replaced by `***`."""
        if self._pattern is not None:
            text = self._pattern.sub("***", text)
        return _SHAPES.sub("***", text)

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            record.msg, record.args = record.getMessage(), None
        except Exception:  # a border: arguments that do not fit the message are for logging to complain about
            record.msg, record.args = f"{record.msg} {record.args}", None
        if record.exc_info:
            record.exc_text, record.exc_info = logging.Formatter().formatException(record.exc_info), None
        for name, value in list(vars(record).items()):  # with what came as `extra`
            setattr(record, name, self._clean(value))
        return True

    def _clean(self, value: object) -> object:
        match value:
            case str():
                return self.redact(value)
            case dict():
                return {key: self._clean(item) for key, item in cast(dict[object, object], value).items()}
            case list():
                return [self._clean(item) for item in cast(list[object], value)]
            case tuple():
                return tuple(self._clean(item) for item in cast(tuple[object, ...], value))
            case _:
                return value


def _texts(holder: object) -> Iterator[str]:
    match holder:
        case Secret():
            text = holder.reveal()
            yield from (line for line in text.splitlines() if len(line) >= _SHORTEST_LINE)
            if len(text) >= _SHORTEST:
                yield text
        case Secrets() | list() | tuple() | set() | frozenset():
            for item in cast(Iterable[object], holder):
                yield from _texts(item)
        case Mapping():
            yield from _texts(list(cast(Mapping[object, object], holder).values()))
        case _ if is_dataclass(holder) and not isinstance(holder, type):
            for field in fields(holder):
                yield from _texts(getattr(holder, field.name))
        case _:
            pass


def _forms(text: str) -> set[str]:
    """The text as it travels: in addresses, forms, JSON, reprs, hexadecimal and base64, alone or amid other text."""
    quoted = {quote(text, safe=""), quote(text), quote_plus(text)}
    quoted |= {re.sub("%[0-9A-F]{2}", lambda escape: escape[0].lower(), form) for form in quoted}
    escaped = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]}
    raw = text.encode("utf-8", "surrogatepass")
    return {text, raw.hex()} | quoted | escaped | set(_base64(raw))


def _base64(raw: bytes) -> Iterator[str]:
    for before in range(3):  # bytes ahead of it shift it to one of three spellings, of which the edges are not its own
        padded = base64.b64encode(bytes(before) + raw).decode()[(0, 2, 3)[before] :]
        spelled = padded.rstrip("=")
        own = spelled if spelled == padded else spelled[:-1]
        for form in (own, spelled, padded):
            if len(own) >= _SHORTEST:
                yield form
                yield form.replace("+", "-").replace("/", "_")


_ONE_LINE = {number: f"\\x{number:02x}" for number in (*range(32), 127)}  # a vendor's words forge no line of ours


def _short(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value


class LoggingSink:
    """Signals as log lines of `logging.getLogger("holdfast…")`, redacted, with their fields as `extra`."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._loggers: dict[str, logging.Logger] = {}

    def hears(self, kind: type[Signal]) -> bool:
        """Whether its logger is enabled for it."""
        logger = self._loggers.get(kind.name)
        if logger is None:
            logger = self._loggers[kind.name] = logging.getLogger(kind.name)
        return logger.isEnabledFor(kind.level)

    def __call__(self, signal: Signal) -> None:
        logger = logging.getLogger(signal.name)
        if not logger.isEnabledFor(signal.severity):
            return
        facts = {field.name: self._safe(getattr(signal, field.name)) for field in fields(signal)}
        line = " ".join(f"{name}={_short(value)}" for name, value in facts.items() if value not in ("", None))
        if not logger.hasHandlers():  # nobody set logging up: Python then prints the bare line, without a name
            line = f"{signal.name} {line}"
        logger.log(signal.severity, line.translate(_ONE_LINE), extra={"signal": signal.name, "facts": facts})

    def _safe(self, value: object) -> object:
        return self._redactor.redact(value) if isinstance(value, str) else value
