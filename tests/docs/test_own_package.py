"""A provider and its simulator in a package of somebody else's, as the page says."""

from collections.abc import Iterator

import pytest

from holdfast.providers.discovery import installed_providers
from tests.docs.pages import DOCS, blocks
from tests.docs.test_pytest_pages import suite  # noqa: F401  # a fixture, by name

pytest_plugins = ["pytester"]

PAGE = (DOCS / "how-to" / "add-a-provider.md").read_text()


@pytest.fixture
def installed_anew() -> Iterator[None]:
    """What is installed is looked up once in a process."""
    installed_providers.cache_clear()
    yield
    installed_providers.cache_clear()


@pytest.mark.usefixtures("installed_anew")
def test_an_installed_package_is_found_by_its_entry_points(suite: pytest.Pytester) -> None:  # noqa: F811
    # given
    provider, simulator, promises, _, its_test = (block.text for block in blocks(PAGE))
    entry_points = PAGE.partition("```toml\n")[2].partition("```")[0]
    site = suite.mkdir("site")
    suite.syspathinsert(site)
    for directory, files in {
        "acme_pay": {"__init__.py": "", "provider.py": provider, "simulator.py": simulator},
        "acme_pay-1.0.dist-info": {
            "METADATA": "Metadata-Version: 2.1\nName: acme-pay\nVersion: 1.0\n",
            "entry_points.txt": entry_points.replace("project.entry-points.", "").replace('"', ""),
        },
    }.items():
        (site / directory).mkdir()
        for name, text in files.items():
            (site / directory / name).write_text(text)

    # when
    suite.makepyfile(
        test_acme=its_test,
        test_promises=f"from acme_pay.provider import *\nfrom acme_pay.simulator import *\n{promises}",
    )

    # then
    suite.runpytest("test_acme.py").assert_outcomes(passed=1)
    kept = suite.runpytest("test_promises.py").parseoutcomes()
    assert kept.keys() == {"passed"}
    assert kept["passed"] > 100
