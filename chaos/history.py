"""What happened, from what was written down outside of the system and from what the system holds in the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

from chaos import journal


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What the vendor knows of one delivery."""

    id: str
    order: str = ""
    seq: int = 0
    mode: str = "plain"
    answers: tuple[int | None, ...] = ()
    """One for each time it was sent; None: no answer came."""
    variants: tuple[str, ...] = ("",)
    """The bodies of which one may have come first."""

    @property
    def acked(self) -> bool:
        return any(answer is not None and 200 <= answer < 300 for answer in self.answers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """One row in the user's database."""

    id: str
    handler: str
    generation: int
    token: int
    variant: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A job in a handler, from its start to its end, if it came to that."""

    queue: str
    job: str
    id: str
    token: int
    began: float
    ended: float | None = None
    outcome: str = ""
    generation: int = 0
    attempts: int = 0
    losses: int = 0
    pid: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A token was given out at some time between `asked` and `at`."""

    job: str
    token: int
    asked: float
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """Somebody was told that its change of a job is kept."""

    verb: str
    job: str
    token: int
    asked: float
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A job as the store holds it in the end."""

    queue: str
    job: str
    id: str
    key: str
    state: str
    token: int
    reason: str = ""
    attempts: int = 0
    losses: int = 0
    generation: int = 0

    @property
    def aside(self) -> bool:
        """Another body under the id, kept for a person to look at."""
        return "/conflict-" in self.key


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What was done to the system: `died`, `stopped`, `frozen` (a process), `outage` (the store)."""

    what: str
    at: float
    until: float = inf
    pid: int = 0
    how: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """How many different deliveries there must be at least, how many there were, and how many there may be."""

    least: int
    rows: int
    most: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """From the kill of a worker to the new start of what it ran, in seconds."""

    seconds: float
    within: float
    idle: bool = True
    busy: float = 0.0
    """Of these, the seconds in which workers had other jobs to begin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """A job that was asked to run again: its generations, and how often that was asked."""

    job: str
    before: int
    after: int
    requests: int


@dataclass(frozen=True, kw_only=True)
class History:
    """Everything the checker looks at; it knows no engine."""

    sent: Mapping[str, Sent] = field(default_factory=dict[str, Sent])
    effects: Sequence[Effect] = ()
    runs: Sequence[Run] = ()
    claims: Sequence[Claim] = ()
    changes: Sequence[Change] = ()
    rows: Sequence[Row] = ()
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    faults: Sequence[Fault] = ()
    samples: Sequence[Sample] = ()
    recoveries: Sequence[Recovery] = ()
    replays: Sequence[Replay] = ()
    purged: bool = False
    """Ended jobs may have been dropped."""
    attempts: int = 24
    """As many failures a job may have."""
    losses: int = 3
    """With so many losses it is dead."""
    beside_blocked: float | None = None
    """Throughput beside a key that fails for ever, of that without one; None: not measured."""
    leftovers: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """What is there when all is done, and the most there may be."""
    places_left: Sequence[str] = ()
    """Named places at which a process should have died, and none did."""
    replay_seconds: float = inf
    replay_rate: float = inf
    """What the replays took, and how many a second were allowed."""

    @property
    def acked(self) -> set[str]:
        return {sent.id for sent in self.sent.values() if sent.acked}

    @cached_property
    def deaths(self) -> Mapping[int, float]:
        """When which process died."""
        deaths: dict[int, float] = {}
        for fault in self.faults:
            if fault.what == "died":
                deaths[fault.pid] = min(fault.at, deaths.get(fault.pid, inf))
        return deaths

    @cached_property
    def given_back(self) -> set[tuple[str, int]]:
        """Jobs, and the tokens with which they were given back on purpose."""
        return {(change.job, change.token) for change in self.changes if change.verb in ("retry", "snooze")}


def of_key(key: str) -> str:
    """`chaos/e17` or `chaos/e17/count`: the vendor's id."""
    return key.split("/")[1]


def sent(path: Path) -> dict[str, Sent]:
    """From the vendor's own notes."""
    facts: dict[str, dict[str, Any]] = {}
    answers: dict[str, list[int | None]] = {}
    for line in journal.read(path):
        if line["what"] == "sent":
            facts.setdefault(line["id"], line)
            answers.setdefault(line["id"], [])
        elif line["what"] == "answer":
            answers[line["id"]].append(line["status"])
    return {
        id: Sent(
            id=id,
            order=fact["order"],
            seq=fact["seq"],
            mode=fact["mode"],
            answers=tuple(answers[id]),
            variants=tuple(fact.get("variants", [""])),
        )
        for id, fact in facts.items()
    }


def work(lines: Sequence[Mapping[str, Any]]) -> tuple[list[Run], list[Claim], list[Change]]:
    """From what workers wrote."""
    begun: dict[tuple[str, int, int], Mapping[str, Any]] = {}
    ended: dict[tuple[str, int, int], Mapping[str, Any]] = {}
    claims, changes = list[Claim](), list[Change]()
    for line in lines:
        match line["what"]:
            case "start":
                begun[line["job"], line["token"], line["pid"]] = line
            case "end":
                ended[line["job"], line["token"], line["pid"]] = line
            case "claim":
                claims.append(Claim(job=line["job"], token=line["token"], asked=line["asked"], at=line["at"]))
            case "change":
                about = {name: line[name] for name in ("verb", "job", "token", "asked", "at")}
                changes.append(Change(**about))
            case _:
                pass
    runs = [
        Run(
            queue=line["queue"],
            job=line["job"],
            id=of_key(line["key"]),
            token=line["token"],
            began=line["at"],
            ended=ended[key]["at"] if key in ended else None,
            outcome=ended[key]["outcome"] if key in ended else "",
            generation=line["generation"],
            attempts=line["attempts"],
            losses=line["losses"],
            pid=line["pid"],
        )
        for key, line in begun.items()
    ]
    return sorted(runs, key=lambda run: run.began), claims, changes


def faults(lines: Sequence[Mapping[str, Any]]) -> list[Fault]:
    """From what was written by those who did it, and by processes that ended themselves."""
    return [
        Fault(
            what=line["what"],
            at=line["at"],
            until=line.get("until", inf),
            pid=line.get("pid", 0),
            how=line.get("how", ""),
        )
        for line in lines
        if line["what"] in ("died", "stopped", "frozen", "outage")
    ]


def may_have_purged(lines: Sequence[Mapping[str, Any]]) -> bool:
    """Something was dropped, or a process died before it could say whether it dropped anything."""
    begun = sum(line["what"] == "purging" for line in lines)
    ended = [line["jobs"] for line in lines if line["what"] == "purged"]
    return len(ended) < begun or any(ended)
