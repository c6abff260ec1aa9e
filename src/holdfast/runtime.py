"""What has a lifetime: the store, the connections, the guards, and the tasks that outlive their caller."""

import asyncio
import logging
import random
import re
import secrets as entropy
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import fields, is_dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol, Self, get_args

from holdfast.clock import Clock, SystemClock
from holdfast.errors import ConfigurationError, InsecureSetup, MissingCredential, NotOpen, StoreError, WrongLoop
from holdfast.http.origin import check_public_url, is_loopback, require_https
from holdfast.http.session import Http
from holdfast.http.tokens import TokenSource, TokenVendor
from holdfast.http.transports import HttpxTransport, Transport, is_simulated
from holdfast.http.vendor import HttpVendor, TrustsCertificate
from holdfast.queue.events import Subscriptions
from holdfast.queue.owners import Owner
from holdfast.resilience import Guard, Policy
from holdfast.resilience.fleet import Fleet
from holdfast.resilience.group import never_shut, share
from holdfast.stores import Store, open_store
from holdfast.stores.encrypted import EncryptedStore
from holdfast.stores.key_ring import KeyRing
from holdfast.stores.store import Lease
from holdfast.telemetry import LoggingSink, Redactor, Telemetry
from holdfast.values import Secret, Secrets
from holdfast.webhooks.door import receives_webhooks
from holdfast.webhooks.signatures import sign_path

log = logging.getLogger("holdfast.runtime")

_NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
"""Of a provider: it is part of addresses, and the provider's identity in records."""


class Named(Protocol):
    """Any provider."""

    @property
    def name(self) -> str: ...


