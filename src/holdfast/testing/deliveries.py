"""What the vendors owe your app, delivered as a test wants it: twice, late, shuffled, forged, or not at all.

door = webhooks.to(app, "/hooks/stripe")
await door.deliver(duplicate=2, shuffle=True, late="72h", forge="wrong_key")
webhooks.assert_all_genuine_accepted()
webhooks.assert_no_forgery_accepted()
"""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Final, Literal, Protocol, cast, get_args, runtime_checkable
from urllib.parse import urlsplit

from holdfast.clock import Clock, SystemClock
from holdfast.testing.faults import chance
from holdfast.testing.journal import Journal
from holdfast.testing.simulators.courier import Courier, Due, Hears, How, Sent, Treatment
from holdfast.testing.simulators.forgeries import Manner, forgeries
from holdfast.testing.simulators.receivers import App, Factory, receiver
from holdfast.testing.simulators.simulator import Headers, Reply, Simulator, Webhook
from holdfast.testing.timeline import failure

Rotation = Literal["during", "after"]
Which = bool | Collection[int] | Callable[[Webhook], bool]
"""All or none, those of these numbers, or those for which it holds."""
Length = float | str | timedelta
"""Seconds, or `72h`, `-10m`, `1h30m`."""
Runner = Callable[[Callable[[], Awaitable[Reply]]], Awaitable[Reply | int]]
"""Calls the app; 0 says that its process died."""

NO_SUCH_PATH: Final = frozenset({404, 405})
"""What an app answers where it has no such path, or none to POST to."""
NOWHERE: Final = "https://app.test/"
"""Where a webhook goes whose vendor was told no address."""


@runtime_checkable
class Jumping(Protocol):
    """A clock under which time passes by itself when everybody waits: `VirtualClock`."""

    @property
    def is_running(self) -> bool: ...

    def running(self) -> AbstractAsyncContextManager[None]: ...


class Webhooks:
    """The post of one run: what every vendor owes, the doors it is brought to, and what became of it.

    Under a `VirtualClock` time passes while webhooks are delivered: late ones are late, and a vendor waits between its
    tries as it says it does. Under any other clock nobody waits: what is due later comes later, at the same time, and
    of a vendor's tries only the first ten are made. `waits` says otherwise.
    """

    def __init__(
        self,
        simulators: Mapping[str, Simulator] | Iterable[Simulator],
        *,
        seed: int = 0,
        clock: Clock | None = None,
        journal: Hears | None = None,
        waits: bool | None = None,
    ) -> None:
        """`simulators` may still grow."""
        self.seed = seed
        self.clock: Clock = clock or SystemClock()
        self.waits = isinstance(self.clock, Jumping) if waits is None else waits
        self.runner: Runner = _await
        """How the app is called; it may let it die."""
        self._journal = journal
        self._courier = Courier(lambda: _each(simulators), clock=self.clock, journal=journal)
        self._doors = 0

    def to(self, app: App | Factory | str, path: str = "", *, vendor: str | None = None) -> "Door":
        """A door: an ASGI app, a function that makes one anew after each crash, or an address on this machine.

        Webhooks go to the `path` given; without one, to the path of the address their vendor was told. Of several
        vendors all come through, unless one is named here or by a part of the path, as in `/hooks/stripe`.
        """
        self._doors += 1
        return Door(self, self._courier, app, path, vendor, number=self._doors)

    @property
    def waiting(self) -> list[Webhook]:
        """What waits to be delivered, in the order in which it was owed."""
        return self._courier.waiting()

    @property
    def owed(self) -> int:
        """How many were owed so far, over all vendors; their numbers begin at 0."""
        self._courier.waiting()
        return self._courier.owed

    @property
    def sent(self) -> list[Sent]:
        """Every request made, in order."""
        return self._courier.sent

    @property
    def dropped(self) -> list[Webhook]:
        """What was never sent, and what only reconciliation can find."""
        return self._courier.dropped

    def number(self, webhook: Webhook) -> int:
        """In which place it was owed, over all vendors, from 0."""
        return self._courier.number(webhook)

    def order(self, number: int, how: str) -> None:
        """This happens to the webhook of this number, whatever else is asked for: twice, never, last, together, late.

        `last` comes after all others of its delivery, `late` an hour late.
        """
        if how not in get_args(How):
            raise ValueError(f"a webhook comes {', '.join(get_args(How))}; not {how}")
        self._courier.order(number, cast(How, how))

    # Verdicts

    @property
    def accepted_forgeries(self) -> list[Sent]:
        """Forged ones the receiver answered 2xx; there must be none."""
        return self._courier.accepted_forgeries

    @property
    def refused(self) -> list[Sent]:
        """The last try of each genuine one that no try has brought in; there must be none.

        What was signed by a clock that is further off than the vendor allows is not among them.
        """
        return self._courier.refused

    def assert_all_genuine_accepted(self) -> None:
        """Every genuine webhook that was sent has been answered 2xx in the end.

        Raises:
            AssertionError: The vendor has given up on some; the message lists them.
        """
        __tracebackhide__ = True
        if self.refused:
            raise self.failure("the app never accepted what is genuine, and the vendor has given up", self.refused)

    def assert_no_forgery_accepted(self) -> None:
        """No forged webhook has been answered 2xx.

        Raises:
            AssertionError: Some were; the message lists them.
        """
        __tracebackhide__ = True
        if self.accepted_forgeries:
            raise self.failure("the app accepted what is forged", self.accepted_forgeries)

    def failure(self, text: str, sent: Sequence[Sent]) -> AssertionError:
        """The error that says this of these, with the timeline behind it."""
        listed = "\n".join([f"{text}:", *(f"  {one}" for one in sent)])
        return failure(listed, self._journal) if isinstance(self._journal, Journal) else AssertionError(listed)


