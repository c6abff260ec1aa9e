"""What every test may use."""

from tests.servers.fixtures import *  # noqa: F403  # fixtures and a report hook, by name
