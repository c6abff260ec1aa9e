"""Named weather for a whole run: `calm`, and the `storm` of the demo."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from holdfast.testing.faults import Faults, Refused, Reset, Status
from holdfast.testing.simulators.webhooks import Mischief


def calm(faults: Faults) -> Mischief:
    """Nothing goes wrong."""
    return Mischief()


def storm(faults: Faults) -> Mapping[str, Mischief]:
    """Every vendor has a bad day, and the post loses, doubles, delays and forges.

    The intervals are primes, so that over 200 orders every fault fires several times and they rarely coincide.
    """
    payments = faults.on("swiss-bitcoin-pay", "payments.create")
    payments.every(11, Reset())
    payments.every(17, Status(503, body=b'{"reason":"service_unavailable"}'))
    payments.every(29, Refused(seconds=0.5))
    meetings = faults.on("zoom", "meetings.create")
    meetings.every(19, Reset())
    faults.on("telegram", "messages.send").every(31, _too_many(retry_after=1))
    usual = Mischief(duplicate=0.2, delay=0.3, up_to=2, forge=0.15, lie=0.02, drop=0.05)
    # LNbits' bodies have nothing to tell a lie from the truth that follows it, so the sweep has to find the latter.
    return {"swiss-bitcoin-pay": replace(usual, lie=0.3), "lnbits": usual, "zoom": usual, "telegram": usual}


def _too_many(retry_after: int) -> Status:
    """Telegram says how long in the body, not in a header."""
    body = {
        "ok": False,
        "error_code": 429,
        "description": f"Too Many Requests: retry after {retry_after}",
        "parameters": {"retry_after": retry_after},
    }
    return Status(429, body=json.dumps(body).encode())


SCENARIOS: Final[Mapping[str, Callable[[Faults], Mischief | Mapping[str, Mischief]]]] = {"calm": calm, "storm": storm}
