"""Time that jumps while everything waits, and stands still while anything works."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from threading import Event, get_ident
from typing import Any, Final, TypeVar

from holdfast.errors import ConfigurationError, WrongLoop
from holdfast.testing.clock import Alarm, ManualClock
from holdfast.testing.in_flight import Errand
from holdfast.testing.virtual_loop import UNSUPPORTED, Deadlock, VirtualLoop

__all__ = ["Deadlock", "VirtualClock"]

T = TypeVar("T")

YEAR: Final = 366 * 86_400.0


class VirtualClock(ManualClock):
    """A clock under which time jumps to the next thing that is due, whenever everything waits.

    It runs inside `async with clock.running():`, or `clock.run(main)`; outside it stands still, and synchronous code
    that pauses does not wait. Time does not pass while something is in flight: a job of `asyncio.to_thread`, of
    `run_in_executor` or of anyio's threads, a thread of a store, a thread inside `with clock.hold():`, a request to a
    server outside of the event loop that has not been answered. What is in flight and silent for `patience` real
    seconds may itself be waiting for us: one warning is logged, and time goes on. A `hold` is kept in any case.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC), *, patience: float = 5.0) -> None:
        super().__init__(start)
        self.patience = patience
        self._loop: VirtualLoop | None = None
        self._holds = set[Errand]()

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the clock was made."""
        return self._alarms.now

    @property
    def is_running(self) -> bool:
        """Whether time passes by itself now."""
        return self._loop is not None

    @asynccontextmanager
    async def running(self, *, loop: bool = True, at_most: float = YEAR) -> AsyncGenerator[None]:
        """Meanwhile, let time jump whenever everything in this event loop waits.

        asyncio's own time is this clock's too, so that `asyncio.sleep`, `asyncio.timeout` and the timeouts of httpx
        and anyio keep their order with retries and sweeps: were it left real, a deadline of five seconds around an
        hour of retries would never be met, and the test would prove what production does not do. With `loop=False`
        only what uses this clock is virtual. That suits drivers which look at the machine's clock themselves, as
        psycopg does while it listens.

        Leaving puts the loop back: what is still scheduled in it is due after as many real seconds as it had left.

        Raises:
            ConfigurationError: The clock, or another one in this loop, runs already, or the loop is not asyncio's own.
            Deadlock: Nothing is scheduled and nobody can wake the body, or `at_most` virtual seconds have passed.
        """
        running, body = _running_loop(), asyncio.current_task()
        if running is None or body is None:
            raise ConfigurationError(UNSUPPORTED.format("trio's or none"))
        cancelled_before = body.cancelling()
        with self._taking_over(running, asyncio_too=loop, at_most=at_most) as virtual:
            virtual.body = body
            try:
                yield
            except asyncio.CancelledError as error:
                if virtual.stuck is not None and body.uncancel() <= cancelled_before:
                    raise virtual.stuck from error
                raise

    def run(self, main: Callable[[], Coroutine[Any, Any, T]], *, loop: bool = True, at_most: float = YEAR) -> T:
        """Its result, in an event loop of its own under this clock from the first turn to the last.

        What it leaves behind is cancelled and ends before this returns.

        Raises:
            ConfigurationError: This thread runs an event loop, or the clock runs already.
            Deadlock: As `running` does.
        """
        if _running_loop() is not None:
            raise ConfigurationError("this thread runs an event loop already: async with clock.running()")
        with (
            closing(asyncio.SelectorEventLoop()) as own,
            self._taking_over(own, asyncio_too=loop, at_most=at_most) as virtual,
        ):
            virtual.body = body = own.create_task(main())
            try:
                return own.run_until_complete(body)
            except asyncio.CancelledError as error:
                if virtual.stuck is not None:
                    raise virtual.stuck from error
                raise
            finally:
                virtual.body = None
                _finish(own)

    async def advance(self, seconds: float) -> None:
        """Let that much time pass, and what is due until then do what it does; also where the clock does not run."""
        if self._loop is not None:
            await self.sleep(seconds)
            await self._loop.quiet()
        else:
            async with self.running():
                await self.advance(seconds)

    @contextmanager
    def hold(self) -> Generator[None]:
        """Meanwhile no time passes: for threads of your own, inside the thread."""
        held = Errand("clock.hold()", thread=get_ident())
        self._holds.add(held)
        try:
            yield
        finally:
            self._holds.discard(held)
            if self._loop is not None:
                self._loop.wake()

    def pause(self, seconds: float, until: Event | None = None) -> bool:
        """Block this thread for so long; time passes meanwhile. Code in the event loop's own thread does not wait."""
        virtual = self._loop
        if virtual is None or virtual.thread == get_ident() or seconds <= 0 or (until is not None and until.is_set()):
            return super().pause(seconds, until)
        return virtual.pause(seconds, until)

    def _set(self, seconds: float, ring: Callable[[], object]) -> Alarm:
        loop, virtual = _running_loop(), self._loop
        if virtual is not None and loop is not virtual.loop:
            raise WrongLoop("a virtual clock serves the event loop it runs; threads wait by clock.pause()")
        alarm = super()._set(seconds, ring)
        alarm.loop = loop
        return alarm

    @contextmanager
    def _taking_over(
        self, loop: asyncio.AbstractEventLoop, *, asyncio_too: bool, at_most: float
    ) -> Generator[VirtualLoop]:
        if self._loop is not None:
            raise ConfigurationError("this virtual clock runs already; one running() at a time")
        virtual = VirtualLoop(
            loop, self._alarms, self._holds, patience=self.patience, asyncio_too=asyncio_too, at_most=at_most
        )
        virtual.start()
        self._loop = virtual
        try:
            yield virtual
        finally:
            self._loop = None
            virtual.stop()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _finish(loop: Any) -> None:
    """Cancel what is left, let it end, and close generators and threads, as `asyncio.run` does."""
    if left := asyncio.all_tasks(loop):
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        for task in left:
            if not task.cancelled() and (error := task.exception()) is not None:
                context = {"message": "a task that was left over failed", "exception": error, "task": task}
                loop.call_exception_handler(context)
    if loop._asyncgens:
        loop.run_until_complete(loop.shutdown_asyncgens())
    if loop._default_executor is not None:
        loop.run_until_complete(loop.shutdown_default_executor())
