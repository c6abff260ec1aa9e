"""In which order providers are asked, the same for every family, and what is switched at run time.

A route is a value: `Payments([...], route=Cheapest())`. It is asked once per payment, meeting or message, and says why
it chose as it did. Who is switched off at run time is left out of every route.
"""

from holdfast.routing.router import Routed, Router
from holdfast.routing.routes import (
    Ask,
    ByRule,
    Candidate,
    Cheapest,
    Choice,
    Fastest,
    Healthiest,
    Ordered,
    Route,
    Rule,
    Weighted,
)
from holdfast.routing.switches import Switch, Switched, Switches

__all__ = [
    "Ask",
    "ByRule",
    "Candidate",
    "Cheapest",
    "Choice",
    "Fastest",
    "Healthiest",
    "Ordered",
    "Route",
    "Routed",
    "Router",
    "Rule",
    "Switch",
    "Switched",
    "Switches",
    "Weighted",
]
