"""How tokens and numbers go on after a restore."""

from typing import Final

BEYOND: Final = 1_000_000
"""Added to every token and number that is restored: more than were given out after the backup was made.

Without it a worker that held a job when the store was lost could end what somebody else runs now, under the same token.
"""