class Runtime:
    """Opened once per process and event loop; hub and standalone families take what they need from it."""

    def __init__(
        self,
        store: str | Store,
        *,
        secret: Secrets | None = None,
        public_url: str | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
        telemetry: Telemetry | None = None,
        policies: Mapping[str, Policy] | None = None,
        transport: Callable[[HttpVendor], Transport] | None = None,
        fleet: bool = True,
        encryption: KeyRing | None = None,
        subject_keys: str | Store | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.chance = chance or random.Random(entropy.randbits(64))
        if secret is not None and not isinstance(secret, Secrets):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f'secret is a Secrets, not a {type(secret).__name__}: write secret=Secrets("…")')
        if not isinstance(store, str) and not hasattr(store, "durable"):
            raise ConfigurationError(
                f'store is an address or an open Store, not a {type(store).__name__}: store="sqlite:///holdfast.db"'
            )
        if public_url:  # "" is how a variable is read that is not set
            check_public_url(public_url)
        self.redactor = Redactor()
        self.redactor.learn(secret)
        self.telemetry = telemetry if telemetry is not None else Telemetry([LoggingSink(self.redactor)])
        self.store = open_store(store, clock=self.clock) if isinstance(store, str) else store
        if encryption is not None:
            self.redactor.learn(encryption.secrets)
        self.store = self._encrypted(self.store, encryption, subject_keys)
        self.subscriptions = Subscriptions()
        self.public_url = public_url.rstrip("/") if public_url else None
        self.owner = str(Owner.of_this_process())
        # A thread of our own would not see a test's time pass, and what is in memory has one connection only.
        apart = isinstance(store, str) and self.store.durable and clock is None
        self.store_apart = partial(open_store, store) if isinstance(store, str) and apart else None
        """Makes a second connection to the same store, for another event loop; None: there can be none."""
        self._secret = secret
        self._policies = dict(policies or {})
        self._transport = transport or _over_httpx
        self._guards: dict[str, Guard] = {}
        self._fleet = Fleet(self.store, clock=self.clock) if fleet and self.store.durable else None
        self._wires: dict[str, Any] = {}
        self._stack: AsyncExitStack | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._companions: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._users = 0

    def _encrypted(self, store: Store, ring: KeyRing | None, subject_keys: str | Store | None) -> Store:
        """The store, with what it keeps sealed where there are keys for it."""
        if ring is None:
            if subject_keys is not None:
                raise ConfigurationError("subject_keys= are keys of an encrypted store: give encryption= too")
            return store
        keys = open_store(subject_keys, clock=self.clock) if isinstance(subject_keys, str) else subject_keys
        if keys is not None and store.durable and not keys.durable:
            raise InsecureSetup("subject_keys= would be lost with the process, and what rests under them with them")
        return EncryptedStore(store, ring, subject_keys=keys)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise WrongLoop("this hub is open in another event loop; make one hub per loop")
        if not self._users:
            self.owner = str(Owner.of_this_process())  # a server may have forked since
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self.store)
                stack.push_async_callback(self._hang_up)
                self._tasks = await stack.enter_async_context(asyncio.TaskGroup())
                if self._fleet is not None:
                    await stack.enter_async_context(self._fleet)
                self._stack = stack.pop_all()
            self._loop = loop
        self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._users = max(0, self._users - 1)
        if self._users == 0 and self._stack is not None:
            stack, self._stack, self._tasks, self._loop = self._stack, None, None, None
            for task in self._companions:
                task.cancel()
            if error is None or isinstance(error, asyncio.CancelledError):
                await stack.__aexit__(kind, error, at)
                return
            # The caller's error is the caller's: given to the task group it would come back as a group of one.
            for task in self._background:
                task.cancel()
            await stack.aclose()

    async def _hang_up(self) -> None:
        wires, self._wires = self._wires, {}
        for wire in wires.values():
            await wire.aclose()

    # Providers.

    def admit(self, provider: object) -> None:
        """Check a provider before anything is sent, and learn its secrets for redaction.

        Raises:
            ConfigurationError: It is a class and no provider made of it, a credential of its is a plain text, or its
                name is none that goes into an address.
            MissingCredential: A credential is empty.
            InsecureSetup: A live credential beside http:// or a store that forgets.
        """
        if isinstance(provider, type):
            raise ConfigurationError(
                f"{provider.__name__} is a class; give a provider made of it: {provider.__name__}(…)"
            )
        if not _NAME.fullmatch(name := str(getattr(provider, "name", ""))):
            raise ConfigurationError(
                f"{name!r} cannot be the name of a {type(provider).__name__}: use 1 to 64 of A-Z a-z 0-9 . _ : -"
            )
        _sealed(provider)
        self.redactor.learn(provider)
        base_url = getattr(provider, "base_url", None)
        if isinstance(base_url, str):
            require_https(base_url, str(getattr(provider, "name", "")))
        if self.live(provider) and not self.store.durable:
            raise InsecureSetup(
                f"{getattr(provider, 'name', provider)}: a live credential needs a store that survives the process; "
                'use store="sqlite:///holdfast.db"'
            )

    def live(self, provider: object) -> bool:
        """Whether real money or real people may be at the other end."""
        if is_simulated(self._transport):
            return False
        declared = getattr(provider, "live", None)
        if isinstance(declared, bool):
            return declared
        base_url = getattr(provider, "base_url", None)
        return isinstance(base_url, str) and not is_loopback(base_url)

    def guard(self, provider: Named) -> Guard:
        """The provider's guard: one per name, with the policy given for that name."""
        name = provider.name
        if name not in self._guards:
            policy = self._policies.get(name) or Policy()
            guard = Guard(name, policy, clock=self.clock, random=self.chance, telemetry=self.telemetry)
            self._guards[name] = guard
            if self._fleet is not None:
                self._fleet.add(guard)
        return self._guards[name]

    def never_shut(self, providers: Iterable[Named], operation: str) -> None:
        """Where the circuits of all these are open, let the next call try out the one that is due first."""
        never_shut(map(self.guard, providers), operation)

    def share(self, provider: Named, operation: str, left: float, among: int) -> float:
        """The provider's share of what is left of a deadline, in seconds."""
        return share(left, among, self.guard(provider).usual(operation))

    def http(self, provider: HttpVendor) -> Http:
        """The provider's HTTP connection. Raises NotOpen, WrongLoop."""
        http: Http = self.wire(provider, self._dial)
        return http

    def wire(self, provider: Any, dial: Callable[[Any], Any]) -> Any:
        """The provider's connection, made by `dial` the first time it is asked for. Raises NotOpen, WrongLoop."""
        self.check_loop()
        if provider.name not in self._wires:
            self._wires[provider.name] = dial(provider)
        return self._wires[provider.name]

    def _dial(self, provider: HttpVendor) -> Http:
        transport = self._transport(provider)
        tokens = None
        if isinstance(provider, TokenVendor):
            tokens = TokenSource(
                provider,
                transport=transport,
                guard=self.guard(provider),
                store=self.store,
                secret=self.secret,
                clock=self.clock,
                spawn=self.spawn,
                owner=self.owner,
            )
        return Http(provider, transport, self.guard(provider), self.clock, tokens=tokens)

    def webhook_url(self, provider: object, attempt_id: str) -> str | None:
        """Where a vendor is to call us about an attempt; with our own MAC in it where the vendor signs nothing."""
        if self.public_url is None or not receives_webhooks(provider):
            return None
        if provider.scheme is not None:
            return f"{self.public_url}/{provider.name}"
        return self.public_url + sign_path(self.secret.current, provider.name, attempt_id)

    @property
    def secret(self) -> Secrets:
        """What our own tokens are keyed with.

        Raises:
            MissingCredential: None was given, and the store outlives the process.
        """
        if self._secret is None:
            if self.store.durable:
                raise MissingCredential('this needs a secret of your own: Holdfast(secret=Secrets.from_env("…"))')
            self._secret = Secrets(entropy.token_hex(32))
        return self._secret

    def nonce(self) -> str:
        """Something nobody can guess; not from the injected chance, since it protects links."""
        return entropy.token_hex(16)

    # Tasks.

    async def lease(self, name: str, *, ttl: float) -> Lease | None:
        """Be the one of the fleet who does `name`, for `ttl` seconds; None: somebody else is, or nobody can say."""
        try:
            return await self.store.leases.acquire(name, owner=self.owner, ttl=ttl)
        except StoreError as error:
            log.warning("cannot lease %s: %s", name, error)
            return None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it is open in."""
        return self._loop

    def check_loop(self) -> None:
        """Raises NotOpen outside `async with`, WrongLoop in another event loop than it was opened in."""
        if self._loop is None:
            raise NotOpen("open it first: async with hub: …")
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoop("this hub is open in another event loop; make one hub per loop")

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run work that outlives its caller; its failure is reported by who awaits it, or logged."""
        self.check_loop()
        if self._tasks is None:
            work.close()
            raise NotOpen("it is closing")
        task = self._tasks.create_task(self._contained(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def accompany(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run work that goes on for as long as this is open, and is cut off when it closes."""
        task = self.spawn(work)
        self._companions.add(task)
        task.add_done_callback(self._companions.discard)
        task.add_done_callback(lambda _: work.close())  # cut off before its first step, it was awaited by nobody
        return task

    async def each(self, work: Iterable[Awaitable[object]], *, at_once: int = 8) -> None:
        """Await all, some at once; one that fails is logged and does not stop the others."""
        gate = asyncio.Semaphore(at_once)

        async def one(item: Awaitable[object]) -> None:
            async with gate:
                try:
                    await item
                except Exception as error:  # the border of one item's work: the others must go on
                    self._log("one of several failed", error)

        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(one(item))

    async def _contained(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await work
        except Exception as error:  # the border of a task nobody may be awaiting; it would take the runtime with it
            self._log("background work failed", error)
            return None

    def _log(self, what: str, error: Exception) -> None:
        log.error("%s\n%s", what, self.redactor.redact("".join(traceback.format_exception(error))))


def _over_httpx(vendor: HttpVendor) -> Transport:
    trusted = vendor.ssl_context() if isinstance(vendor, TrustsCertificate) else None
    return HttpxTransport(verify=trusted or True)


def _sealed(provider: object) -> None:
    """Raises ConfigurationError: a credential is a plain text, which shows itself in every repr; or it is empty."""
    for field in fields(provider) if is_dataclass(provider) else ():
        meant: tuple[object, ...] = get_args(field.type) or (field.type,)
        kinds = tuple(kind for kind in (Secret, Secrets) if kind in meant)
        value: object = getattr(provider, field.name)
        if kinds and value is not None and not isinstance(value, kinds):
            kind = kinds[0].__name__
            raise ConfigurationError(
                f"{getattr(provider, 'name', kind)}: {field.name} is a {kind}, not a {type(value).__name__}: "
                f'write {field.name}={kind}("…")'
            )
        if kinds and not value and not (value is None and type(None) in meant):
            what = "None" if value is None else "empty"
            raise MissingCredential(f"{getattr(provider, 'name', 'a provider')}: {field.name} is {what}")
