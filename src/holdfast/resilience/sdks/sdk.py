"""What an official SDK has to say about itself, so that its client can be guarded without importing it."""

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, cast

from holdfast.errors import CallFailed, InvalidInput
from holdfast.outcome import Cause, Effect
from holdfast.resilience.classify import classify
from holdfast.resilience.retry import parse_milliseconds, parse_retry_after
from holdfast.resilience.sdks.kinds import kinds_of
from holdfast.resilience.sdks.transports import what_broke

_STATUSES: dict[int, Cause] = {401: Cause.CREDENTIAL, 408: Cause.UNKNOWN, 429: Cause.THROTTLED}
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Row:
    """What one kind of exception means; the first row that fits counts."""

    kind: str
    """Top package and class, `stripe.CardError`; subclasses fit too."""
    cause: Cause | None
    """None: the caller's own mistake, found before anything was sent; it passes through."""
    _: KW_ONLY
    status: int | None = None
    """Only with this status."""
    codes: frozenset[str] | None = None
    """Only with one of these codes."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an exception or an answer says besides its kind."""

    status: int | None = None
    code: str = ""
    headers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    request_id: str = ""

    def header(self, name: str) -> str:
        """A header, however its name is spelled; empty when it is not there."""
        return next((str(value) for key, value in self.headers.items() if key.lower() == name), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call of a client's method."""

    path: str
    """How the caller wrote it: `v1.payment_intents.create`."""
    method: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """The method's own name."""
        return self.path.rpartition(".")[2]

    def argument(self, name: str) -> Any:
        """What the caller gave under this name, by position or keyword; None when nothing."""
        bound, others = self._bound()
        return bound.arguments.get(name, bound.arguments.get(others, {}).get(name))

    def given(self, **more: Any) -> "Asked":
        """The same call with other arguments."""
        bound, others = self._bound()
        for name, value in more.items():
            if name in bound.signature.parameters:
                bound.arguments[name] = value
            else:
                bound.arguments[others] = bound.arguments.get(others, {}) | {name: value}
        return replace(self, args=bound.args, kwargs=bound.kwargs)

    def _bound(self) -> tuple[inspect.BoundArguments, str]:
        """The arguments by the method's names, and the name of the parameter that takes all others."""
        signature = _signature(self.method)
        others = (each.name for each in signature.parameters.values() if each.kind is each.VAR_KEYWORD)
        return signature.bind(*self.args, **self.kwargs), next(others, "")


class Sdk(ABC):
    """The facts of one SDK, and the few things its calls need."""

    name: ClassVar[str]
    clients: ClassVar[frozenset[str]]
    """Top package and class of its clients; subclasses count."""
    parts: ClassVar[frozenset[str]] = frozenset()
    """Likewise, of what hangs on a client and has methods of its own."""
    packages: ClassVar[frozenset[str]]
    """Whose exceptions speak of the vendor; one that no row names is `unknown`."""
    rows: ClassVar[tuple[Row, ...]]
    takes_keys: ClassVar[bool] = False
    # Where an exception holds its facts: names of attributes or items, one inside the other.
    status: ClassVar[tuple[str, ...]] = ()
    code: ClassVar[tuple[str, ...]] = ()
    headers: ClassVar[tuple[str, ...]] = ()
    request_id: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def is_exchange(self, owner: object, name: str) -> bool:
        """Whether this method of the client, or of a part of it, asks the vendor."""
        ...

    @abstractmethod
    def effect(self, asked: Asked) -> Effect:
        """What repeating the call would do."""
        ...

    @abstractmethod
    def retries(self, client: Any) -> str:
        """How to make a client that leaves retries to the guard; empty when this one does."""
        ...

    @abstractmethod
    def failed(self, text: str) -> Exception:
        """The SDK's own exception for a call without an answer, for whoever catches it by that."""
        ...

    def operation(self, asked: Asked) -> str:
        """The operation's name; bounded, for it becomes a label."""
        return asked.path

    def scope(self, asked: Asked) -> str:
        """What pauses alone when the vendor asks for a pause; empty where it means all calls of the client."""
        return ""

    def key(self, asked: Asked) -> str:
        """The idempotency key the caller gave; empty when none."""
        return ""

    def keyed(self, asked: Asked, key: str) -> Asked:
        """The call with this idempotency key."""
        raise InvalidInput(f"{self.name} takes no idempotency key for {asked.path}; it is no KEYED call")

    def once_more(self, asked: Asked) -> Asked:
        """The call as the next attempt makes it."""
        return asked

    def sendable_again(self, asked: Asked) -> bool:
        """Whether a second attempt would send the same: a file or stream that was read is at its end."""
        return not any(map(_read_once, (*asked.args, *asked.kwargs.values())))

    def is_elsewhere(self, asked: Asked, error: BaseException) -> bool:
        """Whether it was another request that failed: one the call was redirected to, after the first had arrived."""
        return False

    def answer(self, answer: object) -> Facts | None:
        """The facts of an answer that is returned though it is a failure; None when it is none."""
        return None

    def may_repeat(self, facts: Facts) -> bool:
        """Whether the vendor leaves it to us to repeat a keyed call."""
        return True

    # What its exceptions mean.

    def facts(self, error: BaseException) -> Facts:
        """What the exception says besides its kind."""
        status, code, headers = (_inside(error, path) for path in (self.status, self.code, self.headers))
        return Facts(
            status=status if isinstance(status, int) else None,
            code=_word(code),
            headers=cast(Mapping[str, Any], headers) if isinstance(headers, Mapping) else {},
            request_id=_word(_inside(error, self.request_id)),
        )

    def understand(self, error: BaseException, now: datetime) -> CallFailed | None:
        """The exception as a failure; None: it is the caller's own, passes through, and counts for nothing."""
        if isinstance(error, CallFailed):
            return error
        facts, kinds = self.facts(error), set(kinds_of(error))
        for row in self.rows:
            if row.kind in kinds and _fits(row, facts):
                return None if row.cause is None else failure(row.cause, error, facts, now, reason=row.reason)
        if facts.status is not None:
            return failure(cause_of(facts.status), error, facts, now)
        if not self.packages.isdisjoint(kind.partition(".")[0] for kind in kinds):
            broke = what_broke(error)
            return failure(broke.cause, error, facts, now, reason=broke.reason, hard=broke.hard)
        return classify(error)


def failure(
    cause: Cause, of: object, facts: Facts, now: datetime, *, reason: str = "", hard: bool = False
) -> CallFailed:
    """Our failure. Its text names the exception only: the vendor's own words may quote what was sent."""
    after = parse_milliseconds(facts.header("retry-after-ms") or facts.header("x-amz-retry-after"))
    if after is None:
        after = parse_retry_after(facts.header("retry-after"), date=facts.header("date"), now=now)
    said = " ".join(str(fact) for fact in (facts.status, facts.code) if fact)
    return CallFailed.of(
        cause,
        f"{type(of).__name__}{f' ({said})' if said else ''}",
        status=facts.status,
        code=facts.code,
        reason=reason,
        retry_after=after,
        request_id=facts.request_id,
        hard=hard or (cause is Cause.UNKNOWN and (facts.status or 0) >= 500),
    )


def cause_of(status: int) -> Cause:
    """What a status means where no row says otherwise."""
    return _STATUSES.get(status, Cause.REJECTED if 400 <= status < 500 else Cause.UNKNOWN)


def loaded(module: str, name: str) -> Callable[..., Exception]:
    """A class of an SDK that is imported already, since there is a client of it."""
    return cast(Callable[..., Exception], getattr(sys.modules[module], name))


def _fits(row: Row, facts: Facts) -> bool:
    return row.status in (None, facts.status) and (row.codes is None or facts.code in row.codes)


def _inside(value: object, path: tuple[str, ...]) -> object:
    for step in path:
        if isinstance(value, Mapping):
            value = cast(Mapping[str, object], value).get(step)
        else:
            value = getattr(value, step, None)
    return value if path else None


def _word(value: object) -> str:
    """A code, if it is one: some SDKs put a sentence, or the answer's body, where a code belongs."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if len(text) <= 100 and text.isprintable() and " " not in text else ""


def _read_once(value: object, depth: int = 0) -> bool:
    if isinstance(value, str | bytes | bytearray) or depth > _DEEPEST:
        return False
    if isinstance(value, Mapping):
        return any(_read_once(each, depth + 1) for each in cast(Mapping[object, object], value).values())
    if isinstance(value, list | tuple):
        return any(_read_once(each, depth + 1) for each in cast(list[object], value))
    return any(hasattr(value, name) for name in ("read", "__next__", "__anext__"))


def _signature(method: Callable[..., object]) -> inspect.Signature:
    """What a method takes; finding that out anew takes longer than everything else a guard does."""
    function = getattr(method, "__func__", None)
    return inspect.signature(method) if function is None else _bound_signature(function)


@lru_cache(maxsize=4096)
def _bound_signature(function: Callable[..., object]) -> inspect.Signature:
    whole = inspect.signature(function)
    return whole.replace(parameters=list(whole.parameters.values())[1:])
