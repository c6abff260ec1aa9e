"""What was refused: counted, and a sample of it kept in memory for a person to look at."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from holdfast.clock import Clock
from holdfast.webhooks.request import RawRequest

SIZE: Final = 100
EVERY: Final = 1.0
"""Of each door and reason, one is kept, and told of, in so many seconds."""
LONGEST: Final = 1000
"""Characters that are kept of a body."""
SHOWN: Final = frozenset({"content-type", "content-length", "content-encoding", "user-agent", "host", "date"})
"""Headers that are kept with their value; of the others the name says enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A request that was not believed, or could not be taken."""

    at: datetime
    provider: str
    reason: str
    hint: str
    client: str
    headers: Mapping[str, str]
    """The values of all that may hold a secret are `***`."""
    body: str
    """How it begins, secrets taken out."""
    size: int


class Quarantine:
    """The last hundred refusals that were sampled, and the count of all."""

    def __init__(self, clock: Clock, redact: Callable[[str], str]) -> None:
        self._clock = clock
        self._redact = redact
        self._ring = deque[Refused](maxlen=SIZE)
        self._counts = Counter[tuple[str, str]]()
        self._untold = Counter[tuple[str, str]]()
        self._next: dict[tuple[str, str], float] = {}

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """How often, by provider and reason."""
        return dict(self._counts)

    @property
    def kept(self) -> Sequence[Refused]:
        """Newest last."""
        return tuple(self._ring)

    def count(self, provider: str, reason: str) -> int:
        """How often it has happened since it was last told of; 0: that was a moment ago, so not now."""
        what = provider, reason
        self._counts[what] += 1
        self._untold[what] += 1
        now = self._clock.monotonic()
        if now < self._next.get(what, now):
            return 0
        self._next[what] = now + EVERY
        return self._untold.pop(what)

    def keep(self, request: RawRequest, provider: str, reason: str, hint: str, client: str) -> None:
        """Put it into the ring."""
        begin = request.body[: 4 * LONGEST].decode("utf-8", "replace")
        self._ring.append(
            Refused(
                at=request.received_at,
                provider=provider,
                reason=reason,
                hint=hint,
                client=client,
                headers={name: self._redact(value) if name in SHOWN else "***" for name, value in request.headers},
                body=self._redact(begin)[:LONGEST],
                size=len(request.body),
            )
        )
