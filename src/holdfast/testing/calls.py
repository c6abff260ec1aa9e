"""The calls a program made at the vendors, and what tests ask of them."""

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol, Self, cast, overload
from urllib.parse import parse_qsl

from holdfast.testing.timeline import Line, Records, cut, failure

if TYPE_CHECKING:
    from holdfast.testing.faults import Fault

REFERENCES: Final = ("client_reference_id", "reference", "order_id", "external_id", "externalId", "orderId")
"""What vendors call the field for the caller's own name of the business object."""
_UNDECIDED: Final = frozenset({408, 409, 425, 429})
"""Refusals after which the same effect is asked for again, under the same key."""
_LONGEST_BODY: Final = 2000
"""Characters put into words; a timeline shows fewer, once they are redacted."""


class Asked(Protocol):
    """A request, as a simulator sees it."""

    @property
    def method(self) -> str: ...

    @property
    def target(self) -> str: ...

    @property
    def headers(self) -> Sequence[tuple[str, str]]: ...

    @property
    def body(self) -> bytes: ...


@dataclass(slots=True, eq=False, kw_only=True)
class CallRecord:
    """One call at a vendor, and how it ended on the wire."""

    number: int
    at: datetime
    vendor: str
    operation: str
    request: Asked | None
    fault: "Fault | None"
    ending: str
    """`answered`, `refused`, `reset`, `hang`, `truncated`: the word of the exchange."""
    status: int | None
    """What the vendor said, whether or not it came through; None where it said nothing."""
    delay: float
    key: str | None
    """The idempotency key it carried."""
    answer: bytes = field(default=b"", repr=False)
    """The body of what the vendor said, whether or not it came through."""
    arrived: bool | None = None
    """Whether the whole answer reached the program; None where the transport does not say."""

    @property
    def came_through(self) -> bool:
        """Whether the program got the whole answer, undamaged."""
        damaged = self.fault is not None and self.fault.stage == "body"
        return self.ending == "answered" and self.status is not None and self.arrived is not False and not damaged

    @property
    def succeeded(self) -> bool:
        """Whether the program got an answer that is no refusal."""
        return self.came_through and self.status is not None and self.status < 400

    @property
    def refused(self) -> bool:
        """Whether the program was told for good that nothing was done; then the next try is another effect."""
        status = self.status if self.came_through else None
        return status is not None and 400 <= status < 500 and status not in _UNDECIDED

    @property
    def asked(self) -> bytes:
        """Target and body of the request."""
        return b"" if self.request is None else self.request.target.encode() + b"\n" + self.request.body

    @property
    def reference(self) -> str | None:
        """The caller's name of the business object, where the request has a field for it."""
        named = dict(_fields(self.request.body)) if self.request is not None else {}
        return next((named[name] for name in REFERENCES if named.get(name)), None)

    def line(self) -> Line:
        """In words."""
        asked = [self.operation, *([f"key={self.key}"] if self.key is not None else [])]
        if self.request is not None:
            body = self.request.body[: 4 * _LONGEST_BODY].decode("utf-8", "replace")
            asked += [self.request.method, self.request.target, body]
        return Line("call", self.vendor, cut(" ".join(asked).rstrip(), _LONGEST_BODY), self._outcome())

    def _outcome(self) -> str:
        said = "" if self.status is None else str(self.status)
        took = f" after {self.delay:g}s" if self.delay else ""
        if self.came_through:
            fault = "" if self.fault is None else "planned" if self.fault.name == f"status_{said}" else self.fault.name
            return f"{said}{f' ({fault})' if fault else ''}{took}"
        why = self.fault.name if self.fault is not None else self.ending if self.ending != "answered" else "given up on"
        return f"{why}{took}" + (f": {said} lost" if said else "")


