"""The guard for code without an event loop: the same decisions, waiting in a thread."""

import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from math import inf
from threading import Event
from typing import Any, ParamSpec, TypeVar, cast

from holdfast.errors import CallFailed, InvalidInput
from holdfast.outcome import Effect
from holdfast.resilience.cache import AnswerCache
from holdfast.resilience.call import CALL, IDEMPOTENT, KEYED, NOTHING, ONCE, READ, USUAL, Call, Kept, Options
from holdfast.resilience.context import forget_frame, leave, surroundings
from holdfast.resilience.lookup import cache_key, named, opened
from holdfast.resilience.repeat import after_failure, give_up
from holdfast.resilience.shared import Shared

T = TypeVar("T")
P = ParamSpec("P")

_attempt: ContextVar[Call | None] = ContextVar("holdfast_attempt", default=None)


class SyncGuard:
    """`guard.sync`: the verbs of a guard for plain functions, in any thread.

    Nothing can end a plain function from outside: give what it calls a timeout, such as `attempt_timeout()`. The
    deadline bounds every wait here and whether another attempt begins.
    """

    def __init__(
        self,
        shared: Shared,
        begin: Callable[[Effect, str, Options], Call],
        health: Callable[[], object] | None,
        cache: AnswerCache[Any] | None,
    ) -> None:
        self._shared = shared
        self._begin = begin
        self._cache = cache
        self._health = None if inspect.iscoroutinefunction(health) else health

    def read(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something that only looks, once for all who ask while the cache keeps it. Raises CallFailed."""
        name, cache = getattr(function, "__name__", CALL), self._cache
        if cache is None:
            return self._make(READ, name, function, args, kwargs)
        key = cache_key(self._shared.name, function, args, kwargs)
        try:
            answer = cache.get_sync(key, lambda: self._make(READ, name, function, args, kwargs))
        except CallFailed as error:
            raise named(error, self._shared, name) from error.__cause__
        return cast(T, opened(answer, self._shared, name))

    def idempotent(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something that is the same done twice. Raises CallFailed."""
        return self._make(IDEMPOTENT, getattr(function, "__name__", CALL), function, args, kwargs)

    def keyed(self, key: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something the provider does once per `key`, which the function passes on. Raises CallFailed."""
        if not key:
            raise InvalidInput("a keyed call needs its key; use once() where the provider takes none")
        return self._make(KEYED, getattr(function, "__name__", CALL), function, args, kwargs)

    def once(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something that must not happen twice. Raises CallFailed; OutcomeUnknown when it may have happened."""
        return self._make(ONCE, getattr(function, "__name__", CALL), function, args, kwargs)

    def run(
        self,
        exchange: Callable[[], T],
        *,
        effect: Effect,
        operation: str,
        refresh: Callable[[], object] | None = None,
        key_valid: Callable[[], bool] | None = None,
        deadline: float | None = None,
        timeout: float | None = None,
        credential: str = "",
        scope: str = "",
    ) -> T:
        """Make one exchange, as often as effect and cause allow; the options are those of `Guard.run`.

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
        return self._make(effect, operation, exchange, options=options)

    def guarded(
        self, effect: Effect = Effect.ONCE, *, operation: str = ""
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Decorate a function: every call of it is made through this guard.

        Raises:
            InvalidInput: KEYED, for whose every call needs its key; use `keyed`.
        """
        if effect is KEYED:
            raise InvalidInput("a keyed call needs its key each time: guard.sync.keyed(key, function, …)")

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            name = operation or getattr(function, "__name__", CALL)

            @wraps(function)
            def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
                return self._make(effect, name, function, args, kwargs)

            return guarded

        return decorate

    @contextmanager
    def attempt(self, effect: Effect = Effect.ONCE, *, operation: str = "attempt") -> Generator[Call]:
        """One attempt, not repeated: what it needs is held until the block is left.

        Raises:
            CallFailed: By cause; an exception of the block that says nothing of the provider passes through.
        """
        self._shared.go_threaded()
        call = self._begin(effect, operation, Options(repeatable=False))
        outer, outer_attempt = surroundings.get(), _attempt.get()
        mine = call.surroundings
        surroundings.set(mine)
        failed: CallFailed | None = None
        try:
            self._line_up(call)
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
            _attempt.set(outer_attempt)

    def open(
        self,
        exchange: Callable[[], T],
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
        value = self._make(effect, operation, exchange, options=options)
        assert kept.call is not None
        return value, kept.call

    def _make(
        self,
        effect: Effect,
        operation: str,
        function: Callable[..., T],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = NOTHING,
        *,
        options: Options = USUAL,
    ) -> T:
        code = getattr(function, "__code__", None)
        if code is not None and code.co_flags & inspect.CO_COROUTINE:
            raise InvalidInput(
                f"{operation} is async: without an await nothing would be guarded; use guard.read(…) and its like"
            )
        self._shared.go_threaded()
        call = self._begin(effect, operation, options)
        outer, outer_attempt = surroundings.get(), _attempt.get()
        mine = call.surroundings
        surroundings.set(mine)
        try:
            while True:
                try:
                    self._line_up(call)
                    value = function(*args, **kwargs)
                except BaseException as error:
                    if not self._after(call, error):
                        raise
                else:
                    if options.kept is not None:
                        call.answered()
                    else:
                        call.succeeded()
                    return value
        finally:
            leave(mine, outer)
            _attempt.set(outer_attempt)

    def _line_up(self, call: Call) -> None:
        """Wait for what an attempt needs, in order. Raises NotSent and its kinds."""
        clock = self._shared.clock
        call.look()
        bell, health = Event(), self._health
        while True:
            while seconds := call.held():
                clock.pause(seconds)
            while health is not None and call.tries_out():
                self._try_out(call, health)
            while (ticket := call.line_up(bell.set)) is not None:
                try:
                    while seconds := call.turn(ticket):
                        call.may_block()
                        clock.pause(seconds, bell)
                        bell.clear()
                except BaseException:
                    call.abandon(ticket)
                    raise
            if not call.overtaken(health=health is not None):
                break
            call.step_back()
        while seconds := call.elects(bell.set):
            clock.pause(seconds, bell)
            bell.clear()
        call.permitted()
        _attempt.set(call)

    def _try_out(self, call: Call, health: Callable[[], object]) -> None:
        """Let the health operation find out whether the provider is back. Raises CircuitOpen: it is not."""

        def ask() -> None:
            answer = health()
            if inspect.iscoroutine(answer):
                answer.close()
                raise InvalidInput(f"{self._shared.name}: its health operation is a coroutine, which needs a loop")

        try:
            self._make(READ, "health", ask, options=Options(repeatable=False, is_health=True))
        except Exception as error:  # whatever is wrong with it, the caller's own call was not sent
            call.not_tried_out(error)

    def _after(self, call: Call, error: BaseException) -> bool:
        """Wait until it may be tried again; False: the caller is told this very error. Raises what is told instead."""
        failed = call.failure(error)
        if failed is None:
            return False
        try:
            then = after_failure(call, failed)
            if then is None:
                then = self._refresh(call) or 0.0
            if then is error:
                return False
            if isinstance(then, CallFailed):
                raise then from then.__cause__
            if then > 0:
                self._shared.clock.pause(then)
        except BaseException as reason:  # interrupted, or the refresh or a strategy broke, unless it is what he is told
            call.broken_off(reason)
            raise
        finally:
            failed = then = None  # an error that is raised here would hold itself, by its traceback
            del error
        call.again()
        return True

    def _refresh(self, call: Call) -> CallFailed | None:
        """Get a fresh credential; else what the caller is told."""
        assert call.options.refresh is not None
        call.past.refreshed = True
        try:
            call.options.refresh()
        except CallFailed as failure:
            failure.provider = failure.provider or self._shared.name
            failure.operation = failure.operation or call.operation.name
            return give_up(call, failure, "")
        return None


def attempt_timeout(most: float | None = None) -> float | None:
    """Seconds the attempt that runs here may take, for the timeout of what it calls; None: no end is set."""
    call = _attempt.get()
    limit = call.time_left() if call is not None else inf
    limit = min(limit, inf if most is None else most)
    return limit if limit < inf else None
