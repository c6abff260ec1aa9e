"""One call of an SDK's client, as the guard makes it."""

from typing import Any

from holdfast.clock import Clock
from holdfast.errors import CallFailed, OutcomeUnknown
from holdfast.outcome import Cause, Effect
from holdfast.resilience.both import both
from holdfast.resilience.guard import Guard
from holdfast.resilience.sdks.sdk import Asked, Sdk, cause_of, failure


class Exchange:
    """One call of a client, as often as it is made."""

    def __init__(self, sdk: Sdk, clock: Clock, asked: Asked, operation: str, effect: Effect, key: str) -> None:
        self._sdk = sdk
        self._clock = clock
        self._asked = asked
        self._operation = operation
        self._effect = effect
        self._key = key
        self._scope = sdk.scope(asked)
        self._may_repeat = True
        self._answer: Any = None
        """What the last attempt got, if that is a failure the SDK returns."""
        self._failure: CallFailed | None = None
        self._raised: Exception | None = None

    def run(self, guard: Guard) -> Any:
        """The call, in this thread. Raises CallFailed that is the SDK's own error too."""
        operation, effect = self._operation, self._effect
        try:
            if self._sdk.sendable_again(self._asked):
                return guard.sync.run(
                    self._attempt,
                    effect=effect,
                    operation=operation,
                    scope=self._scope,
                    key_valid=lambda: self._may_repeat,
                )
            answer, call = guard.sync.open(
                self._attempt, effect=effect, operation=operation, repeat=False, scope=self._scope
            )
        except CallFailed as error:
            return self._last_word(error)
        call.end()
        return answer

    async def run_async(self, guard: Guard) -> Any:
        """The call, awaited. Raises CallFailed that is the SDK's own error too."""
        operation, effect = self._operation, self._effect
        try:
            if self._sdk.sendable_again(self._asked):
                return await guard.run(
                    self._attempt_async,
                    effect=effect,
                    operation=operation,
                    scope=self._scope,
                    key_valid=lambda: self._may_repeat,
                )
            answer, call = await guard.open(
                self._attempt_async, effect=effect, operation=operation, repeat=False, scope=self._scope
            )
        except CallFailed as error:
            return self._last_word(error)
        call.end()
        return answer

    def _attempt(self) -> Any:
        asked = self._begin()
        try:
            answer = asked.method(*asked.args, **asked.kwargs)
        except Exception as error:  # the border to the SDK: its table says what counts
            self._failed(error)
            raise
        return self._judged(answer)

    async def _attempt_async(self) -> Any:
        asked = self._begin()
        try:
            answer = await asked.method(*asked.args, **asked.kwargs)
        except Exception as error:  # as above
            self._failed(error)
            raise
        return self._judged(answer)

    def _begin(self) -> Asked:
        if self._answer is not None and hasattr(self._answer, "close"):
            self._answer.close()  # nobody will read it
        self._answer = self._raised = None
        return self._sdk.once_more(self._asked)

    def _failed(self, error: Exception) -> None:
        """Raises CallFailed, unless the exception is the caller's own."""
        found = self._sdk.understand(error, self._clock.now())
        if found is None or found is error:
            return
        if found.cause is Cause.NOT_SENT and self._sdk.is_elsewhere(self._asked, error):
            found = OutcomeUnknown(f"{found}, after it was redirected", reason="redirect", hard=True)
        found.narrow = bool(self._scope)
        self._may_repeat = self._sdk.may_repeat(self._sdk.facts(error))
        self._raised = error
        raise found from error

    def _judged(self, answer: Any) -> Any:
        """The answer. Raises CallFailed for one that is a failure."""
        facts = self._sdk.answer(answer)
        if facts is None or facts.status is None:
            return answer
        self._answer = answer
        self._failure = failure(cause_of(facts.status), answer, facts, self._clock.now())
        self._failure.narrow = bool(self._scope)
        raise self._failure

    def _last_word(self, error: CallFailed) -> Any:
        """The answer the SDK would return, else the error as the SDK's own."""
        if self._answer is not None and error is self._failure:
            return self._answer
        if isinstance(error, OutcomeUnknown) and self._key:
            error.add_note(f"asking again has no second effect with the same key: {self._key}")
        raised = self._raised if error.__cause__ is self._raised else None
        self._raised = self._failure = None  # its traceback holds this object
        raise both(error, raised or self._sdk.failed(str(error))) from raised or error.__cause__
