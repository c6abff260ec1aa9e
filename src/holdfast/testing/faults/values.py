"""What can go wrong, each as a value: the same in Python, JSON and YAML."""

import math
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

_NORMAL_99: Final = 2.3263478740408408
"""The normal distribution's 99th percentile."""


class Stage(StrEnum):
    """Where in an exchange a fault strikes."""

    BEFORE_SEND = "before_send"
    """No connection: the vendor never hears of it."""
    BEFORE_EFFECT = "before_effect"
    """The vendor hears of it and does nothing."""
    AFTER_EFFECT = "after_effect"
    """The vendor did it and its answer is lost: where double charges come from."""
    BODY = "body"
    """The vendor did it and its answer cannot be read."""
    TIME = "time"
    """It takes a while, or the vendor's clock is wrong."""


class Value(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A frozen model whose fields marked `kw_only=False` may be given by place: `Status(503)`."""

    if not TYPE_CHECKING:

        def __init__(self, *values: object, **named: object) -> None:
            if values:
                named = _by_name(type(self), values, named)
            super().__init__(**named)

    @model_serializer(mode="wrap")
    def _short(self, whole: SerializerFunctionWrapHandler) -> dict[str, object]:
        """What is left at its default is not written."""
        told = self._told()
        return {name: value for name, value in whole(self).items() if name == "kind" or name in told}

    def __repr__(self) -> str:
        """As it would be written in Python."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._told().items())})"

    __str__ = __repr__

    def _told(self) -> dict[str, object]:
        fields = type(self).model_fields
        return {
            name: value
            for name, field in fields.items()
            if name != "kind" and (value := getattr(self, name)) != field.default
        }


def _by_name(kind: type[Value], values: tuple[object, ...], named: dict[str, object]) -> dict[str, object]:
    names = [name for name, field in kind.model_fields.items() if field.kw_only is False]
    if len(values) > len(names) or not named.keys().isdisjoint(names[: len(values)]):
        raise TypeError(f"{kind.__name__} takes by place: {', '.join(names) or 'nothing'}, each once")
    return dict(zip(names, values, strict=False)) | named


class Fault(Value, frozen=True):
    """One thing going wrong."""

    kind: str
    stage: Stage

    @property
    def name(self) -> str:
        """What it is counted as."""
        return self.kind

    def __or__(self, other: "Fault | OneOf") -> "OneOf":
        """Either of them, drawn at random."""
        return _either(self, other)


class _Movable(Fault, frozen=True):
    """A fault that strikes as well before the effect as after it."""

    def before_effect(self) -> Self:
        """The same, and the vendor does nothing."""
        return self.model_copy(update={"stage": Stage.BEFORE_EFFECT})

    def after_effect(self) -> Self:
        """The same, and the vendor did it."""
        return self.model_copy(update={"stage": Stage.AFTER_EFFECT})


_Before = Literal[Stage.BEFORE_EFFECT, Stage.AFTER_EFFECT]


# Before anything is sent


class Dns(Fault, frozen=True):
    """The vendor's name is not found; on sockets nobody listens for so many seconds."""

    kind: Literal["dns"] = "dns"
    stage: Literal[Stage.BEFORE_SEND] = Stage.BEFORE_SEND
    seconds: NonNegativeFloat = Field(default=0.5, kw_only=False)


class Refused(Fault, frozen=True):
    """Connections are refused; on sockets nobody listens for so many seconds."""

    kind: Literal["refused"] = "refused"
    stage: Literal[Stage.BEFORE_SEND] = Stage.BEFORE_SEND
    seconds: NonNegativeFloat = Field(default=0.5, kw_only=False)


class TlsError(Fault, frozen=True):
    """The TLS handshake fails: on sockets for a client that begins one, for any other the connection is reset."""

    kind: Literal["tls_error"] = "tls_error"
    stage: Literal[Stage.BEFORE_SEND] = Stage.BEFORE_SEND


# Before the effect


class Status(_Movable, frozen=True):
    """An error status, in the vendor's words unless it has a body of its own."""

    kind: Literal["status"] = "status"
    status: int = Field(ge=100, le=599, kw_only=False)
    retry_after: NonNegativeFloat | None = Field(default=None, kw_only=False)
    body: bytes = b""
    content_type: str = "application/json"
    stage: _Before = Stage.BEFORE_EFFECT

    @property
    def name(self) -> str:
        return f"status_{self.status}"


Dialect = Literal["vendor", "seconds", "http-date", "milliseconds", "x-ratelimit-reset", "none"]


class RateLimited(Fault, frozen=True):
    """429, and how long to wait in one of the ways there are to say it."""

    kind: Literal["rate_limited"] = "rate_limited"
    stage: Literal[Stage.BEFORE_EFFECT] = Stage.BEFORE_EFFECT
    retry_after: NonNegativeFloat = Field(default=1, kw_only=False)
    dialect: Dialect = Field(default="vendor", kw_only=False)
    """`vendor`: as this one says it; else `retry-after` in seconds or as a date, `retry-after-ms`, the second at which
    the limit ends in `x-ratelimit-reset`, or not at all."""


class AuthExpired(Fault, frozen=True):
    """The credential is refused as the vendor refuses it; a token that the vendor issued really expires."""

    kind: Literal["auth_expired"] = "auth_expired"
    stage: Literal[Stage.BEFORE_EFFECT] = Stage.BEFORE_EFFECT


# After the effect


class Reset(_Movable, frozen=True):
    """The connection is reset, after so many bytes of the answer."""

    kind: Literal["reset"] = "reset"
    after_bytes: NonNegativeInt = Field(default=0, kw_only=False)
    stage: _Before = Stage.AFTER_EFFECT


class Hang(_Movable, frozen=True):
    """No answer: the connection stays open for at most so many seconds, then it closes."""

    kind: Literal["hang"] = "hang"
    seconds: NonNegativeFloat = Field(default=60, kw_only=False)
    stage: _Before = Stage.AFTER_EFFECT


class Close(_Movable, frozen=True):
    """The connection is closed in good order, without an answer."""

    kind: Literal["close"] = "close"
    stage: _Before = Stage.AFTER_EFFECT


# The body, and what carries it


class _Garbled(Fault, frozen=True):
    stage: Literal[Stage.BODY] = Stage.BODY


class Truncate(_Garbled, frozen=True):
    """The connection closes in the middle of the body."""

    kind: Literal["truncate"] = "truncate"


class BadJson(_Garbled, frozen=True):
    """A whole answer whose JSON breaks off."""

    kind: Literal["bad_json"] = "bad_json"


class WrongType(_Garbled, frozen=True):
    """Good JSON of another type: the object that is due is in an array, or is a text."""

    kind: Literal["wrong_type"] = "wrong_type"
    type: Literal["array", "string"] = Field(default="array", kw_only=False)


class Html(_Garbled, frozen=True):
    """A success that is some proxy's web page."""

    kind: Literal["html"] = "html"
    status: int = Field(default=200, ge=200, le=599, kw_only=False)


class BadGzip(_Garbled, frozen=True):
    """A body that says it is compressed, and is not."""

    kind: Literal["bad_gzip"] = "bad_gzip"


class HugeHeader(_Garbled, frozen=True):
    """One header of so many bytes."""

    kind: Literal["huge_header"] = "huge_header"
    size: int = Field(default=300_000, ge=1, le=10_000_000, kw_only=False)


class BadChunk(_Garbled, frozen=True):
    """A chunked body whose second chunk has no length."""

    kind: Literal["bad_chunk"] = "bad_chunk"


class GarbageStatus(_Garbled, frozen=True):
    """A first line that is not HTTP."""

    kind: Literal["garbage_status"] = "garbage_status"


class ConflictingLengths(_Garbled, frozen=True):
    """Two content lengths that contradict each other."""

    kind: Literal["conflicting_lengths"] = "conflicting_lengths"


class Dribble(_Garbled, frozen=True):
    """A whole answer, byte by byte: only a deadline for all of it helps."""

    kind: Literal["dribble"] = "dribble"
    seconds_per_byte: NonNegativeFloat = Field(default=0.01, kw_only=False)


class Stall(_Garbled, frozen=True):
    """So many bytes of the answer, then nothing: the connection stays open for at most so many seconds."""

    kind: Literal["stall"] = "stall"
    after_bytes: NonNegativeInt = Field(default=10, kw_only=False)
    seconds: NonNegativeFloat = Field(default=60, kw_only=False)


# Time: these come on top of another fault


class _Timely(Fault, frozen=True):
    stage: Literal[Stage.TIME] = Stage.TIME


class Latency(_Timely, frozen=True):
    """How long an answer takes: lognormal, by its median and its 99th percentile in seconds, or evenly in a range."""

    kind: Literal["latency"] = "latency"
    median: NonNegativeFloat = Field(default=0.25, kw_only=False)
    p99: NonNegativeFloat = Field(default=1.5, kw_only=False)
    low: NonNegativeFloat | None = None
    """With `high`: anything between the two, each as likely."""
    high: NonNegativeFloat | None = None

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> Self:
        if (self.low is None) is not (self.high is None) or (self.low or 0) > (self.high or 0):
            raise ValueError("an even latency has both low and high, low first")
        if self.low is None and self.p99 < self.median:
            raise ValueError("the 99th percentile is not below the median")
        return self

    @classmethod
    def lognormal(cls, median: float, p99: float) -> "Latency":
        """Mostly near the median, seldom much longer: as real ones are."""
        return cls(median, p99)

    @classmethod
    def constant(cls, seconds: float) -> "Latency":
        """Always as long."""
        return cls(seconds, seconds)

    @classmethod
    def uniform(cls, low: float, high: float) -> "Latency":
        """Anything between the two, each as likely."""
        return cls(low=low, high=high)

    def seconds(self, random: Random) -> float:
        """One draw."""
        if self.low is not None and self.high is not None:
            return random.uniform(self.low, self.high)
        if self.p99 <= self.median or not self.median:
            return self.median
        sigma = math.log(self.p99 / self.median) / _NORMAL_99
        return self.median * math.exp(random.gauss(0, sigma))


class Bandwidth(_Timely, frozen=True):
    """The answer comes in at so many bytes a second."""

    kind: Literal["bandwidth"] = "bandwidth"
    bytes_per_second: PositiveFloat = Field(default=1000, kw_only=False)


class ClockSkew(_Timely, frozen=True):
    """The vendor's clock is that many seconds ahead, in the `date` of its answers and in its webhooks."""

    kind: Literal["clock_skew"] = "clock_skew"
    seconds: float = Field(default=300, kw_only=False, allow_inf_nan=False)


# All of them

AnyFault = (
    Dns
    | Refused
    | TlsError
    | Status
    | RateLimited
    | AuthExpired
    | Reset
    | Hang
    | Close
    | Truncate
    | BadJson
    | WrongType
    | Html
    | BadGzip
    | HugeHeader
    | BadChunk
    | GarbageStatus
    | ConflictingLengths
    | Dribble
    | Stall
    | Latency
    | Bandwidth
    | ClockSkew
)
"""Every fault there is."""

FAULTS: Final[dict[str, type[Fault]]] = {
    cast(str, kind.model_fields["kind"].default): kind for kind in cast(tuple[type[Fault], ...], AnyFault.__args__)
}
"""Every fault there is, by its kind."""


def _named(value: object) -> object:
    """A bare word is the fault of that kind, all at its defaults."""
    if not isinstance(value, str):
        return value
    word, _, status = value.partition("_")
    return {"kind": word, "status": status} if word == "status" and status.isdigit() else {"kind": value}


if TYPE_CHECKING:
    _One = Fault
else:
    _One = Annotated[AnyFault, Field(discriminator="kind"), BeforeValidator(_named)]


class OneOf(Value, frozen=True):
    """Any of these, each as likely: `Latency(0.3, 0.8) | Stall() | BadJson()`."""

    kind: Literal["one_of"] = "one_of"
    faults: tuple[_One, ...] = Field(min_length=1)

    def __or__(self, other: Fault | Self) -> "OneOf":
        """One more."""
        return _either(self, other)

    def draw(self, random: Random) -> Fault:
        """One of them."""
        return random.choice(self.faults)


if TYPE_CHECKING:
    Planned = Fault | OneOf
else:
    Planned = Annotated[AnyFault | OneOf, Field(discriminator="kind"), BeforeValidator(_named)]
"""What a plan may name: a fault, or one of several."""


def fault(word: str) -> Fault:
    """The fault of that kind, all at its defaults: `reset`, `bad_json`, `status_503`.

    Raises:
        ValueError: There is none.
    """
    given = cast(dict[str, Any], _named(word))
    kind = FAULTS.get(given.pop("kind"))
    if kind is None:
        raise ValueError(f"{word!r} is no fault; there are {', '.join(FAULTS)}")
    return kind(**given)


def _either(*faults: Fault | OneOf) -> OneOf:
    flat = (one for given in faults for one in (given.faults if isinstance(given, OneOf) else (given,)))
    return OneOf(faults=tuple(flat))
