"""A whole run as a value: what goes wrong at each vendor, with its webhooks, and how slow it is. Two come along."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from os import PathLike
from typing import Annotated, Any, Final, Self, cast

from pydantic import BeforeValidator, Field, PlainSerializer

from holdfast.clock import Clock
from holdfast.testing.faults import Always, Every, Faults, Latency, RateLimited, Refused, Reset, Rule, Status
from holdfast.testing.faults.errors import InvalidPlan
from holdfast.testing.faults.files import load, validated
from holdfast.testing.faults.values import Value
from holdfast.testing.simulators.rates import Rate
from holdfast.testing.simulators.webhooks import Mischief

_MISCHIEF: Final = {field.name: field.default for field in fields(Mischief)}


def _read_mischief(given: object) -> object:
    """A name that means nothing must not mean that nothing happens."""
    for name, value in _named(given).items():
        if name not in _MISCHIEF:
            raise ValueError(f"names of {', '.join(_MISCHIEF)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ValueError(f"a number from 0 for {name}")
        if name != "up_to" and value > 1:
            raise ValueError(f"a probability for {name}")
    return given


def _named(given: object) -> Mapping[object, object]:
    return cast(Mapping[object, object], given) if isinstance(given, Mapping) else {}


def _write_mischief(mischief: Mischief) -> dict[str, object]:
    return {name: value for name, default in _MISCHIEF.items() if (value := getattr(mischief, name)) != default}


class Scenario(Value, frozen=True):
    """What happens in a run, as `holdfast fake serve --scenario` reads it from JSON or YAML.

    In `webhooks`, `latency` and `at_most` the names are vendors, and `*` is every vendor that is not named; only a
    latency of `*` comes on top of the named ones, as all latencies add up.
    """

    name: str = ""
    seed: int | None = None
    """For a run that is given none."""
    rules: tuple[Rule, ...] = ()
    webhooks: Mapping[str, Annotated[Mischief, BeforeValidator(_read_mischief), PlainSerializer(_write_mischief)]] = (
        Field(default_factory=dict[str, Mischief])
    )
    latency: Mapping[str, Latency] = Field(default_factory=dict[str, Latency])
    at_most: Mapping[str, Rate] = Field(default_factory=dict[str, Rate])
    """How many calls each lets through, in place of its own limits."""

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """The scenario in a JSON or YAML file.

        Raises:
            InvalidPlan: It says something that is not in the language; the message says where, and what there is.
            MissingExtra: The file is YAML, and no package to read it is installed.
        """
        return validated(cls, load(path))

    @classmethod
    def from_json(cls, data: object) -> Self:
        """The scenario in data as JSON has it.

        Raises:
            InvalidPlan: It says something that is not in the language.
        """
        return validated(cls, data)

    def to_json(self) -> dict[str, Any]:
        """As plain data, defaults left out."""
        return self.model_dump(mode="json")

    def faults(self, seed: int | None = None, *, clock: Clock | None = None) -> Faults:
        """Its faults and latencies, planned."""
        faults = Faults(self.seed if seed is None else seed, clock=clock)
        self.plan(faults)
        return faults

    def plan(self, faults: Faults) -> None:
        """Plan its faults and latencies with these."""
        for rule in self.rules:
            faults.add(rule.vendor, rule.operation, rule.plan)
        for vendor, latency in self.latency.items():
            faults.add(vendor, "*", Always(latency))

    def mischief(self, vendors: Iterable[str]) -> dict[str, Mischief]:
        """What happens to the webhooks of each of these."""
        usual = self.webhooks.get("*", Mischief())
        return {vendor: self.webhooks.get(vendor, usual) for vendor in vendors}

    def rate(self, vendor: str) -> Rate | None:
        """How many calls this one lets through; None: as many as by its own limits."""
        return self.at_most.get(vendor, self.at_most.get("*"))

    @property
    def vendors(self) -> frozenset[str]:
        """Those it names."""
        return frozenset({rule.vendor for rule in self.rules} | {*self.webhooks, *self.latency, *self.at_most}) - {"*"}


CALM: Final = Scenario(name="calm")
"""Nothing goes wrong."""

_USUAL: Final = Mischief(duplicate=0.2, delay=0.3, up_to=2, forge=0.15, lie=0.02, drop=0.05)
# LNbits' bodies have nothing to tell a lie from the truth that follows it, so the sweep has to find the latter.
_LIARS: Final = Mischief(duplicate=0.2, delay=0.3, up_to=2, forge=0.15, lie=0.3, drop=0.05)

STORM: Final = Scenario(
    name="storm",
    # The intervals are primes, so that over 200 orders every fault fires several times and they rarely coincide.
    rules=(
        Rule("swiss-bitcoin-pay", "payments.create", Every(11, Reset())),
        Rule("swiss-bitcoin-pay", "payments.create", Every(17, Status(503, body=b'{"reason":"service_unavailable"}'))),
        Rule("swiss-bitcoin-pay", "payments.create", Every(29, Refused(0.5))),
        Rule("zoom", "meetings.create", Every(19, Reset())),
        Rule("telegram", "messages.send", Every(31, RateLimited(1))),
    ),
    webhooks={"swiss-bitcoin-pay": _LIARS, "lnbits": _USUAL, "zoom": _USUAL, "telegram": _USUAL},
)
"""Every vendor has a bad day, and the post loses, doubles, delays and forges: the demo's."""

SCENARIOS: Final[Mapping[str, Scenario]] = {scenario.name: scenario for scenario in (CALM, STORM)}
"""Those that come along, by name."""


def load_scenario(name: str | PathLike[str]) -> Scenario:
    """The one of this name, or the one in this file.

    Raises:
        InvalidPlan: It is neither, or the file says something that is not in the language.
        MissingExtra: The file is YAML, and no package to read it is installed.
    """
    if isinstance(name, str) and name in SCENARIOS:
        return SCENARIOS[name]
    if isinstance(name, str) and "." not in name and "/" not in name:
        allowed = f"{', '.join(SCENARIOS)}, or a .json, .yaml or .yml file"
        raise InvalidPlan(found=f"no scenario {name!r}", allowed=allowed)
    return Scenario.from_file(name)
