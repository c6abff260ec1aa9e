"""What every test may use."""

from tests.servers.fixtures import *  # noqa: F403  # fixtures and a report hook, by name

# Here and not by its entry point, which is read before coverage begins to look.
pytest_plugins = ["holdfast.testing.plugin"]