class Calls(Sequence[CallRecord]):
    """Some calls, in the order they were made; a demand that is not met ends with the timeline."""

    def __init__(self, records: Iterable[CallRecord], journal: Records) -> None:
        self._records = tuple(records)
        self._journal = journal

    @property
    def attempts(self) -> int:
        """How many there were."""
        return len(self._records)

    @property
    def gaps(self) -> list[float]:
        """Seconds from each to the next."""
        return [(after.at - before.at).total_seconds() for before, after in pairwise(self._records)]

    @property
    def keys(self) -> list[str | None]:
        """The idempotency key of each."""
        return [call.key for call in self._records]

    @property
    def statuses(self) -> list[int | None]:
        """What the program was answered; None where no answer came through."""
        return [call.status if call.came_through else None for call in self._records]

    @property
    def faults(self) -> list[str | None]:
        """What went wrong with each, by the fault's name."""
        return [None if call.fault is None else call.fault.name for call in self._records]

    def assert_same_key(self) -> Self:
        """All tries of one effect carry one idempotency key, and no key serves two.

        Tries of one effect are calls of one operation with one reference in the request, or, where there is none, with
        the same target and body. After a refusal for good (4xx, except 408, 409, 425 and 429) a new key may follow.

        Raises:
            AssertionError: A call carries no key, a try has another one, or there are no calls.
        """
        __tracebackhide__ = True
        self._require(self.attempts > 0, "no calls were made, so none carried a key")
        groups: dict[Hashable, list[CallRecord]] = defaultdict(list)
        owners: dict[tuple[str, str], Hashable] = {}
        for call in self._records:
            effect = _effect(call)
            self._require(call.key is not None, f"a call carried no idempotency key: {_named(call)}")
            owner = owners.setdefault((call.vendor, call.key or ""), effect)
            self._require(owner == effect, f"key {call.key} served two effects; the second: {_named(call)}")
            groups[effect].append(call)
        for calls in groups.values():
            for before, after in pairwise(calls):
                if before.key != after.key and not before.refused:
                    text = f"one effect was tried under two keys, {before.key} and {after.key}: {_named(after)}"
                    self._require(False, text)
        return self

    def assert_at_most(self, most: int) -> Self:
        """No more than so many.

        Raises:
            AssertionError: There were more.
        """
        __tracebackhide__ = True
        self._require(self.attempts <= most, f"{self.attempts} calls were made, not at most {most}")
        return self

    def assert_within(self, seconds: float) -> Self:
        """From the first to the end of the last no more than so many seconds.

        Raises:
            AssertionError: It took longer.
        """
        __tracebackhide__ = True
        took = sum(self.gaps) + (self._records[-1].delay if self._records else 0.0)
        self._require(took <= seconds, f"{self.attempts} calls took {took:g} s, not at most {seconds:g} s")
        return self

    def _require(self, holds: bool, text: str) -> None:
        __tracebackhide__ = True
        if not holds:
            raise failure(text, self._journal)

    @overload
    def __getitem__(self, index: int) -> CallRecord: ...

    @overload
    def __getitem__(self, index: slice) -> "Calls": ...

    def __getitem__(self, index: int | slice) -> "CallRecord | Calls":
        return Calls(self._records[index], self._journal) if isinstance(index, slice) else self._records[index]

    def __iter__(self) -> Iterator[CallRecord]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"Calls({[_named(call) for call in self._records]})"


def _effect(call: CallRecord) -> Hashable:
    """What the call wants done, so that its retries are known for what they are."""
    about = call.reference if call.reference is not None else call.asked
    return call.vendor, call.operation, about


def _named(call: CallRecord) -> str:
    line = call.line()
    return f"{line.vendor} {line.what} → {line.outcome}"


def _fields(body: bytes) -> Iterator[tuple[str, str]]:
    """The fields of a JSON object or a form, by the last part of their name, the outermost first."""
    try:
        found: object = json.loads(body or b"{}")
    except ValueError:
        found = None
    # Reversed, for in a dict the last one of a name wins.
    if isinstance(found, dict):
        yield from reversed(list(_leaves(cast(Mapping[str, object], found))))
    else:
        for name, value in reversed(parse_qsl(body.decode("utf-8", "replace"))):
            yield name.rstrip("]").rpartition("[")[2], value


def _leaves(found: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    nested: list[Mapping[str, object]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            nested.append(cast(Mapping[str, object], value))
        elif isinstance(value, str | int) and not isinstance(value, bool):
            yield name, str(value)
    for inner in nested:
        yield from _leaves(inner)
