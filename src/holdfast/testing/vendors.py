"""The simulated vendors of one run, and every door to them: holdfast's, httpx's, respx's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast, get_type_hints
from urllib.parse import urlsplit

from httpx import AsyncClient

from holdfast.clock import Clock, SystemClock
from holdfast.http.transports import Transport, simulated
from holdfast.http.vendor import HttpVendor
from holdfast.providers import find_provider
from holdfast.testing.calls import Calls
from holdfast.testing.explore.kept import KeptStore
from holdfast.testing.faults import Faults
from holdfast.testing.httpx_transport import FakeAsyncTransport, FakeTransport
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Ledger
from holdfast.testing.simulators import installed_simulators, load_simulator
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.simulator import Simulator
from holdfast.testing.timeline import Timeline
from holdfast.values import Secret, Secrets

if TYPE_CHECKING:
    import respx

    from holdfast.testing.simulators.btcpay import BTCPaySimulator
    from holdfast.testing.simulators.coinbase import CoinbaseSimulator
    from holdfast.testing.simulators.lnbits import LNbitsSimulator
    from holdfast.testing.simulators.lnd import LndSimulator
    from holdfast.testing.simulators.mtn_momo import MtnMomoSimulator
    from holdfast.testing.simulators.opennode import OpenNodeSimulator
    from holdfast.testing.simulators.orange_money import OrangeMoneySimulator
    from holdfast.testing.simulators.paypal import PayPalSimulator
    from holdfast.testing.simulators.paystack import PaystackSimulator
    from holdfast.testing.simulators.slack import SlackSimulator
    from holdfast.testing.simulators.stripe import StripeSimulator
    from holdfast.testing.simulators.swiss_bitcoin_pay import SwissBitcoinPaySimulator
    from holdfast.testing.simulators.swiss_bitcoin_pay_checkout import SwissBitcoinPayCheckoutSimulator
    from holdfast.testing.simulators.telegram import TelegramSimulator
    from holdfast.testing.simulators.twilio import TwilioSimulator
    from holdfast.testing.simulators.zoom import ZoomSimulator

HERE: Final = "127.0.0.1"
"""The host of a provider whose vendor is simulated: no money there is real."""


class NotSimulated(AssertionError):
    """A call went to where no simulated vendor of this test is."""


APP: Final = "https://app.test/hooks"
"""Where vendors send what they were not told an address for; `webhooks.to` says who takes it."""


class Fakes:
    """The vendors, simulated, each made when it is first asked for; one seed, one ledger, one journal for all.

    With `providers` only these may be called; every other call raises, and is kept in `strangers`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        clock: Clock | None = None,
        faults: Faults | None = None,
        ledger: Ledger | None = None,
        journal: Journal | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        self.seed = seed
        self.clock: Clock = clock or SystemClock()
        self.journal = journal if journal is not None else Journal(self.clock)
        self.ledger = ledger if ledger is not None else Ledger(self.clock, journal=self.journal)
        self.faults = faults if faults is not None else Faults(seed, clock=self.clock)
        self.providers = None if providers is None else frozenset(providers)
        self.strangers: list[NotSimulated] = []
        """The calls that went elsewhere, in order."""
        self._made: dict[str, Simulator] = {}
        self._store: KeptStore | None = None

    # The vendors

    def vendor(self, name: str) -> Simulator:
        """The simulated vendor of that name, ours or of any installed package.

        Raises:
            LookupError: No installed package has it.
            NotSimulated: The test's `providers` do not name it.
        """
        if name not in self._made:
            kind = load_simulator(name)
            if not self.allows(name):
                raise self._stranger(f"{name} is not among this test's providers: {_listed(self.providers or ())}")
            self._made[name] = kind(
                seed=self.seed,
                clock=self.clock,
                faults=self.faults,
                ledger=self.ledger,
                journal=self.journal,
                webhook_url="" if kind.asked_for_events else f"{APP}/{name}",
            )
        return self._made[name]

    def btcpay(self) -> "BTCPaySimulator":
        """BTCPay Server, simulated."""
        return cast("BTCPaySimulator", self.vendor("btcpay"))

    def coinbase(self) -> "CoinbaseSimulator":
        """Coinbase Business, simulated."""
        return cast("CoinbaseSimulator", self.vendor("coinbase"))

    def lnbits(self) -> "LNbitsSimulator":
        """LNbits, simulated."""
        return cast("LNbitsSimulator", self.vendor("lnbits"))

    def lnd(self) -> "LndSimulator":
        """LND, simulated."""
        return cast("LndSimulator", self.vendor("lnd"))

    def mtn_momo(self) -> "MtnMomoSimulator":
        """MTN MoMo, simulated."""
        return cast("MtnMomoSimulator", self.vendor("mtn-momo"))

    def opennode(self) -> "OpenNodeSimulator":
        """OpenNode, simulated."""
        return cast("OpenNodeSimulator", self.vendor("opennode"))

    def orange_money(self) -> "OrangeMoneySimulator":
        """Orange Money, simulated."""
        return cast("OrangeMoneySimulator", self.vendor("orange-money"))

    def paypal(self) -> "PayPalSimulator":
        """PayPal, simulated."""
        return cast("PayPalSimulator", self.vendor("paypal"))

    def paystack(self) -> "PaystackSimulator":
        """Paystack, simulated."""
        return cast("PaystackSimulator", self.vendor("paystack"))

    def slack(self) -> "SlackSimulator":
        """Slack, simulated."""
        return cast("SlackSimulator", self.vendor("slack"))

    def stripe(self) -> "StripeSimulator":
        """Stripe, simulated."""
        return cast("StripeSimulator", self.vendor("stripe"))

    def swiss_bitcoin_pay(self) -> "SwissBitcoinPaySimulator":
        """Swiss Bitcoin Pay, simulated."""
        return cast("SwissBitcoinPaySimulator", self.vendor("swiss-bitcoin-pay"))

    def swiss_bitcoin_pay_checkout(self) -> "SwissBitcoinPayCheckoutSimulator":
        """Swiss Bitcoin Pay's serverless checkout, simulated."""
        return cast("SwissBitcoinPayCheckoutSimulator", self.vendor("swiss-bitcoin-pay-checkout"))

    def telegram(self) -> "TelegramSimulator":
        """Telegram, simulated."""
        return cast("TelegramSimulator", self.vendor("telegram"))

    def twilio(self) -> "TwilioSimulator":
        """Twilio, simulated."""
        return cast("TwilioSimulator", self.vendor("twilio"))

    def zoom(self) -> "ZoomSimulator":
        """Zoom, simulated."""
        return cast("ZoomSimulator", self.vendor("zoom"))

    @property
    def simulators(self) -> Mapping[str, Simulator]:
        """Those made so far, by name; it grows with them."""
        return MappingProxyType(self._made)

    def at(self, host: str) -> Simulator:
        """The vendor that lives at this host: one of its true hosts, or that of the simulator's `base_url`.

        Raises:
            NotSimulated: None does, or the test's `providers` do not name it.
        """
        __tracebackhide__ = True  # of all the frames of a client it is not this one that matters
        name = self._name_at(host)
        if name is None:
            raise self._stranger(f"{host} is no simulated vendor; there are: {_listed(self._known())}")
        return self.vendor(name)

    def allows(self, name: str) -> bool:
        """Whether the test's `providers` name it, where there are any."""
        return self.providers is None or name in self.providers

    def knows(self, host: str) -> bool:
        """Whether a vendor lives there."""
        return self._name_at(host) is not None

    # The doors

    @simulated
    def transport(self, provider: HttpVendor) -> Transport:
        """For `Holdfast(transport=fakes.transport)`: straight into the vendor of that name, or at that address."""
        if provider.name in installed_simulators():
            return InProcess(self.vendor(provider.name))
        return InProcess(self.at(urlsplit(provider.base_url).hostname or ""))

    def httpx(self) -> FakeAsyncTransport:
        """For `httpx.AsyncClient(transport=fakes.httpx())`: every vendor at its true hosts."""
        return FakeAsyncTransport(self.at)

    def httpx_sync(self) -> FakeTransport:
        """For `httpx.Client(transport=fakes.httpx_sync())`."""
        return FakeTransport(self.at)

    def client(self, vendor: str) -> AsyncClient:
        """A client whose paths are the vendor's: `await fakes.client("stripe").get("/v1/charges")`."""
        return AsyncClient(transport=self.httpx(), base_url=self.vendor(vendor).base_url)

    def respx(self, router: "respx.Router") -> "respx.Route":
        """Have a respx router answer for the vendors' hosts; it records the calls as always."""
        from holdfast.testing.respx_router import add_vendors

        return add_vendors(router, self.knows, self.httpx_sync(), self.httpx())

    def provider(self, vendor: str, /, **settings: object) -> Any:
        """holdfast's provider of this vendor with the simulated account's credentials; settings stand above them.

        Raises:
            ConfigurationError: There is no such provider.
        """
        kind: Any = find_provider(vendor)
        return kind(**{**_account(kind, self.vendor(vendor).credentials), **settings})

    def store(self) -> KeptStore:
        """For `Holdfast(store=…)` in a program that crashes: the one store of this run, which outlives the program."""
        if self._store is None:
            self._store = KeptStore(clock=self.clock)
        return self._store

    # What happened

    def calls(self, vendor: str | None = None, operation: str | None = None) -> Calls:
        """The calls of that vendor and operation, or all."""
        return self.journal.calls(vendor, operation)

    def explain(self, *, last: int | None = None) -> str:
        """What happened, line by line: calls, faults, effects, webhooks; of a long story the last lines, on request."""
        return Timeline(self.journal).render(last=last)

    def _name_at(self, host: str) -> str | None:
        for name, simulator in self._made.items():
            if host == urlsplit(simulator.base_url).hostname:
                return name
        return next((name for name in installed_simulators() if host in _hosts(name)), None)

    def _known(self) -> list[str]:
        names = installed_simulators() if self.providers is None else self.providers
        return [f"{name} ({', '.join(_hosts(name))})" for name in sorted(names)]

    def _stranger(self, text: str) -> NotSimulated:
        error = NotSimulated(text)
        self.strangers.append(error)
        return error


def _hosts(name: str) -> tuple[str, ...]:
    return (*load_simulator(name).hosts, f"{name}.test")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _account(kind: type, credentials: Mapping[str, str]) -> dict[str, object]:
    """What the provider's fields are set to: credentials by their names, addresses moved to this machine."""
    hints = get_type_hints(kind)
    found: dict[str, object] = {}
    for field in fields(kind):
        value = next((text for name, text in credentials.items() if f"_{name}".endswith(f"_{field.name}")), None)
        if value is not None:
            found[field.name] = _wrapped(value, hints[field.name])
        elif field.name.endswith("_url"):
            default = "https://vendor" if field.default is MISSING else str(field.default)
            found[field.name] = urlsplit(default)._replace(scheme="http", netloc=HERE).geturl()
    return found


def _wrapped(value: str, hint: object) -> object:
    if hint in (Secrets, Secrets | None):
        return Secrets([value])
    return Secret(value) if hint in (Secret, Secret | None) else value
