"""Where text ends up: log records, spans, exceptions, files, stored jobs; all of it, with a word on where it stood."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from logging import LogRecord
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Ledger
from holdfast.testing.timeline import Timeline
from holdfast.values import Secret, Secrets

if TYPE_CHECKING:
    from holdfast.queue.audit import Audit
    from holdfast.stores.store import Job

Text = tuple[str, bytes]
"""Where it stood, and what it says."""
_PAGE = 100
_OF_EVERY_RECORD = frozenset(vars(LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime"}


class SupportsQueue(Protocol):
    """A hub."""

    @property
    def queue(self) -> Any: ...


async def stored(hub: SupportsQueue) -> Mapping[str, object]:
    """What a hub keeps: its inbox with the dead letters, as it lies in the store, and its audits."""
    jobs: list[Job] = []
    while page := await hub.queue.list(after=jobs[-1].id if jobs else "", limit=_PAGE):
        jobs += page
    audits: list[Audit] = []
    while written := await hub.queue.audit(after=audits[-1].key if audits else "", limit=_PAGE):
        audits += written
    return {"jobs": jobs, "audits": audits}


def texts(place: object, where: str) -> Iterator[Text]:
    """Every text in that place.

    Raises:
        TypeError: A hub, whose store must be awaited.
    """
    yield from _Reader().read(place, where)


class _Reader:
    """Reads each object once."""

    def __init__(self) -> None:
        self._seen: list[object] = []  # kept, so that no id is given out twice
        self._ids: set[int] = set()

    def read(self, place: object, where: str) -> Iterator[Text]:
        match place:
            case str():
                yield where, place.encode("utf-8", "surrogatepass")
                return
            case bytes() | bytearray():
                yield where, bytes(place)
                return
            case None | bool() | int() | float() | Secret() | Secrets():
                return
            case _:
                pass
        if id(place) in self._ids:
            return
        self._ids.add(id(place))
        self._seen.append(place)
        yield from self._read(place, where)

    def _read(self, place: object, where: str) -> Iterator[Text]:
        match place:
            case LogRecord():
                yield from self._record(place, f"{where} ({place.name}, {place.levelname})")
            case BaseException():
                yield from self._error(place, f"{where} {type(place).__name__}")
            case Journal():
                yield from self.read(Timeline(place).render(), f"{where} timeline")
            case Ledger():
                yield from self.read(place.dump(), f"{where} ledger")
            case Path():
                yield f"{where} {place.name}", place.read_bytes()
            case Mapping():
                for key, value in cast(Mapping[object, object], place).items():
                    yield from self.read(key, f"{where} key")
                    yield from self.read(value, f"{where} {_short(key)}")
            case _ if is_dataclass(place) and not isinstance(place, type):
                for field in fields(place):
                    yield from self.read(getattr(place, field.name), f"{where}.{field.name}")
            case _ if hasattr(place, "records") and hasattr(place, "text"):
                yield from self._named(place, where, "records", "text")
            case _ if hasattr(place, "get_finished_spans"):
                yield from self.read(cast(Any, place).get_finished_spans(), where)
            case _ if hasattr(place, "attributes"):
                yield from self._span(place, where)
            case Iterable():
                for number, item in enumerate(cast(Iterable[object], place)):
                    yield from self.read(item, f"{where}[{number}]")
            case _ if hasattr(place, "queue"):
                raise TypeError(
                    "what a hub keeps has to be read from its store: `assert_no_secrets(await stored(hub))`"
                )
            case _:
                yield from self.read(repr(place), where)
                yield from self.read(str(place), where)

    def _record(self, record: LogRecord, where: str) -> Iterator[Text]:
        with suppress(Exception):  # arguments that do not fit the message are read one by one below
            yield from self.read(record.getMessage(), f"{where}.message")
        yield from self._named(record, where, "msg", "args", "exc_text", "stack_info")
        if record.exc_info:
            yield from self.read(record.exc_info[1], f"{where}.exc_info")
        extra = {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        yield from self.read(extra, f"{where}.extra")

    def _error(self, error: BaseException, where: str) -> Iterator[Text]:
        """With all it carries and all it came from; not the variables of its frames, which nobody prints."""
        yield from self.read(str(error), where)
        yield from self.read(repr(error), where)
        yield from self.read(error.args, f"{where}.args")
        yield from self.read(vars(error), where)
        yield from self.read(error.__cause__, f"{where} from")
        yield from self.read(error.__context__, f"{where} during")
        if isinstance(error, BaseExceptionGroup):
            yield from self.read(cast(BaseExceptionGroup[BaseException], error).exceptions, where)

    def _span(self, span: object, where: str) -> Iterator[Text]:
        """As OpenTelemetry's are made, with their events, links and status."""
        name = getattr(span, "name", "")
        named = f"{where} span {_short(name)}" if name else where
        yield from self._named(span, named, "name", "attributes", "events", "links", "resource")
        yield from self.read(getattr(getattr(span, "status", None), "description", None), f"{named}.status")

    def _named(self, place: object, where: str, *names: str) -> Iterator[Text]:
        for name in names:
            yield from self.read(getattr(place, name, None), f"{where}.{name}")


def _short(key: object) -> str:
    return f"{key}"[:40]
