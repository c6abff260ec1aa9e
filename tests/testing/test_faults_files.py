"""Plans and scenarios in files: the same as in Python, and a mistake in one is told with its place."""

import json
from pathlib import Path

import pytest

from holdfast.errors import InvalidInput, MissingExtra
from holdfast.testing.faults import (
    Always,
    BadJson,
    FaultPlan,
    Faults,
    InvalidPlan,
    Latency,
    Match,
    Rate,
    Reset,
    Rule,
    Script,
    Stall,
    Status,
)
from holdfast.testing.scenario import CALM, SCENARIOS, STORM, Scenario, load_scenario
from holdfast.testing.simulators import installed_simulators, load_simulator
from holdfast.testing.simulators.webhooks import Mischief

PLAN = FaultPlan(
    seed=7,
    rules=(
        Rule("stripe", "payments.create", Script(Reset(after_bytes=40), Status(429, retry_after=30), None)),
        Rule("zoom", "*", Rate(0.2, Latency.lognormal(median=0.3, p99=0.8) | Stall(after_bytes=10) | BadJson())),
        Rule("stripe", "*", Always(Status(503), between=("10:00", "10:05"), when=Match(path="/v1/*"))),
    ),
)
YAML = """\
seed: 7
rules:
  - vendor: stripe
    operation: payments.create
    plan:
      kind: script
      faults:
        - {kind: reset, after_bytes: 40}
        - {kind: status, status: 429, retry_after: 30}
        -
  - vendor: zoom
    plan:
      kind: rate
      probability: 0.2
      fault:
        kind: one_of
        faults: [{kind: latency, median: 0.3, p99: 0.8}, stall, bad_json]
  - vendor: stripe
    plan:
      kind: always
      fault: status_503
      between: [10:00, 10:05]       # no number of base 60
      when: {path: /v1/*}
"""


def test_a_plan_is_the_same_in_yaml(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(YAML)
    assert FaultPlan.from_file(file) == PLAN


def test_a_plan_is_the_same_in_json(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(PLAN.to_json()))
    assert FaultPlan.from_file(file) == PLAN


def test_what_is_planned_in_python_draws_as_what_is_read_from_a_file(tmp_path: Path) -> None:
    # given
    file = tmp_path / "plan.yaml"
    file.write_text(YAML)
    said, read = Faults(7), Faults(plan=FaultPlan.from_file(file))
    said.on("stripe", "payments.create").script(Reset(after_bytes=40), Status(429, retry_after=30), None)
    said.on("zoom").rate(0.2, Latency.lognormal(median=0.3, p99=0.8), Stall(after_bytes=10), BadJson())

    # then
    calls = [("stripe", "payments.create"), ("zoom", "meetings.create"), ("zoom", "token")] * 30
    assert [said.draw(*call) for call in calls] == [read.draw(*call) for call in calls]


MISTAKES = {
    "a fault there is not": ("{kind: reset, after_bytes: 40}", "resett", "rules[0].plan.faults[0]", 8, "'resett'"),
    "a plan there is not": ("kind: rate", "kind: rat", "rules[1].plan", 12, "'rat'"),
    "a field there is not": ("after_bytes: 40", "afterbytes: 40", "rules[0].plan.faults[0].afterbytes", 8, "'afterb"),
    "a number out of range": ("probability: 0.2", "probability: 20", "rules[1].plan.probability", 14, "20"),
    "a text for a number": ("seed: 7", "seed: seven", "seed", 1, "'seven'"),
    "no vendor": ("vendor: zoom", "vendors: zoom", "rules[1]", 11, "no vendor"),
    "a moment there is not": ("[10:00, 10:05]", "[10:00, 10:75]", "rules[2].plan.between[1]", 22, "'10:75'"),
    "a match there is not": ("{path: /v1/*}", "{paths: /v1/*}", "rules[2].plan.when.paths", 23, "'paths'"),
}


@pytest.mark.parametrize(("right", "wrong", "path", "line", "found"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_file_line_path_what_was_found_and_what_is_allowed(
    tmp_path: Path, right: str, wrong: str, path: str, line: int, found: str
) -> None:
    # given
    file = tmp_path / "plan.yaml"
    assert right in YAML
    file.write_text(YAML.replace(right, wrong))

    # when
    with pytest.raises(InvalidPlan) as caught:
        FaultPlan.from_file(file)

    # then
    error = caught.value
    assert (error.file, error.line, error.path) == (str(file), line, path)
    assert found in error.found
    assert error.allowed
    assert str(error).startswith(f"{file}, line {line}, {path}: found {error.found}; allowed: {error.allowed}")
    assert isinstance(error, InvalidInput)


def test_what_is_allowed_is_listed(tmp_path: Path) -> None:
    # given
    file = tmp_path / "plan.json"
    file.write_text('{"rules": [{"vendor": "x", "plan": {"kind": "always", "fault": {"kind": "reset", "bytes": 1}}}]}')

    # then
    with pytest.raises(InvalidPlan, match=r"found .bytes.; allowed: kind, stage, after_bytes$"):
        FaultPlan.from_file(file)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"seed": 7,\n "rules": [}', r"line 2: found no JSON"),
        ("a.json", '{"seed": 7, "seed": 8}', r"found 'seed' twice"),
        ("a.yaml", "seed: 7\nrules: [", r"line 2: found no YAML"),
        ("a.yaml", "seed: 7\nseed: 8\n", r"line 2: found 'seed' twice"),
        ("a.yaml", "seed: !!python/object:os.system x", r"found no YAML"),
        ("a.yaml", "", r"found None; allowed: a valid dictionary"),
        ("a.toml", "seed = 7", r"found '\.toml'; allowed: a \.json, \.yaml or \.yml file"),
    ],
)
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(InvalidPlan, match=message):
        FaultPlan.from_file(file)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidPlan, match=r"nowhere\.json: found No such file or directory"):
        FaultPlan.from_file(tmp_path / "nowhere.json")


