"""What a run says of itself: for people, and as one JSON object."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from chaos import checker
from chaos.stage import Found
from chaos.tiers import ENGINES, Model, Outcome


def is_good(outcomes: Sequence[Outcome], model: Model | None) -> bool:
    """Every promise was kept, and every one that was taken out was missed."""
    return all(outcome.is_good for outcome in outcomes) and not (model is not None and model.failed)


def in_words(outcome: Outcome) -> str:
    """One line."""
    broken = Counter(violation.invariant for violation in outcome.violations)
    if outcome.scenario.mutation:
        return f"noticed: {', '.join(broken)}" if outcome.is_good else f"NOT NOTICED ({', '.join(broken) or 'nothing'})"
    if outcome.found is None or broken:
        return f"BROKEN: {', '.join(broken)}"
    found = outcome.found
    said = [f"{sum(found.kills.values())} kills", f"{len(found.history.acked)} accepted"]
    said += [f"{value:g} {name}" for name, value in found.notes.items()]
    return "good: " + ", ".join(said)


def summary(outcomes: Sequence[Outcome], model: Model | None, seed: int, seconds: float) -> dict[str, Any]:
    """The JSON object of a run."""
    real = [outcome for outcome in outcomes if not outcome.scenario.mutation]
    found = [outcome.found for outcome in real if outcome.found is not None]
    engines = {name: _engine([each for each in found if each.engine == name]) for name in ENGINES}
    return {
        "kills": sum(engine["kills"] for engine in engines.values()),
        "acked": sum(engine["acked"] for engine in engines.values()),
        "lost": sum(len(checker.lost(each.history)) for each in found),
        "doubled": sum(len(checker.doubled(each.history)) for each in found),
        "engines": {name: engine for name, engine in engines.items() if engine["scenarios"]},
        "mutations": {outcome.scenario.mutation: outcome.is_good for outcome in outcomes if outcome.scenario.mutation},
        "model": None if model is None else not model.failed,
        "broken": [
            f"{outcome.scenario.engine}, {outcome.scenario.name}: {violation.invariant}"
            for outcome in outcomes
            if not outcome.is_good
            for violation in (outcome.violations or [checker.Violation("not noticed", "")])
        ],
        "seconds": round(seconds),
        "seed": seed,
    }


def _engine(found: Sequence[Found]) -> dict[str, Any]:
    kills: Counter[str] = Counter()
    for each in found:
        kills.update(each.kills)
    recovered = sorted(recovery.seconds for each in found for recovery in each.history.recoveries)
    idle = [recovery.seconds for each in found for recovery in each.history.recoveries if recovery.idle]
    return {
        "level": found[0].level if found else "",
        "kills": sum(kills.values()),
        "by_kind": dict(sorted(kills.items())),
        "places": len({place for each in found for place in each.places}),
        "acked": sum(len(each.history.acked) for each in found),
        "sent": sum(len(each.history.sent) for each in found),
        "effects": sum(len(each.history.effects) for each in found),
        "lost": sum(len(checker.lost(each.history)) for each in found),
        "doubled": sum(len(checker.doubled(each.history)) for each in found),
        "reruns": sum(checker.reruns(each.history) for each in found),
        "refused": sum(sum(sent.answers.count(503) for sent in each.history.sent.values()) for each in found),
        "recovery_p50_s": round(statistics.median(recovered), 2) if recovered else None,
        "recovery_max_s": round(recovered[-1], 2) if recovered else None,
        "idle_recovery_max_s": round(max(idle), 2) if idle else None,
        "scenarios": [each.name for each in found],
    }
