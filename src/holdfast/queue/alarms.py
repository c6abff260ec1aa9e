"""What a person who is on call is told."""

from dataclasses import dataclass
from typing import Final

HANDLER: Final = "holdfast:on_call"
"""The handler that tells them; its own dead letters are no alarm, or a road that is cut would be asked to say so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """What happened and what to do; no secret, and nothing of a payer but your own reference."""

    subject: str
    text: str


def alarm(subject: str, *, happened: str, to_do: str) -> Alarm:
    """What it is about, what happened and what to do: a line each."""
    return Alarm(subject=subject, text=f"{subject}.\nWhat happened: {happened}.\nWhat to do: {to_do}.")
