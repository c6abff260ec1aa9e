"""Nostr relays: they keep the newest event of each author under each name, and answer filters.

https://github.com/nostr-protocol/nips/blob/master/01.md
"""

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.testing.simulators.swiss_bitcoin_pay_checkout.nostr import Event, is_genuine, tagged

MOST: int = 500
"""Events that an answer holds, newest first, where nothing less was asked for."""


class Relay:
    """One relay; everybody may write to it."""

    def __init__(self, genuine: dict[str, bool]) -> None:
        self._events: dict[tuple[str, int, str], Event] = {}
        self._genuine = genuine  # one curve's arithmetic is enough for all relays

    def take(self, event: Event) -> str:
        """Keep an event; why not, where it is refused."""
        seal = f"{event.get('id')}{event.get('sig')}"
        if seal not in self._genuine:
            self._genuine[seal] = is_genuine(event)
        if not self._genuine[seal]:
            return "invalid: bad signature"
        name = (event["pubkey"], event["kind"], next(iter(tagged(event, "d")), ""))
        known = self._events.get(name)
        if known is None or _order(event) < _order(known):
            self._events[name] = event
        return ""

    def find(self, *filters: Mapping[str, Any]) -> list[Event]:
        """What fits one of the filters, newest first."""
        found: dict[str, Event] = {}
        for wanted in filters:
            fitting = sorted((event for event in self._events.values() if _fits(event, wanted)), key=_order)
            found |= {event["id"]: event for event in fitting[: wanted.get("limit", MOST)]}
        return list(found.values())


def _order(event: Event) -> tuple[int, str]:
    return -event["created_at"], event["id"]


def _fits(event: Event, wanted: Mapping[str, Any]) -> bool:
    return all(_meets(event, name, value) for name, value in wanted.items())


def _meets(event: Event, name: str, value: Any) -> bool:
    among: Sequence[Any]
    match name:
        case "ids" | "authors" | "kinds":
            among = value
            return event[{"ids": "id", "authors": "pubkey", "kinds": "kind"}[name]] in among
        case "since":
            return bool(event["created_at"] >= value)
        case "until":
            return bool(event["created_at"] <= value)
        case "limit":
            return True
        case _:
            among = value
            return not set(tagged(event, name.removeprefix("#"))).isdisjoint(among)
