"""Small runs, written by hand, for what is drawn of them."""

from holdfast.resilience import CircuitState
from holdfast.resilience.simulate import Change, Second, Simulation
from holdfast.telemetry import CircuitChanged

CLOSED, HALF_OPEN, OPEN = CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN


def change(at: float, before: CircuitState, after: CircuitState, open_for: float = 0.0, operation: str = "") -> Change:
    return Change(at, CircuitChanged("simulated", operation, before.value, after.value, "because", open_for))


def tiny() -> Simulation:
    """Twelve seconds at four calls each; down from the third to the sixth."""
    healthy = Second(offered=4, sent=4, succeeded=4)
    rejecting = Second(offered=4, rejected=4, state=OPEN)
    return Simulation(
        rps=4,
        outage=range(3, 7),
        seconds=(
            *(healthy,) * 3,
            Second(offered=4, sent=6, retried=2, rejected=1, state=OPEN),
            *(rejecting,) * 2,
            Second(offered=4, sent=1, rejected=3, state=OPEN),
            rejecting,
            Second(offered=4, sent=3, succeeded=3, rejected=1),
            *(healthy,) * 3,
        ),
        changes=(
            change(3.25, CLOSED, OPEN, 3.0),
            change(6.2, OPEN, HALF_OPEN),
            change(6.3, HALF_OPEN, OPEN, 2.0),
            change(8.2, OPEN, HALF_OPEN),
            change(8.4, HALF_OPEN, CLOSED),
        ),
        probes_at_once=1,
    )
