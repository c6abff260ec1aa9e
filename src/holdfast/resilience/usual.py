"""The path of a call where everything is as usual: nothing to wait for, and an answer at the first attempt.

Nearly every call goes this way, so here, and only here, speed comes first: what a call needs is looked up once per
guard, and no lock is taken, for one thread only ever runs this. Whatever is not as usual is for a `Call` to decide.
"""

import asyncio
from asyncio import current_task, get_running_loop
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from holdfast.outcome import Effect
from holdfast.resilience.breaker import Result
from holdfast.resilience.call import NOTHING, READ, Call
from holdfast.resilience.context import leave, surroundings
from holdfast.resilience.limits import RateLimit
from holdfast.resilience.metrics import BOUNDS, Operation
from holdfast.resilience.shared import Shared
from holdfast.resilience.timers import Line, TimeLimit
from holdfast.telemetry import CallFinished

T = TypeVar("T")

SUCCESS = Result.SUCCESS
Lines = dict[asyncio.AbstractEventLoop, Line]


class Path(Protocol):
    """Makes a call; also the careful way, for calls of which something is not as usual."""

    def __call__(
        self,
        effect: Effect,
        name: str,
        function: Callable[..., Awaitable[T]],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = NOTHING,
        /,
    ) -> Coroutine[Any, Any, T]:
        """Make it. Raises CallFailed."""
        ...


class Repeat(Protocol):
    """Makes the further attempts of a call."""

    def __call__(
        self, call: Call, function: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: Mapping[str, Any], /
    ) -> Coroutine[Any, Any, T]:
        """Try it again. Raises CallFailed."""
        ...


def usual_path(
    shared: Shared,
    lines: Lines,
    operations: dict[str, Operation],
    operation_for: Callable[[str, Effect], Operation],
    carefully: Path,
    after: Callable[[Call, BaseException], Coroutine[Any, Any, bool]],
    repeat: Repeat,
) -> Path:
    """The way a guard's usual calls go."""
    monotonic, limit, deadline, retries = shared.monotonic, shared.usual_limit, shared.deadline, shared.retries
    circuit, budget, slow_after, sinks = shared.circuit, shared.budget, shared.slow_after, shared.telemetry.sinks
    take_place = shared.places.take if shared.places is not None else None
    give_place = shared.places.release if shared.places is not None else None
    take_slot, give_slot = _slots(shared.rates)
    here, surround = surroundings.get, surroundings.set
    latest: Line | None = None

    async def make(
        effect: Effect,
        name: str,
        function: Callable[..., Awaitable[T]],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = NOTHING,
        /,
    ) -> T:
        nonlocal latest
        outer = until, retrying, priority, transaction = here()
        operation = operations.get(name) or operation_for(name, effect)
        begun = monotonic()
        end = begun + limit
        line = latest
        if line is None or line.loop is not get_running_loop():
            line = latest = _line_here(shared, lines)
        if not shared.calm or transaction is not None or end > until:
            return await carefully(effect, name, function, args, kwargs)

        # Circuits, places, rates.
        permit = own = own_permit = None
        if circuit is not None:
            permit = circuit.standing
            if permit is None:
                if not sinks and begun < circuit.shut_until:  # and nobody listens
                    operation.turned_away()
                    raise shared.rejection.at(shared.name, name, circuit.reason, circuit.shut_until - begun)
                return await carefully(effect, name, function, args, kwargs)
            if effect is not READ:
                own = operation.circuit or operation_for(name, effect).circuit
                if own is not None and (own_permit := own.standing) is None:
                    return await carefully(effect, name, function, args, kwargs)
        task = current_task(line.loop)
        if task is None or (take_place is not None and not take_place(priority, begun)):
            del task  # it may end with what is raised here, which by its traceback would hold it
            return await carefully(effect, name, function, args, kwargs)
        if take_slot is not None and not take_slot("", begun):
            if shared.places is not None:
                shared.places.release(priority, begun, outcome="unused")
            del task
            return await carefully(effect, name, function, args, kwargs)
        if budget is not None:
            if begun < budget.edge:
                budget.firsts += 1
            else:
                budget.deposit(begun)

        # The attempt, with its time limit.
        waiting, number, cancelling = line.waiting, next(line.numbers), task.cancelling()
        waiting[number] = (end, task)
        if not line.armed:
            line.arm(limit)
        own_until = begun + deadline
        mine = (own_until if own_until < until else until, retrying or retries, priority, None)
        surround(mine)
        try:
            value = await (function(*args, **kwargs) if args or kwargs else function())
        except BaseException as error:
            expired = waiting.pop(number, None) is None
            leave(mine, outer)
            call = Call(shared, effect, operation, outer, begun)
            call.under_way(permit, own_permit, TimeLimit(task, cancelling, expired=expired))
            del task
            if not await after(call, error):
                raise
        else:
            surround(outer)
            if waiting.pop(number, None) is None:
                task.uncancel()  # its time was up while it came back with an answer

            if shared.threaded:  # since it began
                call = Call(shared, effect, operation, outer, begun)
                call.under_way(permit, own_permit, None)
                call.succeeded()
                return value

            # What it says of the provider, and what it gives back.
            now = monotonic()
            seconds = now - begun
            slow = seconds > slow_after
            if give_place is not None:
                give_place(priority, now)
            if give_slot is not None:
                give_slot("", now)
            if circuit is not None and permit is not None:
                # As `record` does it; but nearly always the circuit is as it was, and the bucket of its window too.
                if permit is circuit.standing and now < circuit.window.edge and not slow:
                    circuit.consecutive = 0
                    circuit.window.well += 1
                else:
                    shared.tell("", circuit.record(permit, SUCCESS, now, slow=slow))
                if own is not None and own_permit is not None:
                    if own_permit is own.standing and now < own.window.edge and not slow:
                        own.consecutive = 0
                        own.window.well += 1
                    else:
                        shared.tell(name, own.record(own_permit, SUCCESS, now, slow=slow))
            operation.durations[bisect_left(BOUNDS, seconds)] += 1
            operation.seconds += seconds
            operation.last.append(seconds)
            if sinks:
                shared.telemetry.emit(CallFinished(shared.name, name, "ok", seconds, 1))
            return value
        return await repeat(call, function, args, kwargs)

    return make


def _slots(
    rates: tuple[RateLimit, ...],
) -> tuple[Callable[[str, float], bool], Callable[[str, float], None]] | tuple[None, None]:
    """How to take a slot of each rate, or of none, and how to give them back."""
    if not rates:
        return None, None
    if len(rates) == 1:
        return rates[0].take, rates[0].release

    def take(key: str, now: float) -> bool:
        for index, rate in enumerate(rates):
            if not rate.take(key, now):
                for taken in rates[:index]:
                    taken.release(key, now, sent=False)
                return False
        return True

    def give(key: str, now: float) -> None:
        for rate in rates:
            rate.release(key, now)

    return take, give


def _line_here(shared: Shared, lines: Lines) -> Line:
    """The time limits of the running loop, which from now on is where usual calls are made."""
    loop = get_running_loop()
    shared.move_to(loop)
    with shared.lock:
        for closed in [each for each in lines if each.is_closed()]:
            del lines[closed]
        line = lines.get(loop)
        if line is None:
            line = lines[loop] = Line(loop, shared.usual_limit, shared.clock)
    return line
