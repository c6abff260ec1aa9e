"""An official SDK's own client, guarded: `stripe = protect(StripeClient(key), "stripe")`."""

import inspect
import uuid
from collections.abc import Callable, Mapping
from functools import wraps
from random import Random
from typing import Any, TypeVar, cast

from holdfast.clock import Clock, SystemClock
from holdfast.errors import CallFailed, InvalidInput
from holdfast.outcome import Effect
from holdfast.resilience.guard import Guard
from holdfast.resilience.policy import Policy
from holdfast.resilience.sdks import SDKS
from holdfast.resilience.sdks.exchange import Exchange
from holdfast.resilience.sdks.kinds import is_any
from holdfast.resilience.sdks.sdk import Asked, Sdk
from holdfast.telemetry import Telemetry

T = TypeVar("T")


def protect(
    client: T,
    name: str,
    policy: Policy | None = None,
    *,
    effects: Mapping[str, Effect] | None = None,
    clock: Clock | None = None,
    random: Random | None = None,
    telemetry: Telemetry | None = None,
) -> T:
    """The same client, every call of which goes through one guard; of boto3, requests, slack_sdk, stripe or twilio.

    What each method would do when repeated is known of the SDK, and corrected by `effects`:
    `{"chat.postMessage": Effect.ONCE}`. A keyed call gets an idempotency key, the same for all its attempts, unless
    you give one. An error is ours and the SDK's own at once, so your `except` clauses go on working.

    Raises:
        InvalidInput: The client is of no such SDK, is protected already, or retries by itself.
    """
    if issubclass(type(client), _Protected):
        raise InvalidInput(f"{client!r} is protected already; two guards would multiply the attempts")
    sdk = _sdk_of(client)
    remedy = sdk.retries(client)
    if remedy:  # it is not changed under its owner's hands, who may use it without a guard elsewhere
        raise InvalidInput(
            f"this client retries by itself, which would multiply the guard's attempts; make it {remedy}"
        )
    clock = clock or SystemClock()
    guard = Guard(name, policy, clock=clock, random=random, telemetry=telemetry, classify=_ours)
    return cast(T, _protected(client, "", _Protection(sdk, guard, clock, _effects(sdk, effects or {}))))


def guard_of(client: object) -> Guard:
    """The guard of a protected client, to look at it or to steer it by hand. Raises InvalidInput."""
    if not issubclass(type(client), _Protected):
        raise InvalidInput(f"{type(client).__name__} is not protected; protect(client, name) does that")
    protection: _Protection = object.__getattribute__(client, "_holdfast_protection")
    return protection.guard


class _Protection:
    """What all parts of one protected client share."""

    def __init__(self, sdk: Sdk, guard: Guard, clock: Clock, effects: Mapping[str, Effect]) -> None:
        self.sdk = sdk
        self.guard = guard
        self._clock = clock
        self._effects = effects

    def through(self, owner: object, path: str, value: Any) -> Any:
        """An attribute of the client or of a part of it, as its user gets it."""
        name = path.rpartition(".")[2]
        if callable(value) and self.sdk.is_exchange(owner, name):
            return self._guarded(path, value)
        if self.sdk.parts and inspect.ismethod(value):
            return self._handing_out(path.rpartition(".")[0], value)
        return self.part(path, value)

    def _handing_out(self, path: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method that asks nothing, but may give a part: `messages.get(sid)`."""

        @wraps(method)
        def handing_out(*args: Any, **kwargs: Any) -> Any:
            return self.part(path, method(*args, **kwargs))

        return handing_out

    def part(self, path: str, value: Any) -> Any:
        """The value, protected if it is a part of the client."""
        return _protected(value, path, self) if is_any(value, self.sdk.parts) else value

    def _guarded(self, path: str, method: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(method):

            @wraps(method)
            async def guarded_async(*args: Any, **kwargs: Any) -> Any:
                return await self._exchange(path, method, args, kwargs).run_async(self.guard)

            return guarded_async

        @wraps(method)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return self._exchange(path, method, args, kwargs).run(self.guard)

        return guarded

    def _exchange(
        self, path: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Exchange:
        asked = Asked(path=path, method=method, args=args, kwargs=kwargs)
        operation = self.sdk.operation(asked).removesuffix("_async")
        effect = self._effects.get(_spelled(operation)) or self.sdk.effect(asked)
        key = self.sdk.key(asked)
        if effect is Effect.KEYED and not key:
            key = str(uuid.uuid4())
            asked = self.sdk.keyed(asked, key)
        return Exchange(self.sdk, self._clock, asked, operation, effect, key)


class _Protected:
    """A client, or a part of one, in its guard."""

    __slots__ = ("__weakref__", "_holdfast_path", "_holdfast_protection", "_holdfast_target")

    _holdfast_path: str
    _holdfast_protection: _Protection
    _holdfast_target: Any

    def __init__(self, target: object, path: str, protection: _Protection) -> None:
        object.__setattr__(self, "_holdfast_target", target)
        object.__setattr__(self, "_holdfast_path", path)
        object.__setattr__(self, "_holdfast_protection", protection)

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What it stands for, so that `isinstance` says so too."""
        return cast(object, type(self._holdfast_target))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._holdfast_target, name)
        if name.startswith("_"):
            return value
        path = f"{self._holdfast_path}.{name}" if self._holdfast_path else name
        return self._holdfast_protection.through(self._holdfast_target, path, value)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._holdfast_target, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._holdfast_target, name)

    def __dir__(self) -> list[str]:
        return dir(self._holdfast_target)

    def __repr__(self) -> str:
        name = self._holdfast_protection.guard.name
        return f"<{type(self._holdfast_target).__name__} protected as {name!r}>"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a protected client is neither copied nor pickled: its guard is shared by who uses it")

    def __enter__(self) -> Any:
        entered = self._holdfast_target.__enter__()
        return self if entered is self._holdfast_target else entered

    def __exit__(self, *error: Any) -> Any:
        return self._holdfast_target.__exit__(*error)


class _CallableProtected(_Protected):
    """A part that gives another part when it is called: `client.messages(sid)`."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._holdfast_protection.part(self._holdfast_path, self._holdfast_target(*args, **kwargs))


def _protected(target: object, path: str, protection: _Protection) -> _Protected:
    return (_CallableProtected if callable(target) else _Protected)(target, path, protection)


def _ours(error: BaseException) -> CallFailed | None:
    return error if isinstance(error, CallFailed) else None


def _sdk_of(client: object) -> Sdk:
    for sdk in SDKS:
        if is_any(client, sdk.clients):
            return sdk
    known = ", ".join(sdk.name for sdk in SDKS)
    raise InvalidInput(f"{type(client).__name__} is no client of {known}; use Guard, or GuardedTransport for httpx")


def _effects(sdk: Sdk, effects: Mapping[str, Effect]) -> dict[str, Effect]:
    for name, effect in effects.items():
        if not isinstance(effect, Effect):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all who call check
            raise InvalidInput(f"the effect of {name} is an Effect, not {effect!r}")
        if effect is Effect.KEYED and not sdk.takes_keys:
            raise InvalidInput(f"{sdk.name} takes no idempotency keys, so {name} is no KEYED call")
    return {_spelled(name): effect for name, effect in effects.items()}


def _spelled(operation: str) -> str:
    """A name as it is compared: `chat.postMessage` and `chat_postMessage` are one."""
    return operation.removesuffix("_async").replace(".", "_")
