"""The invariants, as functions from a history to what is wrong with it; no engine, no clock, no luck."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Final, NamedTuple

from chaos.history import Claim, Fault, History, Row, Run

TERMINAL: Final = ("done", "dead", "ignored")
FIRST, SECOND = "deliveries", "events"
LEAST: Final = 0.25
"""Of the usual pace; the pace itself is a figure, since a busy machine gives no better measure."""
TOLD: Final = 8
"""Violations of one invariant that are told one by one."""


class Violation(NamedTuple):
    """Which promise was broken, and how."""

    invariant: str
    what: str


def check(history: History) -> list[Violation]:
    """Everything that is wrong; empty when all promises were kept."""
    found: list[Violation] = []
    for name, invariant in INVARIANTS.items():
        broken = list(invariant(history))
        found += [Violation(name, what) for what in broken[:TOLD]]
        if len(broken) > TOLD:
            found.append(Violation(name, f"and {len(broken) - TOLD} more"))
    return found


def lost(history: History) -> list[str]:
    """Accepted, and neither handled nor kept for somebody to look at."""
    done = {effect.id for effect in history.effects}
    kept: dict[tuple[str, str], str] = {(row.queue, row.id): row.state for row in history.rows if not row.aside}
    missing: list[str] = []
    for id in sorted(history.acked - done):
        first, second = kept.get((FIRST, id)), kept.get((SECOND, id))
        if first in ("dead", "ignored") or (first in (None, "done") and second in TERMINAL):
            continue
        missing.append(
            f"{id}: accepted, but in the end its delivery is {first or 'gone'}, its event {second or 'gone'}"
        )
    return missing


def doubled(history: History) -> list[str]:
    """Effects that happened more than once."""
    times = Counter((effect.id, effect.handler) for effect in history.effects)
    return [f"{id}: {count} effects of {handler}" for (id, handler), count in times.items() if count > 1]


def _nothing_accepted_is_lost(history: History) -> Iterator[str]:
    yield from lost(history)


def _nothing_comes_from_nowhere(history: History) -> Iterator[str]:
    for what, ids in (
        ("an effect", {effect.id for effect in history.effects}),
        ("a run", {run.id for run in history.runs}),
        ("a row", {row.id for row in history.rows}),
    ):
        for id in sorted(ids - history.sent.keys()):
            yield f"{id}: {what}, and nobody sent it"
    for effect in history.effects:
        if effect.id in history.sent and effect.variant not in history.sent[effect.id].variants:
            yield f"{effect.id}: the effect of a body that was not the first"


def _every_effect_once(history: History) -> Iterator[str]:
    yield from doubled(history)
    effects = {effect.id for effect in history.effects}
    for row in history.rows:
        if row.queue == SECOND and row.state == "done" and row.id not in effects:
            yield f"{row.id}: recorded as done, and there is no effect"
    for first, second in _pairs(history):
        if first.generation == second.generation and not _explained(history, first, second):
            yield f"{second.id}: {second.queue} ran again (token {first.token}, then {second.token}) without a reason"


def _only_the_latest_token_counts(history: History) -> Iterator[str]:
    claims = defaultdict[str, list[Claim]](list)
    for claim in history.claims:
        claims[claim.job].append(claim)
    for job, those in claims.items():
        those.sort(key=lambda claim: claim.at)
        newest = 0
        for claim, before in zip(those, [None, *those], strict=False):
            if before is not None and claim.asked > before.at and claim.token <= newest:
                yield f"job {job}: token {claim.token} was given out after {newest}"
            newest = max(newest, claim.token)
        for token, times in Counter(claim.token for claim in those).items():
            if times > 1:
                yield f"job {job}: token {token} was given out {times} times"
    for change in history.changes:
        newer = [claim.token for claim in claims[change.job] if claim.at < change.asked and claim.token > change.token]
        if newer:
            told = f"{change.verb} with token {change.token} was kept, after {max(newer)} was given out"
            yield f"job {change.job}: {told}"


def _one_at_a_time_and_in_order(history: History) -> Iterator[str]:
    keys = defaultdict[tuple[str, str], list[Run]](list)
    for run in history.runs:
        # As the vendor sent it: a store that forgets the key is to be noticed, too.
        if run.id in history.sent and (order := history.sent[run.id].order):
            keys[run.queue, order].append(run)
    for (queue, order), runs in keys.items():
        runs.sort(key=lambda run: run.began)
        for before, run in pairwise(runs):
            ended = min(before.ended or inf, history.deaths.get(before.pid, inf))
            if run.began < ended and not _disturbed(history.faults, before, run.began):
                yield f"{queue} of {order}: {run.id} began while {before.id} ran"
        yield from _out_of_order(history, queue, order, runs)


def _out_of_order(history: History, queue: str, order: str, runs: Sequence[Run]) -> Iterator[str]:
    """Those whose place is known: accepted, and all that were sent before them as well."""
    first_of: dict[str, float] = {}
    last_of: dict[str, float] = {}
    for run in runs:
        if run.generation == 0:
            first_of.setdefault(run.id, run.began)
            last_of[run.id] = run.began
    buried = {row.id for row in history.rows if row.state == "dead" or row.generation}
    known = [id for id in first_of if history.sent[id].acked and id not in buried] if first_of else []
    known.sort(key=lambda id: history.sent[id].seq)
    for before, after in pairwise(known):
        if first_of[after] < last_of[before]:
            yield f"{queue} of {order}: {after} began before {before} was done with, which came first"


def _others_do_not_wait(history: History) -> Iterator[str]:
    if history.beside_blocked is not None and history.beside_blocked < LEAST:
        yield f"beside a key that fails for ever, others ran at {history.beside_blocked:.2f} of the usual pace"


def _recovery_is_bounded(history: History) -> Iterator[str]:
    for recovery in history.recoveries:
        if recovery.seconds - recovery.busy > recovery.within:
            where = "on an idle queue" if recovery.idle else "under load"
            took = f"{recovery.seconds:.2f} s, of which {recovery.busy:.2f} s behind others"
            yield f"{where} it took {took}, until a dead worker's job ran, and not {recovery.within:.2f} s"


def _the_dead_have_reasons(history: History) -> Iterator[str]:
    for row in history.rows:
        name = f"{row.id} in {row.queue}"
        if (row.state == "dead") != bool(row.reason):
            yield f"{name}: {row.state}, with the reason {row.reason!r}"
        if row.attempts > history.attempts:
            yield f"{name}: failed {row.attempts} times"
        if row.losses > history.losses or (row.reason == "poison" and row.losses != history.losses):
            yield f"{name}: lost {row.losses} times, {row.reason or 'not dead'}"
    deadly = {sent.id for sent in history.sent.values() if sent.mode == "deadly"}
    if deadly:
        for row in history.rows:
            if row.queue == SECOND and (row.reason == "poison") != (row.id in deadly):
                wrong = "survived" if row.id in deadly else "died of another's poison"
                yield f"{row.id}: {wrong} ({row.state}, lost {row.losses} times)"


def _nothing_appears_or_vanishes(history: History) -> Iterator[str]:
    for sample in history.samples:
        if not sample.least <= sample.rows <= sample.most:
            yield f"{sample.rows} rows, when at least {sample.least} and at most {sample.most} were sent"
    for (queue, id), times in _rows_per_id(history).items():
        if times > 1:
            yield f"{id}: {times} rows in {queue}"
    recount = Counter((row.queue, row.state) for row in history.rows)
    if dict(recount) != dict(history.counts):
        yield f"the store counts {dict(history.counts)}, and there are {dict(recount)}"
    for row in history.rows:
        if row.state not in TERMINAL:
            yield f"{row.id}: still {row.state} in {row.queue} when all was quiet"


def _rows_per_id(history: History) -> Counter[tuple[str, str]]:
    return Counter((row.queue, row.id) for row in history.rows if not row.aside)


def _a_2xx_is_the_truth(history: History) -> Iterator[str]:
    for sent in history.sent.values():
        odd = [answer for answer in sent.answers if answer not in (None, 503) and not 200 <= answer < 300]
        if odd:
            yield f"{sent.id}: answered {odd[0]}, which is neither 2xx nor 503"
    rows = {row.id for row in history.rows if row.queue == FIRST and not row.aside}
    if not history.purged:
        for id in sorted(history.acked - rows):
            yield f"{id}: answered 2xx, and the store does not hold it"


def _nothing_is_left_over(history: History) -> Iterator[str]:
    for what, (found, most) in history.leftovers.items():
        if found > most:
            yield f"{what}: {found:g}, and not {most:g} at most"


def _a_replay_is_one_generation(history: History) -> Iterator[str]:
    for replay in history.replays:
        if replay.after != replay.before + 1:
            yield f"job {replay.job}: asked {replay.requests} times, went from {replay.before} to {replay.after}"
    least = (len(history.replays) - 1) / history.replay_rate
    if history.replays and history.replay_seconds < least:
        yield f"{len(history.replays)} replays in {history.replay_seconds:.2f} s, and not at {history.replay_rate}/s"


def _the_history_is_one(history: History) -> Iterator[str]:
    """A run in which nothing was done, or not what should have been, proves nothing."""
    for place in history.places_left:
        yield f"no process died at {place}"


INVARIANTS: Final[Mapping[str, Callable[[History], Iterator[str]]]] = {
    "I1": _nothing_accepted_is_lost,
    "I2": _nothing_comes_from_nowhere,
    "I3": _every_effect_once,
    "I4": _only_the_latest_token_counts,
    "I5": _one_at_a_time_and_in_order,
    "I6": _others_do_not_wait,
    "I7": _recovery_is_bounded,
    "I8": _the_dead_have_reasons,
    "I9": _nothing_appears_or_vanishes,
    "I10": _a_2xx_is_the_truth,
    "I11": _nothing_is_left_over,
    "I12": _a_replay_is_one_generation,
    "history": _the_history_is_one,
}


def reruns(history: History) -> int:
    """How often a handler ran again, of whatever reason."""
    return sum(1 for _ in _pairs(history))


def _pairs(history: History) -> Iterator[tuple[Run, Run]]:
    """Each run of a job, and the next one of the same job."""
    runs = defaultdict[tuple[str, str], list[Run]](list)
    for run in history.runs:
        runs[run.queue, run.job].append(run)
    for those in runs.values():
        yield from pairwise(sorted(those, key=lambda run: run.began))


def _explained(history: History, first: Run, second: Run) -> bool:
    """It was given back on purpose, or who ran it died, stood still, or could not reach the store."""
    if (first.job, first.token) in history.given_back:
        return True
    return first.pid in history.deaths or _disturbed(history.faults, first, second.began)


def _disturbed(faults: Sequence[Fault], run: Run, until: float) -> bool:
    """Its process stood still or was told to stop, or the store could not be reached, before `until`."""
    return any(
        fault.at <= until and fault.until >= run.began
        for fault in faults
        if fault.what == "outage" or (fault.what in ("frozen", "stopped") and fault.pid == run.pid)
    )


def of_state(rows: Sequence[Row]) -> Counter[str]:
    """How many rows are in each state."""
    return Counter(row.state for row in rows)
