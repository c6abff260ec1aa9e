"""What every test may use."""

import pytest

from tests.servers.fixtures import *  # noqa: F403  # fixtures and a report hook, by name

# Here and not by its entry point, which is read before coverage begins to look.
pytest_plugins = ["holdfast.testing.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("model check", "random lives of a shop")
    group.addoption("--histories", type=int, default=2000, help="how many are lived (default: %(default)s)")
    group.addoption("--first-history", type=int, default=0, help="the seed of the first (default: %(default)s)")