class Door:
    """Where webhooks are brought."""

    def __init__(
        self,
        webhooks: Webhooks,
        courier: Courier,
        app: App | Factory | str,
        path: str,
        vendor: str | None,
        *,
        number: int,
    ) -> None:
        self._webhooks = webhooks
        self._courier = courier
        self._number = number
        self._rounds = 0
        self._receiver = receiver(app, seed=webhooks.seed)
        self._path = path or (urlsplit(app).path.rstrip("/") if isinstance(app, str) else "")
        self._vendor = vendor

    async def deliver(
        self,
        events: Iterable[Webhook] | None = None,
        *,
        duplicate: int = 0,
        shuffle: bool = False,
        late: Length | None = None,
        drop: Which = False,
        forge: str | Sequence[str] | None = None,
        reserialise: bool = False,
        lie: bool = False,
        rotate: Rotation | None = None,
        together: bool = False,
        skew: Length | None = None,
        expect: int | Literal["any"] | None = None,
    ) -> list[Sent]:
        """Deliver what is owed now, or these, each until it is accepted or its vendor gives up.

        `duplicate` more of each are sent, `together` at the same moment, `late` so long after now, with a `skew` of
        the clock that signs them. What is in `drop` is never sent. Each is preceded by forged ones: one `forge` by its
        name, several, or `all`, and `reserialise`, a body that says the same in other bytes. A `lie` is rightly signed
        and untrue. `rotate` gives each vendor a new secret: `during` a rotation it signs as it documents, `after` it
        with the new one only. `expect` is what the app is to answer to each genuine one in the end; "any" is also
        that it knows no such path.

        Raises:
            AssertionError: The app knows no such path: it has answered 404 or 405 to all that went there; or it has
                not answered as expected.
            ValueError: A way to forge that none of these vendors' webhooks can be forged by.
        """
        __tracebackhide__ = True
        self._rounds += 1
        webhooks = self._taken(events)
        if rotate is not None:
            self._rotate(webhooks, rotate)
        forged = self._forged(webhooks, forge, reserialise=reserialise)
        due: list[Due] = []
        for place, webhook in enumerate(webhooks):
            treatment = Treatment(
                dropped=_holds(drop, webhook, self._courier.number(webhook)),
                after=seconds(late or 0),
                duplicates=(0.0,) * duplicate,
                together=together,
                forged=forged[webhook.stamp],
                lie=lie,
                skew=seconds(skew or 0),
                straggler=rotate == "during" and place % 2 == 0 and self._changes_over(webhook),
            )
            due += self._courier.plan(webhook, treatment)
        if shuffle:
            due = self._courier.shuffled(due, chance(self._webhooks.seed, "shuffle", self._number, self._rounds))
        async with self._time():
            sent = await self._courier.deliver(due, self._send, waits=self._webhooks.waits, url=self._address)
        self._check_answers(sent, expect)
        return sent

    async def handshake(self) -> list[Sent]:
        """Have every vendor that makes sure of an endpoint do so, as when its address is entered.

        Raises:
            AssertionError: The app has not answered as the vendor asks.
            LookupError: No vendor here asks.
        """
        asking = [(one, asked) for one in self._simulators() if (asked := one.challenge()) is not None]
        if not asking:
            raise LookupError(f"{', '.join(one.vendor for one in self._simulators()) or 'nobody'} asks no endpoint")
        found: list[Sent] = []
        async with self._time():
            for simulator, asked in asking:
                sent, wrong = await self._courier.challenge(simulator, asked, self._send, self._address)
                found.append(sent)
                if wrong:
                    raise AssertionError(f"{simulator.vendor} does not take this endpoint: {wrong}; {sent}")
        return found

    def restart(self) -> None:
        """The app's process has died elsewhere; where a function makes it, the next webhook meets a new one."""
        self._receiver.restart()

    # What was answered

    def _check_answers(self, sent: Sequence[Sent], expect: int | Literal["any"] | None) -> None:
        """Raise AssertionError where the app has no such path, or has answered otherwise than is expected."""
        __tracebackhide__ = True
        genuine = [one for one in sent if one.manner.genuine or one.manner is Manner.DUPLICATE]
        if expect is None:
            self._check_paths(genuine)
        elif expect != "any" and (others := [one for one in _in_the_end(genuine) if one.status != expect]):
            raise self._webhooks.failure(f"the app is expected to answer {expect}, and answered", others)

    def _check_paths(self, genuine: Sequence[Sent]) -> None:
        __tracebackhide__ = True
        by_path: dict[str, list[Sent]] = {}
        for one in genuine:
            if one.status:  # who died, or was not there, has said nothing
                by_path.setdefault(urlsplit(self._address(one.webhook)).path or "/", []).append(one)
        for path, there in by_path.items():
            if {one.status for one in there} <= NO_SUCH_PATH:
                status = there[-1].status
                who = "the test says" if self._path else f"{there[-1].webhook.vendor} was told"
                paths = self._receiver.paths
                has = f"it takes POST at {', '.join(paths)}\n" if paths else ""
                raise self._webhooks.failure(
                    f"the app has no path {path} to POST to: it answered {status} to all that went there, as {who}\n"
                    f"{has}name the path it has, webhooks.to(app, path);"
                    f" or, where it is to answer so, deliver(expect={status}); they were",
                    _in_the_end(there),
                )

    # What, how, and where to

    def _simulators(self) -> list[Simulator]:
        """The vendors whose webhooks come through here."""
        found = self._courier.simulators
        named = self._vendor or next((part for part in self._path.split("/") if part in found), None)
        return [simulator for vendor, simulator in found.items() if named in (None, vendor)]

    def _taken(self, events: Iterable[Webhook] | None) -> list[Webhook]:
        """Taken out of the outboxes, in the order in which they were owed."""
        here = {simulator.vendor: simulator for simulator in self._simulators()}
        for simulator in here.values():
            simulator.tick()
        waiting = [webhook for webhook in self._courier.waiting() if webhook.vendor in here]
        wanted = waiting if events is None else list(events)
        stamps = {webhook.stamp for webhook in wanted}
        for simulator in self._courier.simulators.values():
            kept = [webhook for webhook in simulator.outbox if webhook.stamp not in stamps]
            simulator.outbox.clear()
            simulator.outbox.extend(kept)
        return wanted

    def _forged(
        self, webhooks: Sequence[Webhook], forge: str | Sequence[str] | None, *, reserialise: bool
    ) -> Mapping[int, tuple[Manner, ...]]:
        """By which forgeries each webhook is preceded."""
        names = [forge] if isinstance(forge, str) else list(forge or ())
        names += [Manner.RESERIALISED] * reserialise
        if not names:
            return {webhook.stamp: () for webhook in webhooks}
        possible = {webhook.stamp: forgeries(self._courier.simulators[webhook.vendor], webhook) for webhook in webhooks}
        everything = {manner for manners in possible.values() for manner in manners}
        wanted = {Manner(name) for name in names if name != "all"}
        if webhooks and (vain := wanted - everything):
            vendors = ", ".join(sorted({webhook.vendor for webhook in webhooks}))
            raise ValueError(
                f"what {vendors} sends cannot be forged by {', '.join(sorted(vain))};"
                f" it can by {', '.join(sorted(everything))}"
            )
        wanted |= everything if "all" in names else set()
        return {stamp: tuple(one for one in manners if one in wanted) for stamp, manners in possible.items()}

    def _rotate(self, webhooks: Sequence[Webhook], rotation: Rotation) -> None:
        for vendor in sorted({webhook.vendor for webhook in webhooks}):
            simulator = self._courier.simulators[vendor]
            if not simulator.old_secret and (rotation == "during" or not simulator.retired_secrets):
                simulator.roll_secret()
            if rotation == "after":
                simulator.retire_secret()

    def _changes_over(self, webhook: Webhook) -> bool:
        """Whether its vendor does not sign with the old secret and the new one, so that some come with the old."""
        simulator = self._courier.simulators[webhook.vendor]
        return not (webhook.secret or simulator.signs_with_both)

    def _address(self, webhook: Webhook) -> str:
        own = webhook.url or NOWHERE
        if not self._path:
            return own
        parts, here = urlsplit(own), urlsplit(self._path)
        return parts._replace(path=here.path, query=here.query or parts.query).geturl()

    async def _send(self, url: str, headers: Headers, body: bytes) -> Reply:
        answer = await self._webhooks.runner(lambda: self._receiver.take(url, headers, body))
        if isinstance(answer, Reply):
            return answer
        if not answer:
            self._receiver.restart()
        return Reply(status=answer, failure="" if answer else "the receiver died")

    @asynccontextmanager
    async def _time(self) -> AsyncGenerator[None]:
        """Time passes meanwhile, where it does so by itself."""
        clock = self._webhooks.clock
        if self._webhooks.waits and isinstance(clock, Jumping) and not clock.is_running:
            async with clock.running():
                yield
        else:
            yield


