"""Reads: answered from the cache while it is fresh, asked for twice when the first answer takes long."""

from collections.abc import Awaitable, Callable, Hashable, Mapping
from math import inf
from typing import Any, TypeVar, cast

from holdfast.errors import CallFailed, InvalidInput
from holdfast.outcome import Effect
from holdfast.resilience.cache import Answer, AnswerCache
from holdfast.resilience.call import NOTHING, READ, USUAL, Options
from holdfast.resilience.context import deadline, surroundings
from holdfast.resilience.hedge import LEAST, hedged
from holdfast.resilience.metrics import Operation
from holdfast.resilience.policy import Hedge
from holdfast.resilience.shared import Shared
from holdfast.resilience.usual import Path
from holdfast.telemetry import CallHedged, StaleAnswer

T = TypeVar("T")


class Lookup:
    """What a guard does for a read before it makes one."""

    def __init__(
        self,
        shared: Shared,
        cache: AnswerCache[Any] | None,
        hedge: Hedge | None,
        operation_for: Callable[[str, Effect], Operation],
        make: Path,
        carefully: Callable[..., Any],
    ) -> None:
        self._shared = shared
        self._cache = cache
        self._hedge = hedge
        self._operation_for = operation_for
        self._make = make
        self._carefully = carefully

    async def __call__(
        self,
        effect: Effect,
        name: str,
        function: Callable[..., Awaitable[T]],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = NOTHING,
        /,
    ) -> T:
        """A read that may be answered from the cache. Raises CallFailed; InvalidInput: it has no key."""
        if self._cache is None:
            return await self._twice(name, function, args, kwargs, USUAL)
        key = cache_key(self._shared.name, function, args, kwargs)
        # The fetch runs in a context of its own, for it may outlive this caller: what surrounds him goes along.
        _, *rest = surroundings.get()
        options = USUAL if self._shared.unkeyed is not None else Options(whose=self._shared.whose())

        async def fetch() -> T:
            surroundings.set((deadline(), *rest))  # type: ignore[arg-type]  # but the deadline: that is the fetch's own
            return await self._twice(name, function, args, kwargs, options)

        try:
            answer = await self._cache.get(key, fetch)
        except CallFailed as error:
            raise named(error, self._shared, name) from error.__cause__
        return cast(T, opened(answer, self._shared, name))

    async def _twice(
        self,
        name: str,
        function: Callable[..., Awaitable[T]],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Options,
    ) -> T:
        async def make() -> T:
            if options is USUAL:
                return await self._make(READ, name, function, args, kwargs)
            return cast(T, await self._carefully(READ, name, function, args, kwargs, options))

        after = self._patience(name)

        def may() -> bool:
            allowed = self._may_hedge()
            if allowed and self._shared.telemetry.sinks:
                self._shared.telemetry.emit(CallHedged(self._shared.name, name, after))
            return allowed

        return await (make() if after == inf else hedged(make, after, may, self._shared.clock))

    def _patience(self, name: str) -> float:
        """Seconds after which a first call takes long; infinite while nobody knows."""
        if self._hedge is None:
            return inf
        if self._hedge.after is not None:
            return self._hedge.seconds("after")
        slowest = self._operation_for(name, READ).slowest()
        return max(slowest, LEAST) if slowest > 0 else inf

    def _may_hedge(self) -> bool:
        """Whether a call may be doubled: the provider is well, and the budget for repeats pays."""
        shared = self._shared
        well = (shared.circuit is None or shared.circuit.standing is not None) and not shared.holds.scopes
        with shared.lock:
            return well and (shared.budget is None or shared.budget.spend(shared.monotonic()))


def named(error: CallFailed, shared: Shared, operation: str) -> CallFailed:
    """The cache's own failures do not know whose they are."""
    error.provider = error.provider or shared.name
    error.operation = error.operation or operation
    return error


def opened(answer: Answer[T], shared: Shared, operation: str) -> T:
    """What was answered; an old answer is told of."""
    if answer.failure is not None and shared.telemetry.sinks:
        age = answer.age(shared.monotonic())
        shared.telemetry.emit(StaleAnswer(shared.name, operation, age, answer.failure.cause))
    return answer.value


def cache_key(
    provider: str, function: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Hashable:
    """What an answer is kept under: the function and its arguments, with their types, for 1 and True are equal.

    Raises:
        InvalidInput: Two calls that ask for different things could have one key.
    """
    name = getattr(function, "__qualname__", None)
    if name is None or getattr(function, "__closure__", None) or "<lambda>" in name:
        raise InvalidInput(
            f"{provider}: a cached read is a plain function and its arguments, guard.read(fetch, city), "
            f"not {function!r}: what a closure holds is not seen"
        )
    given = (*args, *(part for item in sorted(kwargs.items()) for part in item))
    kinds = tuple(type(each).__qualname__ for each in given)
    key = (provider, getattr(function, "__module__", ""), name, given, kinds)
    owner = getattr(function, "__self__", None)
    try:
        hash((key, owner))
    except TypeError:
        raise InvalidInput(f"{provider}: the arguments of a cached read are hashable, not {', '.join(kinds)}") from None
    return key if owner is None else (*key, owner)
