"""The one path every protected exchange takes."""

import asyncio
import inspect
from asyncio import get_running_loop
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from math import inf
from random import Random
from threading import RLock
from typing import Any, ParamSpec, TypeAlias, TypeVar

from holdfast.clock import Clock, SystemClock
from holdfast.errors import CallFailed, CallInsideTransaction, CircuitOpen, InvalidInput, InvalidPolicy
from holdfast.outcome import Effect
from holdfast.resilience.breaker import Circuit, CircuitSnapshot, Transition
from holdfast.resilience.budget import RetryBudget
from holdfast.resilience.cache import AnswerCache, CacheSnapshot, SharedAnswers
from holdfast.resilience.call import CALL, IDEMPOTENT, KEYED, NOTHING, ONCE, READ, USUAL, Call, Kept, Options
from holdfast.resilience.classify import Classify, classify
from holdfast.resilience.context import forget_frame, in_transaction, leave, surroundings
from holdfast.resilience.holds import Holds
from holdfast.resilience.limits import ConcurrencyLimit, ConcurrencySnapshot, RateLimit, RateSnapshot
from holdfast.resilience.lookup import Lookup
from holdfast.resilience.metrics import Operation, OperationSnapshot
from holdfast.resilience.policy import Concurrency, Policy, Rate, Seconds
from holdfast.resilience.repeat import after_failure, give_up
from holdfast.resilience.shared import Peers, Shared, SharedState
from holdfast.resilience.sync import SyncGuard
from holdfast.resilience.timers import TimeLimit
from holdfast.resilience.usual import Lines, Path, usual_path
from holdfast.telemetry import Telemetry

T = TypeVar("T")
P = ParamSpec("P")

Coro: TypeAlias = Coroutine[object, object, T]
MOST_OPERATIONS = 1000
"""Names of operations that are told apart; whoever makes up more shares one."""
OTHERS = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSnapshot:
    """A guard as it stands, for people and gauges."""

    name: str
    circuits: dict[str, CircuitSnapshot]
    """By operation; the provider's own under the empty name."""
    operations: dict[str, OperationSnapshot]
    holds: dict[str, float]
    """Seconds left, by credential."""
    budget: float
    """Repeats there may be now; infinite without a budget."""
    rates: tuple[RateSnapshot, ...]
    concurrency: ConcurrencySnapshot | None
    cache: CacheSnapshot | None
    running: int
    """Attempts under way."""
    shared_state: SharedState | None
    """Whether what other processes know is known here; None: it shares with none."""