def seconds(length: Length) -> float:
    """As a number of seconds: `72h`, `-10m`, `1h30m`, `500ms`, `2d`.

    Raises:
        ValueError: It is written otherwise.
    """
    if isinstance(length, timedelta):
        return length.total_seconds()
    if not isinstance(length, str):
        return float(length)
    found = _LENGTH.fullmatch(length.strip())
    if found is None:
        raise ValueError(f"a length of time is written 72h, -10m or 1h30m, in d, h, m, s and ms; not {length!r}")
    total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(found["parts"]))
    return -total if found["sign"] == "-" else total


_UNITS: Final[Mapping[str, float]] = {"d": 86_400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
_LENGTH: Final = re.compile(rf"(?P<sign>[+-]?)(?P<parts>(?:{_PART.pattern})+)")


def _in_the_end(sent: Iterable[Sent]) -> list[Sent]:
    """Of each webhook the try that was accepted, or else the last one."""
    return list({one.number: one for one in sorted(sent, key=lambda one: one.accepted)}.values())


async def _await(call: Callable[[], Awaitable[Reply]]) -> Reply:
    return await call()


def _each(simulators: Mapping[str, Simulator] | Iterable[Simulator]) -> Iterable[Simulator]:
    if isinstance(simulators, Mapping):
        return cast(Mapping[str, Simulator], simulators).values()
    return simulators


def _holds(which: Which, webhook: Webhook, number: int) -> bool:
    if isinstance(which, bool):
        return which
    return which(webhook) if callable(which) else number in which
