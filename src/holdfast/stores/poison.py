"""When a job is given up on, because it takes down whoever runs it."""

MAX_LOSSES = 3
REASON = "poison"
ERROR = f"its lease ran out {MAX_LOSSES} times: whoever ran it died or stood still"
