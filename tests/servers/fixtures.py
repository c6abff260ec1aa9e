"""The servers as fixtures, for `from tests.servers.fixtures import *` in a conftest."""

from collections.abc import Generator

import pytest

from tests.servers.lnbits import LnbitsServer
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisCluster, RedisServer, valkey
from tests.servers.smtp import SmtpServer

__all__ = [
    "lnbits",
    "postgres_server",
    "pytest_runtest_makereport",
    "redis_cluster",
    "redis_server",
    "smtp",
    "valkey_server",
]


@pytest.fixture(scope="session")
def lnbits(tmp_path_factory: pytest.TempPathFactory) -> Generator[LnbitsServer]:
    """One LNbits for the session; its tests belong in the xdist group "lnbits"."""
    with LnbitsServer(tmp_path_factory.mktemp("lnbits")) as server:
        yield server


@pytest.fixture
def smtp() -> Generator[SmtpServer]:
    """An SMTP server of the test's own."""
    with SmtpServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Generator[PostgresServer]:
    """One PostgreSQL for the session; each test has a schema of its own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisServer]:
    """One Redis for the session; a namespace in the URL keeps tests apart."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisServer]:
    """One Valkey for the session, as `redis_server`."""
    with RedisServer(tmp_path_factory.mktemp("valkey"), program=valkey()) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisCluster]:
    """One Redis Cluster for the session; its tests belong in the xdist group "redis-cluster"."""
    with RedisCluster(tmp_path_factory.mktemp("redis-cluster")) as cluster:
        yield cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of LNbits' log under a failed test that used it."""
    report = yield
    server = item.funcargs.get("lnbits") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(server, LnbitsServer):
        report.sections.append(("LNbits log", server.log_tail()))
    return report
