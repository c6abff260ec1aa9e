"""The pages on the test kit have all of it: fixtures, options, doors, faults, ways of delivering."""

import inspect
import re
from typing import Any

import typer

from holdfast.cli.fake import fake
from holdfast.testing import plugin, strategies
from holdfast.testing.deliveries import Door
from holdfast.testing.explore.history import HOWS, KINDS
from holdfast.testing.faults import FAULTS, PLANS
from holdfast.testing.simulators import admin, installed_simulators
from holdfast.testing.simulators.forgeries import Manner
from holdfast.testing.simulators.verdicts import NOUNS, OF_EVERYTHING, OF_ONE_INTENT
from holdfast.testing.vendors import Fakes
from tests.docs.pages import DOCS

REFERENCE = (DOCS / "reference" / "test-kit.md").read_text()


INNER = {"at", "knows", "allows", "providers"}
"""What transports and the server ask of `fakes`."""


def page(name: str) -> str:
    return (DOCS / "how-to" / f"{name}.md").read_text()


def listed(heading: str) -> set[str]:
    """What is named in the first column of the tables under a heading of the reference."""
    [section] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", REFERENCE, re.M | re.S)
    rows = re.findall(r"^\| (`.*?) \|", section, re.M)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_the_reference_has_every_fixture() -> None:
    fixtures = {name for name, value in vars(plugin).items() if "FixtureFunction" in type(value).__name__}

    assert listed("Fixtures") == {name for name in fixtures if not name.startswith("_")}


def test_the_reference_has_every_option_of_the_marker() -> None:
    assert listed("Marker") == set(inspect.signature(plugin._marked).parameters)
    assert all(f"{option}=" in plugin.MARKER for option in listed("Marker"))


def test_the_reference_has_every_option_of_the_command_line() -> None:
    options: list[str] = []

    class Parser:
        def getgroup(self, name: str) -> "Parser":
            return self

        def addoption(self, name: str, **settings: object) -> None:
            options.append(name)

    parser: Any = Parser()
    plugin.pytest_addoption(parser)

    assert {option.split()[0] for option in listed("Command line")} == set(options)


def test_the_reference_has_every_option_of_fake_serve() -> None:
    serve = typer.main.get_group(fake).commands["serve"]
    given = {option for parameter in serve.params for option in parameter.opts}

    written = {option.split()[0] for option in listed("`holdfast fake serve`")}

    assert {option for option in written if option.startswith("--")} == given - {"--help"}


def test_the_reference_has_every_door() -> None:
    assert listed("The doors") == {f"{method} {path}" for method, path in admin._DOORS}


def test_the_reference_has_all_of_fakes() -> None:
    public = {name for name in {*vars(Fakes()), *vars(Fakes)} if not name.startswith("_")}
    vendors = {vendor.replace("-", "_") for vendor in installed_simulators()}

    assert {name.partition("(")[0] for name in listed("`fakes`")} | vendors >= public - INNER


def test_the_how_to_has_every_fault_and_every_plan() -> None:
    text = page("plan-faults")

    assert [kind.__name__ for kind in FAULTS.values() if f"`{kind.__name__}" not in text] == []
    assert [kind for kind in PLANS if f".{kind}(" not in text] == []


def test_the_how_to_has_every_way_to_deliver_and_to_forge() -> None:
    text = page("test-webhooks")
    ways = set(inspect.signature(Door.deliver).parameters) - {"self", "events"}

    assert [way for way in sorted(ways) if f"`{way}=" not in text] == []
    assert [manner for manner in Manner if manner.forged and f"`{manner}`" not in text] == []


def test_the_how_to_has_every_demand() -> None:
    text = page("assert-what-happened")

    assert [demand for demand in (*OF_EVERYTHING, *OF_ONE_INTENT, *NOUNS) if f"`{demand}" not in text] == []


def test_the_how_to_has_every_step_of_a_history_and_every_strategy() -> None:
    text = page("explore-crashes")
    drawn = [
        name
        for name, value in vars(strategies).items()
        if inspect.isfunction(value) and value.__module__ == strategies.__name__ and not name.startswith("_")
    ]

    assert [word for word in (*HOWS, *KINDS) if f"`{word}`" not in text and f"={word}`" not in text] == []
    assert [name for name in drawn if f"`{name}(" not in text] == []
