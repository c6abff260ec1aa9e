"""What every test may use."""

import gc
import sys
import threading
from collections.abc import Generator

import pytest

from tests.servers.fixtures import *  # noqa: F403  # fixtures and a report hook, by name

# Here and not by its entry point, which is read before coverage begins to look.
pytest_plugins = ["holdfast.testing.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("model check", "random lives of a shop")
    group.addoption("--histories", type=int, default=2000, help="how many are lived (default: %(default)s)")
    group.addoption("--first-history", type=int, default=0, help="the seed of the first (default: %(default)s)")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the collected tests out of the garbage collector's sight.

    They are most of the heap: looked through again and again, on a busy machine, they stop every test for seconds.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Leave what is marked `unmeasured` out of coverage: it does over and over what other tests do once.

    `no_cover` is for that, but in a worker of xdist coverage looks twice, and it stops one of the two.
    """
    if item.get_closest_marker("unmeasured") is None:
        return (yield)
    here, in_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(here)
        threading.settrace(in_threads)


@pytest.fixture(scope="session", autouse=True)
def patient_receivers() -> Generator[None]:
    """A delivery is kept in time, even where the disk of a busy machine takes seconds for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdfast.queue.receiver.STORE_TIMEOUT", 30.0)
        yield