class Guard:
    """Protects calls to one provider, in the order that `policy.explain()` prints.

    `weather = Guard("weather", Policy(deadline=3))`, then `await weather.read(fetch, city)`. The verb says what
    repeating the call would do: `read`, `idempotent`, `keyed(key, …)` where the provider honours the key, `once`.
    `weather.sync` has the same verbs for code without a loop; both share all state, over loops and threads.
    """

    def __init__(
        self,
        name: str,
        policy: Policy | None = None,
        *,
        clock: Clock | None = None,
        random: Random | None = None,
        telemetry: Telemetry | None = None,
        classify: Classify = classify,
        health: Callable[[], object] | None = None,
        answers: SharedAnswers[Any] | None = None,
        circuit: Circuit | None = None,
        rejection: type[CircuitOpen] = CircuitOpen,
    ) -> None:
        """`health` is a harmless call of the provider that tries out an open circuit before anybody's own call does.

        `answers` is where the policy's cache shares them with other processes. `circuit` takes the place of the one the
        policy's breaker makes, and `rejection` is what is raised while one is open; `interop` has both for pybreaker.

        Raises:
            InvalidPolicy: The name is no text, or the policy no policy.
        """
        if not isinstance(name, str) or not name:  # type: ignore[redundant-expr]  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidPolicy('the first argument is the provider\'s name, a text: Guard("weather", Policy(…))')
        if policy is not None and not isinstance(policy, Policy):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidPolicy(f"the policy of {name} is a Policy, not {policy!r}: Policy(deadline=5)")
        self.name = name
        self.policy = policy = policy or Policy()
        random = random or Random()  # jitter, not a secret
        self._clock = clock or SystemClock()
        self._shared = _shared(
            name, policy, self._clock, random, telemetry if telemetry is not None else Telemetry(), classify
        )
        self._shared.circuit = circuit or self._shared.circuit
        self._shared.rejection = rejection
        self._health = health
        self._operations: dict[str, Operation] = {}
        self._lines: Lines = {}
        self._make = usual_path(
            self._shared, self._lines, self._operations, self._operation, self._carefully, self._after, self._repeat
        )
        self._cache = (
            None if policy.cache is None else AnswerCache[Any](policy.cache, clock=self._clock, shared=answers)
        )
        self._look: Path = self._make
        if policy.cache is not None or policy.hedge is not None:
            self._look = Lookup(self._shared, self._cache, policy.hedge, self._operation, self._make, self._carefully)
        self.sync = SyncGuard(self._shared, self._begin, health, self._cache)

    # Verbs.

    def read(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
        """Call something that only looks. Raises CallFailed.

        With a cache in the policy the function and its arguments are the key: `guard.read(fetch, city)`, no closure.
        """
        return self._look(READ, getattr(function, "__name__", CALL), function, args, kwargs)

    def idempotent(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
        """Call something that is the same done twice. Raises CallFailed."""
        return self._make(IDEMPOTENT, getattr(function, "__name__", CALL), function, args, kwargs)

    def keyed(self, key: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
        """Call something the provider does once per `key`, which the function passes on. Raises CallFailed."""
        if not key:
            raise InvalidInput("a keyed call needs its key; use once() where the provider takes none")
        return self._make(KEYED, getattr(function, "__name__", CALL), function, args, kwargs)

    def once(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
        """Call something that must not happen twice. Raises CallFailed; OutcomeUnknown when it may have happened."""
        return self._make(ONCE, getattr(function, "__name__", CALL), function, args, kwargs)

    async def run(
        self,
        exchange: Callable[[], Awaitable[T]],
        *,
        effect: Effect,
        operation: str,
        refresh: Callable[[], Awaitable[object]] | None = None,
        key_valid: Callable[[], bool] | None = None,
        deadline: float | None = None,
        timeout: float | None = None,
        credential: str = "",
        scope: str = "",
    ) -> T:
        """Make one exchange, as often as effect and cause allow.

        `refresh` gets a fresh credential after a refusal, once; `key_valid` says whether a keyed exchange may still be
        sent. `deadline` and `timeout`, in seconds, may only shorten the policy's. `credential` names what pauses
        when the vendor asks for a pause, `scope` what pauses alone when the vendor means only that, such as a host or
        a chat; both are shown to people, so neither is a secret.

        Raises:
            CallFailed: By cause; its notes say why it was not tried again.
            CallInsideTransaction: Called inside `handled_in`; nothing was sent.
        """
        options = Options(
            credential=credential,
            scope=scope,
            refresh=refresh,
            key_valid=key_valid,
            deadline=inf if deadline is None else deadline,
            timeout=inf if timeout is None else timeout,
        )
        return await self._carefully(effect, operation, exchange, options=options)

    def guarded(
        self, effect: Effect = Effect.ONCE, *, operation: str = ""
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
        """Decorate a coroutine function: every call of it is made through this guard.

        Raises:
            InvalidInput: KEYED, for whose every call needs its key; use `keyed`.
        """
        if effect is KEYED:
            raise InvalidInput("a keyed call needs its key each time: await guard.keyed(key, function, …)")

        def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
            name = operation or getattr(function, "__name__", CALL)

            @wraps(function)
            async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
                return await self._make(effect, name, function, args, kwargs)

            return guarded

        return decorate

    @asynccontextmanager
    async def attempt(self, effect: Effect = Effect.ONCE, *, operation: str = "attempt") -> AsyncGenerator[Call]:
        """One attempt, not repeated: what it needs is held, and its time limit runs, until the block is left.

        Raises:
            CallFailed: By cause; an exception of the block that says nothing of the provider passes through.
        """
        call = self._begin(effect, operation, Options(repeatable=False))
        outer = surroundings.get()
        mine = call.surroundings
        surroundings.set(mine)
        failed: CallFailed | None = None
        try:
            await self._line_up(call)
            yield call
        except BaseException as error:
            failed = call.failure(error)
            if failed is None:
                raise
            call.finish(failed.cause)
            if failed is error:
                raise
            forget_frame(error)
            raise failed from failed.__cause__
        else:
            call.succeeded()
        finally:
            failed = None  # else it would hold itself, by its traceback
            leave(mine, outer)

    async def open(
        self,
        exchange: Callable[[], Awaitable[T]],
        *,
        effect: Effect,
        operation: str,
        repeat: bool,
        credential: str = "",
        scope: str = "",
    ) -> tuple[T, Call]:
        """Make an exchange whose answer is read later: its last attempt holds what it needs until `Call.end`.

        `repeat=False` is for what can be sent only once, such as a streamed body. Raises CallFailed.
        """
        kept = Kept()
        options = Options(credential=credential, scope=scope, repeatable=repeat, kept=kept)
        value = await self._carefully(effect, operation, exchange, options=options)
        assert kept.call is not None
        return value, kept.call

    # The path.

    async def _carefully(
        self,
        effect: Effect,
        name: str,
        function: Callable[..., Awaitable[T]],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = NOTHING,
        options: Options = USUAL,
    ) -> T:
        """A call of which something is not as usual."""
        return await self._repeat(self._begin(effect, name, options), function, args, kwargs)

    async def _repeat(
        self, call: Call, function: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> T:
        outer = surroundings.get()
        mine = call.surroundings
        surroundings.set(mine)
        try:
            while True:
                try:
                    await self._line_up(call)
                    value = await function(*args, **kwargs)
                except BaseException as error:
                    if not await self._after(call, error):
                        raise
                else:
                    if call.options.kept is not None:
                        call.answered()
                    else:
                        call.succeeded()
                    return value
        finally:
            leave(mine, outer)

    async def _after(self, call: Call, error: BaseException) -> bool:
        """Wait until it may be tried again; False: the caller is told this very error. Raises what is told instead."""
        failed = call.failure(error)
        if failed is None:
            at = error.__traceback__
            if isinstance(error, TypeError) and "await" in str(error) and at is not None and at.tb_next is None:
                error.add_note(  # it is raised by our own await, and not by one within the function
                    "a guard awaits what it calls; for a plain function use guard.sync, which has the same verbs"
                )
            return False
        try:
            then = after_failure(call, failed)
            if then is None:
                then = await self._refresh(call, failed) or 0.0
            if then is error:
                return False
            if isinstance(then, CallFailed):
                raise then from then.__cause__
            if then > 0:
                await self._clock.sleep(then)
        except BaseException as reason:  # cancelled, or the refresh or a strategy broke, unless it is what he is told
            call.broken_off(reason)
            raise
        finally:
            failed = then = None  # an error that is raised here would hold itself, by its traceback
            del error
        call.again()
        return True

    def _begin(self, effect: Effect, name: str, options: Options = USUAL) -> Call:
        """Raises CallInsideTransaction."""
        if in_transaction():
            raise CallInsideTransaction(f"{self.name} {name}")
        operation = self._operations.get(name)
        if operation is None or (effect is not READ and operation.circuit is None):
            operation = self._operation(name, effect)
        return Call(self._shared, effect, operation, surroundings.get(), self._shared.monotonic(), options)

    async def _line_up(self, call: Call) -> None:
        """Wait for what an attempt needs, in order. Raises NotSent and its kinds."""
        call.look()
        bell, health = _Bell(get_running_loop(), self._clock), self._health
        while True:
            while seconds := call.held():
                await self._clock.sleep(seconds)
            while health is not None and call.tries_out():
                await self._try_out(call, health)
            while (ticket := call.line_up(bell.ring)) is not None:
                try:
                    while seconds := call.turn(ticket):
                        await bell.wait(seconds)
                except BaseException:
                    call.abandon(ticket)
                    raise
            if not call.overtaken(health=health is not None):
                break
            call.step_back()
        while seconds := call.elects(bell.ring):
            await bell.wait(seconds)
        call.permitted()
        if call.limit < inf:
            call.timer = TimeLimit.start(call.limit, self._clock)

    async def _try_out(self, call: Call, health: Callable[[], object]) -> None:
        """Let the health operation find out whether the provider is back. Raises CircuitOpen: it is not."""

        async def ask() -> None:
            answer = health()
            if inspect.isawaitable(answer):
                await answer

        try:
            await self._carefully(READ, "health", ask, options=Options(repeatable=False, is_health=True))
        except Exception as error:  # whatever is wrong with it, the caller's own call was not sent
            call.not_tried_out(error)

    async def _refresh(self, call: Call, error: CallFailed) -> CallFailed | None:
        """Get a fresh credential, within the deadline; else what the caller is told."""
        assert call.options.refresh is not None
        call.past.refreshed = True
        left = call.until - self._shared.monotonic()
        try:
            async with self._clock.timeout(left if left < inf else None):
                answer = call.options.refresh()
                if inspect.isawaitable(answer):
                    await answer
        except TimeoutError:
            if self._shared.monotonic() < call.until:
                raise  # the refresh's own
            return give_up(call, error, "deadline")
        except CallFailed as failure:
            failure.provider = failure.provider or self.name
            failure.operation = failure.operation or call.operation.name
            return give_up(call, failure, "")
        return None

    def _operation(self, name: str, effect: Effect = READ) -> Operation:
        with self._shared.lock:
            if len(self._operations) >= MOST_OPERATIONS and name not in self._operations:
                name = OTHERS
            found = self._operations.setdefault(name, Operation(name))
            if effect is not READ and found.circuit is None and self.policy.breaker is not None:
                found.circuit = Circuit(self.policy.breaker, self._shared.random)
        return found

    # What can be seen, and done by hand.

    def snapshot(self) -> GuardSnapshot:
        """Everything there is to see."""
        return self._shared.in_turn(self._snapshot)

    def _snapshot(self) -> GuardSnapshot:
        shared, now = self._shared, self._shared.monotonic()
        return GuardSnapshot(
            name=self.name,
            circuits={name: circuit.snapshot(now) for name, circuit in self.circuits().items()},
            operations={name: operation.snapshot() for name, operation in list(self._operations.items())},
            holds=shared.holds.snapshot(now),
            budget=inf if shared.budget is None else shared.budget.balance,
            rates=tuple(rate.snapshot(now) for rate in shared.rates),
            concurrency=shared.places.snapshot(now) if shared.places is not None else None,
            cache=self._cache.snapshot() if self._cache is not None else None,
            running=sum(len(line.waiting) for line in self._lines.values()) + shared.running,
            shared_state=peers.state if (peers := shared.peers) is not None else None,
        )

    def circuits(self) -> dict[str, Circuit]:
        """Every circuit there is, by operation; the provider's own under the empty name."""
        found = {} if self._shared.circuit is None else {"": self._shared.circuit}
        return found | {name: each.circuit for name, each in list(self._operations.items()) if each.circuit is not None}

    def share_with(self, peers: Peers | None) -> Shared:
        """From now on tell these what happens here, and ask them; None: nobody. `Fleet` is who calls this."""
        self._shared.peers = peers
        return self._shared

    def circuit(self, operation: str = "") -> Circuit | None:
        """The provider's circuit, or an operation's; None when the policy has no breaker."""
        if self.policy.breaker is None or not operation:
            return self._shared.circuit
        return self._operation(operation, ONCE).circuit

    def shut_for(self, operation: str) -> float | None:
        """Seconds for which every call of the operation is rejected; None when one may be let through now."""
        now, own = self._shared.monotonic(), self._operations.get(operation)
        circuits = (self._shared.circuit, own.circuit if own else None)
        waits = [wait for circuit in circuits if circuit and (wait := circuit.refuses(now)) is not None]
        return max(waits, default=None)

    def hasten(self, operation: str) -> None:
        """Let the next call try out an open circuit now, as if it were due."""
        now, own = self._shared.monotonic(), self._operations.get(operation)
        with self._shared.lock:
            for circuit in (self._shared.circuit, own.circuit if own else None):
                if circuit is not None:
                    circuit.hasten(now)

    def usual(self, operation: str) -> float:
        """How many seconds the operation normally takes; 0 while too little is known."""
        found = self._operations.get(operation)
        return found.usual() if found else 0.0

    def forget(self) -> None:
        """Drop every cached answer."""
        if self._cache is not None:
            self._cache.forget()

    async def aclose(self) -> None:
        """End what is being fetched for the cache; nothing else needs an end, and closing twice is harmless."""
        if self._cache is not None:
            await self._cache.aclose()

    def release(self, credential: str) -> None:
        """The credential was rotated, or the vendor relented: its hold is over."""
        with self._shared.lock:
            self._shared.holds.drop(credential)
            self._shared.settle()
        if (peers := self._shared.peers) is not None:
            peers.released(credential)

    def isolate(self, reason: str, *, operation: str = "", ttl: float | None = None) -> None:
        """Let no call through, until `automatic` or for `ttl` seconds; of one operation, or all."""
        self._by_hand(operation, lambda circuit, now: circuit.isolate(reason, now, ttl=ttl))

    def metrics_only(self, reason: str, *, operation: str = "", ttl: float | None = None) -> None:
        """Let every call through and only count, until `automatic` or for `ttl` seconds."""
        self._by_hand(operation, lambda circuit, now: circuit.metrics_only(reason, now, ttl=ttl))

    def close(self, reason: str, *, operation: str = "") -> None:
        """Close the circuit now; from here on it opens by itself as ever."""
        self._by_hand(operation, lambda circuit, now: circuit.close(reason, now))

    def automatic(self, *, operation: str = "") -> None:
        """End what was set by hand."""
        self._by_hand(operation, lambda circuit, now: circuit.automatic(now))

    def _by_hand(self, operation: str, change: Callable[[Circuit, float], Transition]) -> None:
        circuit = self.circuit(operation)
        if circuit is None:
            raise InvalidInput(f"{self.name} has no circuit: its policy has breaker=None")
        made = self._shared.in_turn(lambda: change(circuit, self._shared.monotonic()))
        self._shared.tell(operation, made)


class _Bell:
    """Wakes a coroutine, from whatever thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._woken = asyncio.Event()

    def ring(self) -> None:
        with suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._woken.set)

    async def wait(self, seconds: float) -> None:
        timer = self._clock.call_later(seconds, self._woken.set) if seconds < inf else None
        try:
            await self._woken.wait()
        finally:
            self._woken.clear()
            if timer is not None:
                timer.cancel()


def _shared(
    name: str, policy: Policy, clock: Clock, random: Random, telemetry: Telemetry, classify: Classify
) -> Shared:
    rates = tuple(map(RateLimit, policy.rates))
    places = ConcurrencyLimit(policy.concurrency) if isinstance(policy.concurrency, Concurrency) else None
    keyed = any(rate.key is not None for rate in policy.rates)
    shared = Shared(
        name=name,
        policy=policy,
        clock=clock,
        random=random,
        telemetry=telemetry,
        classify=classify,
        circuit=Circuit(policy.breaker, random) if policy.breaker is not None else None,
        budget=RetryBudget(policy.budget) if policy.budget is not None else None,
        holds=Holds(),
        rates=rates,
        places=places,
        limits=(*rates, places) if places is not None else rates,
        keys=tuple(map(_key, policy.rates)),
        unkeyed=None if keyed else ("",) * len(rates),
        retries=policy.retry is not None,
        timeout=_number(policy.timeout),
        deadline=_number(policy.deadline),
        usual_limit=min(_number(policy.timeout), _number(policy.deadline)),
        slow_after=_number(policy.breaker.slow_after if policy.breaker is not None else None),
        monotonic=clock.monotonic,
        lock=RLock(),
    )
    shared.settle()
    return shared


def _key(rate: Rate) -> Callable[[], str]:
    if rate.key is None:
        return str
    return rate.key if callable(rate.key) else rate.key.get


def _number(seconds: Seconds | None) -> float:
    return inf if seconds is None else float(seconds)  # type: ignore[arg-type]  # a number once the policy is made