def test_yaml_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    file = tmp_path / "a.yaml"
    file.write_text("seed: 7")
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)

    # then
    with pytest.raises(MissingExtra, match=r"holdfast\[testing\]"):
        FaultPlan.from_file(file)


# Scenarios


SCENARIO = """\
name: a bad day
seed: 3
rules:
  - {vendor: telegram, operation: messages.send, plan: {kind: every, n: 31, fault: rate_limited}}
webhooks:
  "*": {duplicate: 0.2, drop: 0.05}
  zoom: {delay: 1, up_to: 30}
latency:
  stripe: {median: 0.25, p99: 1.5}
"""


def test_a_scenario_is_read_from_a_file_by_its_path(tmp_path: Path) -> None:
    # given
    file = tmp_path / "bad.yaml"
    file.write_text(SCENARIO)

    # when
    scenario = load_scenario(str(file))
    faults = scenario.faults()

    # then
    assert (scenario.name, faults.seed) == ("a bad day", 3)
    assert scenario.vendors == {"telegram", "zoom", "stripe"}
    assert scenario.mischief(["zoom", "lnbits"]) == {
        "zoom": Mischief(delay=1, up_to=30),
        "lnbits": Mischief(duplicate=0.2, drop=0.05),
    }
    assert faults.draw("stripe", "payments.create").delay > 0
    assert faults.draw("telegram", "getMe").delay == 0


@pytest.mark.parametrize("scenario", [*SCENARIOS.values()], ids=lambda scenario: scenario.name)
def test_a_scenario_that_comes_along_is_the_same_in_json_and_fits_the_vendors(scenario: Scenario) -> None:
    assert load_scenario(scenario.name) is scenario
    assert Scenario.from_json(json.loads(json.dumps(scenario.to_json()))) == scenario
    faults = scenario.faults(7)
    for vendor in scenario.vendors:
        load_simulator(vendor)(faults=faults)
    assert scenario.vendors <= set(installed_simulators())


def test_nothing_goes_wrong_when_it_is_calm() -> None:
    assert CALM.faults().value() == FaultPlan()
    assert CALM.mischief(["zoom"]) == {"zoom": Mischief()}


def test_a_storm_strikes_as_often_as_it_did() -> None:
    # given
    faults = STORM.faults(7)

    # when
    for _ in range(200):
        for call in (
            ("swiss-bitcoin-pay", "payments.create"),
            ("zoom", "meetings.create"),
            ("telegram", "messages.send"),
        ):
            faults.draw(*call)

    # then
    assert faults.fired == {
        "swiss-bitcoin-pay.reset": 18,
        "swiss-bitcoin-pay.status_503": 10,
        "swiss-bitcoin-pay.refused": 6,
        "zoom.reset": 10,
        "telegram.rate_limited": 6,
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"webhooks": {"zoom": {"duplicat": 1}}}, r"webhooks\.zoom: .* duplicate, delay, up_to"),
        ({"webhooks": {"zoom": {"drop": 5}}}, r"webhooks\.zoom: .*a probability for drop"),
        ({"webhooks": {"zoom": {"drop": "often"}}}, r"webhooks\.zoom: .*a number from 0 for drop"),
        ({"latency": {"zoom": {"median": 3, "p99": 1}}}, r"latency\.zoom: .*99th percentile is not below"),
        ({"rule": []}, r"rule: found 'rule'; allowed: name, seed, rules, webhooks, latency"),
    ],
)
def test_a_mistake_in_a_scenario_is_told(data: object, message: str) -> None:
    with pytest.raises(InvalidPlan, match=message):
        Scenario.from_json(data)


def test_a_scenario_there_is_not_is_told_those_there_are() -> None:
    with pytest.raises(InvalidPlan, match=r"found no scenario 'stormy'; allowed: calm, storm, or a \.json"):
        load_scenario("stormy")
