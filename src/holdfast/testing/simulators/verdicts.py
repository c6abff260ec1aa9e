"""What should be true, said as JSON: the ledger's demands for tests in any language."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from holdfast.errors import InvalidInput
from holdfast.testing.intents import Intent, charge, meeting, message, offer, refund
from holdfast.testing.ledger import Ledger
from holdfast.values import Money

OF_EVERYTHING: Final = ("no_orphans", "never_two_offers", "refunded_at_most_captured")
OF_ONE_INTENT: Final = ("exactly_once", "at_least_one", "at_most_once", "never")
NOUNS: Final[Mapping[str, tuple[Callable[..., Intent], frozenset[str]]]] = {
    "charge": (charge, frozenset(("reference", "amount", "vendor"))),
    "refund": (refund, frozenset(("reference", "amount", "vendor"))),
    "offer": (offer, frozenset(("reference", "amount", "vendor"))),
    "meeting": (meeting, frozenset(("reference", "vendor"))),
    "message": (message, frozenset(("to", "key", "text_contains", "vendor"))),
}


def verdicts(ledger: Ledger, demands: Sequence[object]) -> dict[str, object]:
    """Which of them hold, and why others do not.

    Raises:
        InvalidInput: One of them is no demand.
    """
    judged = [_verdict(demand, _check(ledger, demand)) for demand in demands]
    return {"holds": all(one["holds"] for one in judged), "verdicts": judged}


def _verdict(demand: object, check: Callable[[], object]) -> dict[str, object]:
    try:
        check()
    except AssertionError as error:
        # The timeline behind it has a door of its own.
        return {"demand": demand, "holds": False, "why": str(error).partition("\n\nwhat happened:")[0]}
    return {"demand": demand, "holds": True}


def _check(ledger: Ledger, demand: object) -> Callable[[], object]:
    if isinstance(demand, str):
        if demand not in OF_EVERYTHING:
            raise InvalidInput(f"{demand!r} is none of {', '.join(OF_EVERYTHING)}")
        return cast(Callable[[], object], getattr(ledger, demand))
    name, said = _only(demand, OF_ONE_INTENT, "a demand")
    noun, about = _only(said, tuple(NOUNS), f"what {name} is demanded of")
    intent = _intent(noun, about)
    judge = cast(Callable[[Intent], object], getattr(ledger, name))
    return lambda: judge(intent)


def _only(said: object, known: Sequence[str], what: str) -> tuple[str, object]:
    if isinstance(said, dict) and len(cast(dict[str, object], said)) == 1:
        [(name, rest)] = cast(dict[str, object], said).items()
        if name in known:
            return name, rest
    raise InvalidInput(f"{what} is an object with one of {', '.join(known)}")


def _intent(noun: str, about: object) -> Intent:
    make, names = NOUNS[noun]
    facts: dict[str, Any] = dict(cast(dict[str, Any], about)) if isinstance(about, dict) else {}
    if not isinstance(about, dict) or not {*facts} <= {*names, *(("currency",) if "amount" in names else ())}:
        raise InvalidInput(f"a {noun} is an object of {', '.join(sorted(names))}")
    if not all(isinstance(value, str) for value in facts.values()):
        raise InvalidInput(f'what is said of a {noun} is text, money too: "amount": "12.00", "currency": "CHF"')
    if ("amount" in facts) != ("currency" in facts):
        raise InvalidInput('an amount comes with its currency: "amount": "12.00", "currency": "CHF"')
    if "amount" in facts:
        facts["amount"] = Money(str(facts["amount"]), str(facts.pop("currency")))
    return make(**facts)
