"""After a failure: whether the same call goes out once more, and when; else what its caller is told."""

from math import inf

from holdfast.errors import CallFailed, OutcomeUnknown
from holdfast.outcome import Cause, Effect
from holdfast.resilience.call import Call
from holdfast.resilience.decide import Again, Circumstances, Decision, Next, Resolve, decide
from holdfast.resilience.holds import REFUSED_FOR
from holdfast.resilience.retry import FailedOutcome, RetryState, after_pause, backoff, stops
from holdfast.telemetry import RetryDenied, RetryScheduled

WHY = {
    "nested": "an outer guard still can",
    "attempts": "the policy's attempts are used up",
    "deadline": "the wait would outlast the deadline, or without one the policy's cap",
    "unsafe": "it may have taken effect, and repeating it could take effect twice",
    "budget": "too many retries of this provider already",
}
"""What a note on the error says of a retry that was refused."""


def after_failure(call: Call, error: CallFailed) -> float | CallFailed | None:
    """Seconds to wait before it is tried again; None: get a fresh credential first; an error: tell the caller."""
    past = call.past
    past.last = error
    past.unsettled = past.unsettled or error.cause is Cause.UNKNOWN
    wait = _backoff(call, error)
    decision = _decide(call, error, wait)
    if not isinstance(decision, Again):
        if error.cause is Cause.CREDENTIAL and call.options.credential:
            call.hold(call.options.credential, REFUSED_FOR, refused=True)
        return give_up(call, error, _why_not(call, decision))
    if error.cause is Cause.CREDENTIAL:
        return None
    if decision.after:
        wait = max(wait, after_pause(decision.after, call.shared.random))
    now = call.shared.monotonic()
    takes = call.operation.usual()
    if error.cause is Cause.NOT_SENT:
        # A host that swallows packets would swallow the next ones as long, and an end by timeout proves nothing.
        takes = max(takes, now - call.started)
    if wait + takes >= call.until - now or (call.until == inf and _impatient(call, decision.after)):
        return give_up(call, error, "deadline")
    budget = call.shared.budget
    with call.shared.lock:
        paid = budget is None or budget.spend(now, 2.0 if error.reason == "timeout" else 1.0)
        call.operation.retries += paid
    if not paid:
        return give_up(call, error, "budget")
    past.idled += wait
    if call.shared.telemetry.sinks:
        call.shared.telemetry.emit(RetryScheduled(call.shared.name, call.operation.name, call.attempts, wait))
    return wait


def give_up(call: Call, error: CallFailed, why: str) -> CallFailed:
    """What the caller is told, and why it was not tried again."""
    if why and call.shared.telemetry.sinks:
        call.shared.telemetry.emit(RetryDenied(call.shared.name, call.operation.name, why))
    if error.cause is not Cause.UNKNOWN and _in_doubt(call, error):
        doubt = OutcomeUnknown(
            f"{call.shared.name}: {call.operation.name} may have happened in an earlier attempt; the last one: {error}",
            provider=error.provider,
            operation=error.operation,
            status=error.status,
            code=error.code,
            reason=error.reason,
            retry_after=error.retry_after,
            request_id=error.request_id,
        )
        doubt.__cause__ = error
        error = doubt
    if why:
        error.add_note(f"not tried again: {WHY[why]}")
    call.finish(error.cause)
    return error


def _backoff(call: Call, error: CallFailed) -> float:
    """Seconds the policy waits; none before the first repeat after no connection: a fresh one often succeeds."""
    retry = call.shared.policy.retry
    if retry is None or error.local or not call.may_retry:
        return 0.0
    if error.cause is Cause.NOT_SENT and error.hard and retry.wait is None and not call.past.hurried:
        call.past.hurried = True
        return 0.0
    return backoff(retry, _state(call, error), error.cause, call.shared.random)


def _decide(call: Call, error: CallFailed, wait: float) -> Decision:
    retry, past, options = call.shared.policy.retry, call.past, call.options
    refreshable = error.cause is Cause.CREDENTIAL and options.refresh is not None and not past.refreshed
    may = retry is not None and call.may_retry and not error.local
    if may and retry is not None:
        may = not stops(retry, _state(call, error, max(wait, error.retry_after or 0.0)))
    return decide(
        error.cause,
        call.effect,
        Circumstances(
            attempts_left=1 if may or refreshable else 0,
            refreshable=refreshable,
            remaining=call.until - call.shared.monotonic(),
            retry_after=error.retry_after,
            local=error.local,
            key_valid=options.key_valid is None or options.key_valid(),
            unsettled=past.unsettled,
        ),
    )


def _state(call: Call, error: CallFailed, upcoming_sleep: float = 0.0) -> RetryState:
    return RetryState(
        attempt_number=call.attempts,
        outcome=FailedOutcome(error),
        seconds_since_start=call.shared.monotonic() - call.begun,
        idle_for=call.past.idled,
        upcoming_sleep=upcoming_sleep,
    )


def _impatient(call: Call, after: float | None) -> bool:
    """Whether the vendor asks for a longer pause than the policy waits; whoever has a deadline said it himself."""
    retry = call.shared.policy.retry
    return after is not None and retry is not None and after > retry.seconds("cap")


def _why_not(call: Call, decision: Decision) -> str:
    if call.shared.policy.retry is None or isinstance(decision, Again | Next) or decision.why == "final":
        return ""
    return "nested" if decision.why == "attempts" and not call.may_retry else decision.why


def _in_doubt(call: Call, error: CallFailed) -> bool:
    if error.cause is Cause.REJECTED and call.effect is Effect.KEYED and call.past.unsettled and not error.code:
        return True  # whoever honours the key would have said what became of it; this may be a proxy's word
    return isinstance(
        decide(error.cause, call.effect, Circumstances(unsettled=call.past.unsettled)),
        Resolve,
    )
