"""Accounts: of tenants, retired ones, missing ones, and what is asked of them beside our verbs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from holdfast import Holdfast, Retired, for_tenant
from holdfast.errors import ConfigurationError, InvalidInput, NotSent, OutcomeUnknown, ReferenceConflict, Rejected
from holdfast.http.transports import HttpRequest, HttpResponse
from holdfast.outcome import Effect
from holdfast.payments.client import Payments
from holdfast.payments.facts import Decision
from holdfast.payments.models import PaymentStatus
from holdfast.payments.provider import Capabilities, PaymentProvider
from holdfast.providers import LNbits
from holdfast.routing import ByRule, Cheapest, Rule
from holdfast.runtime import Runtime
from holdfast.stores import open_store
from holdfast.telemetry import CallFinished, Signal, Telemetry
from holdfast.testing.clock import ManualClock
from holdfast.testing.fakes import FakeMeetings
from holdfast.values import Money, Secret, Secrets
from tests.payments.vendors import AbleVendor, SearchableVendor, Vendor

DUE = Money("120.00", "CHF")


class TestTenants:
    """The same provider, with other people's credentials."""

    shop = LNbits(base_url="http://127.0.0.1:1", invoice_key=Secret("the-shops-own-key"))

    def test_it_has_a_name_of_its_own_and_its_own_credentials(self) -> None:
        acme = for_tenant(self.shop, "acme", invoice_key=Secret("the-key-of-acme"))

        assert (acme.name, acme.base_url) == ("lnbits.acme", self.shop.base_url)
        assert acme.headers() == {"x-api-key": "the-key-of-acme"}
        assert self.shop.name == "lnbits"
        assert "the-key" not in repr(acme)

    @pytest.mark.parametrize(
        ("tenant", "given", "why"),
        [
            ("acme", {}, "would share invoice_key"),
            ("acme", {"api_key": Secret("k"), "invoice_key": Secret("k")}, "no field api_key"),
            ("a.b", {"invoice_key": Secret("k")}, "1 to 32 characters"),
            ("..", {"invoice_key": Secret("k")}, "1 to 32 characters"),
            ("", {"invoice_key": Secret("k")}, "1 to 32 characters"),
        ],
    )
    def test_what_could_mix_two_tenants_up_is_refused(self, tenant: str, given: Mapping[str, Secret], why: str) -> None:
        with pytest.raises(ConfigurationError, match=why):
            for_tenant(self.shop, tenant, **given)

    def test_a_tenant_has_no_tenants(self) -> None:
        acme = for_tenant(self.shop, "acme", invoice_key=Secret("k"))

        with pytest.raises(ConfigurationError, match="no tenant"):
            for_tenant(acme, "other", invoice_key=Secret("k"))

    async def test_money_of_one_is_never_asked_for_by_another(self) -> None:
        vendors = [Vendor(name=name) for name in ("v", "v.acme", "v.other")]
        async with Payments(vendors, store="memory://") as payments:
            mine = await payments.create("order-1", DUE)
            theirs = await payments.create("order-2", DUE, tenant="acme")
            with pytest.raises(InvalidInput, match="tenant nobody has no payment provider"):
                await payments.create("order-3", DUE, tenant="nobody")
            with pytest.raises(ReferenceConflict, match="another tenant"):
                await payments.create("order-2", DUE, tenant="other")
            vendors[1].before = lost
            with pytest.raises(OutcomeUnknown):
                await payments.create("order-4", DUE, tenant="acme")

        assert (mine.provider, theirs.provider) == ("v", "v.acme")
        assert vendors[2].requests == []

    async def test_a_renewed_offer_stays_with_its_tenant(self) -> None:
        vendors = [AbleVendor(name="v"), AbleVendor(name="v.acme")]
        async with Payments(vendors, store="memory://") as payments:
            await payments.create("order-1", DUE, tenant="acme")
            renewed = await payments.renew("order-1")

        assert renewed.route == ("v.acme:closed", "v.acme:offered")


class TestGiven:
    """What is no list of accounts is refused in words, by a hub and alone."""

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            (Vendor(), "payments is a list of providers, not a Vendor"),
            ("stripe", "payments is a list of providers, not a str"),
            (None, "payments is a list of providers, not a NoneType"),
            (["sk_live_51"], "payments cannot take a str, which is no provider"),
            ([Retired("sk_live_51")], "payments cannot take a str, which is no provider"),  # type: ignore[arg-type]
            ([FakeMeetings()], "payments cannot take FakeMeetings, a provider of meetings"),
            ([Vendor(), LNbits], "LNbits is a class; give a provider made of it"),
            ([Retired(LNbits)], "LNbits is a class; give a provider made of it"),  # type: ignore[arg-type]
            ([LNbits.from_env], "payments cannot take a method, which is no provider"),
        ],
        ids=["provider", "text", "nothing", "key", "retired", "meetings", "class", "retired class", "method"],
    )
    def test_it_is_said_what_was_given_and_what_is_expected(self, given: Any, why: str) -> None:
        with pytest.raises(ConfigurationError, match=why) as alone:
            Payments(given, store="memory://")
        with pytest.raises(ConfigurationError, match=why):
            Holdfast(store="memory://", payments=given)

        assert "sk_live" not in str(alone.value)


class TestRetired:
    """No new work; what is there is looked after."""

    async def test_nothing_new_is_asked_of_it(self) -> None:
        old, new = Vendor(name="old"), Vendor(name="new")
        async with Payments([Retired(old), new], store="memory://", route=Cheapest()) as payments:
            payment = await payments.create("order-1", DUE)

        assert payment.provider == "new"
        assert old.requests == []

    async def test_what_it_holds_is_fetched_swept_and_refunded(self, tmp_path: object) -> None:
        clock = ManualClock()
        old = AbleVendor(name="old")
        async with payments_on(tmp_path, clock, old) as payments:
            created = await payments.create("order-1", DUE)
            await payments.create("order-2", DUE)
        old.pay(created.attempts[0].vendor_id)

        async with payments_on(tmp_path, clock, Retired(old), Vendor(name="new")) as payments:
            await clock.advance(31)
            await payments.sweep()
            swept = await payments.get("order-1")
            refunded = await payments.refund("order-1", key="all")
            renewed = await payments.renew("order-2")

        assert swept.status is PaymentStatus.PAID
        assert refunded.provider == "old"
        assert renewed.provider == "new"

    async def test_where_all_are_retired_nothing_is_taken(self) -> None:
        async with Payments([Retired(Vendor())], store="memory://") as payments:
            with pytest.raises(ConfigurationError, match="no payment provider takes CHF"):
                await payments.create("order-1", DUE)

    def test_a_hub_takes_it_too(self) -> None:
        hub = Holdfast(store="memory://", payments=[Retired(Vendor(name="old")), Vendor(name="new")])

        assert list(hub.payments.providers) == ["old", "new"]


class TestNobodyToAsk:
    """Only a new offer needs somebody who makes it."""

    @pytest.mark.parametrize("why", ["retired", "off", "currency", "route"])
    async def test_what_is_stored_comes_back_all_the_same(self, why: str) -> None:
        # given
        vendor = Vendor(name="old")
        runtime = Runtime("memory://", clock=ManualClock())
        async with Payments([vendor], runtime=runtime) as payments:
            created = await payments.create("order-1", DUE)
            if why == "off":
                await payments.switch("old", on=False, actor="ada", reason="their incident")
            if why == "currency":
                vendor.capabilities = Capabilities(currencies=frozenset({"EUR"}))

            # when
            account = Retired(vendor) if why == "retired" else vendor
            after = Payments([account], runtime=runtime, route=ByRule([Rule([])]) if why == "route" else None)
            again = await after.create("order-1", DUE)
            with pytest.raises((NotSent, ConfigurationError)):
                await after.create("order-2", DUE)

        # then
        assert again == created
        assert len(vendor.requests) == 1

    async def test_what_is_unknown_is_found_out(self) -> None:
        clock = ManualClock()
        vendor = SearchableVendor(name="old", after=lost)
        find, vendor.find = vendor.find, not_found  # type: ignore[method-assign]
        runtime = Runtime("memory://", clock=clock)
        async with Payments([vendor], runtime=runtime) as payments:
            with pytest.raises(OutcomeUnknown):
                await payments.create("order-1", DUE)
            vendor.find = find  # type: ignore[method-assign]
            await clock.advance(60)

            found = await Payments([Retired(vendor)], runtime=runtime).create("order-1", DUE)

        assert (found.status, len(vendor.requests)) == (PaymentStatus.PENDING, 1)

    async def test_what_is_held_before_any_offer_stays_so(self) -> None:
        async def hold(_: object) -> Decision:
            return Decision.HOLD

        runtime = Runtime("memory://", clock=ManualClock())
        async with Payments([Vendor()], runtime=runtime, screen=hold) as payments:
            await payments.create("order-1", DUE)
            await payments.switch("vendor", on=False, actor="ada", reason="their incident")

            assert (await payments.create("order-1", DUE)).status is PaymentStatus.HELD

    async def test_another_offer_needs_somebody_and_it_is_told_why_nobody_is_there(self) -> None:
        runtime = Runtime("memory://", clock=ManualClock())
        async with Payments([Vendor(before=refused)], runtime=runtime) as payments:
            with pytest.raises(Rejected):
                await payments.create("order-1", DUE)
            await payments.switch("vendor", on=False, actor="ada", reason="their incident")

            with pytest.raises(NotSent, match="vendor is off: their incident"):
                await payments.create("order-1", DUE)


class TestMissing:
    """A provider that is gone while money may still come in by it."""

    async def test_a_start_without_it_fails_and_says_how_many_payments_are_open(self, tmp_path: object) -> None:
        clock = ManualClock()
        old, new = Vendor(name="old"), Vendor(name="new")
        async with payments_on(tmp_path, clock, old) as payments:
            for number in range(3):
                await payments.create(f"order-{number}", DUE)

        with pytest.raises(ConfigurationError, match=r"^3 payments are open at old, .* Retired"):
            async with payments_on(tmp_path, clock, new):
                pass
        hub = Holdfast(store=f"sqlite:///{tmp_path}/shop.db", payments=[new], secret=Secrets("s"))
        with pytest.raises(ConfigurationError, match="3 payments are open at old"):
            async with hub:
                pass
        async with payments_on(tmp_path, clock, new, Retired(old)) as payments:
            assert (await payments.refresh("order-0")).status is PaymentStatus.PENDING

    async def test_once_nothing_is_open_there_it_may_go(self, tmp_path: object) -> None:
        clock = ManualClock()
        old, new = Vendor(name="old"), Vendor(name="new")
        async with payments_on(tmp_path, clock, old) as payments:
            payment = await payments.create("order-1", DUE)
            old.pay(payment.attempts[0].vendor_id)
            await payments.refresh("order-1")

        async with payments_on(tmp_path, clock, new) as payments:
            assert (await payments.get("order-1")).status is PaymentStatus.PAID

    @pytest.mark.parametrize("late", [PaymentStatus.PROCESSING, PaymentStatus.AUTHORIZED])
    async def test_money_on_its_way_to_an_offer_that_ended_keeps_it_too_and_is_swept(
        self, tmp_path: object, late: PaymentStatus
    ) -> None:
        # given
        clock = ManualClock()
        old, new = AbleVendor(name="old"), Vendor(name="new")
        days = timedelta(days=3).total_seconds()
        async with payments_on(tmp_path, clock, old) as payments:
            vendor_id = (await payments.create("order-1", DUE)).attempts[0].vendor_id
            await clock.advance(20 * 60)
            await payments.sweep()
            ended = await payments.get("order-1")
            old.agree(vendor_id, late)
            old.before = down  # so that nothing is let go of yet
            await clock.advance(3600)
            await payments.sweep()

        # when
        with pytest.raises(ConfigurationError, match=r"^1 payments are open at old"):
            async with payments_on(tmp_path, clock, new):
                pass
        old.before = lambda: None
        if late is PaymentStatus.PROCESSING:
            old.pay(vendor_id)
        await clock.advance(days)
        async with payments_on(tmp_path, clock, new, Retired(old)) as payments:
            await payments.sweep()
            swept = await payments.get("order-1")
        async with payments_on(tmp_path, clock, new):
            pass

        # then
        told = {PaymentStatus.PROCESSING: PaymentStatus.PAID, PaymentStatus.AUTHORIZED: PaymentStatus.EXPIRED}
        assert (ended.status, swept.status) == (PaymentStatus.EXPIRED, told[late])
        assert old.held[vendor_id].status in (PaymentStatus.PAID, PaymentStatus.CANCELED)

    async def test_a_refund_under_way_keeps_it_too(self, tmp_path: object) -> None:
        clock = ManualClock()
        old = AbleVendor(name="old")
        async with payments_on(tmp_path, clock, old) as payments:
            payment = await payments.create("order-1", DUE)
            old.pay(payment.attempts[0].vendor_id)
            await payments.refresh("order-1")
            old.before = lost
            with pytest.raises(OutcomeUnknown):
                await payments.refund("order-1", key="all")

        with pytest.raises(ConfigurationError, match="1 payments' refunds are open at old"):
            async with payments_on(tmp_path, clock, Vendor(name="new")):
                pass

    async def test_a_failed_start_leaves_nothing_open(self, tmp_path: object) -> None:
        clock = ManualClock()
        async with payments_on(tmp_path, clock, Vendor(name="old")) as payments:
            await payments.create("order-1", DUE)
        store = open_store(f"sqlite:///{tmp_path}/shop.db", clock=clock)
        runtime = Runtime(store, clock=clock)
        payments = Payments([Vendor(name="new")], runtime=runtime)

        with pytest.raises(ConfigurationError):
            await payments.__aenter__()

        assert runtime.loop is None

    async def test_who_takes_no_payments_is_not_asked(self, tmp_path: object) -> None:
        clock = ManualClock()
        async with payments_on(tmp_path, clock, Vendor(name="old")) as payments:
            await payments.create("order-1", DUE)

        async with Holdfast(store=f"sqlite:///{tmp_path}/shop.db") as hub:
            assert hub.payments.providers == {}


@dataclass(kw_only=True)
class Echo:
    """A wire that keeps what is sent, and answers the same."""

    answer: bytes = b'{"amount": 1.10, "list": [1, null]}'
    status: int = 200
    sent: list[HttpRequest] = field(default_factory=list[HttpRequest])

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.sent.append(request)
        return HttpResponse(status=self.status, headers=(), content=self.answer)

    async def aclose(self) -> None:
        pass


class TestRequest:
    """What holdfast has no verb for."""

    def payments(self, echo: Echo, tell: Callable[[Signal], object] = lambda _: None) -> Payments:
        provider = LNbits(base_url="http://127.0.0.1:1", invoice_key=Secret("invoice-key"))
        runtime = Runtime("memory://", transport=lambda _: echo, telemetry=Telemetry([tell]))
        return Payments([provider], runtime=runtime)

    async def test_it_goes_out_with_the_credential_and_comes_back_exact(self) -> None:
        echo, signals = Echo(), list[Signal]()
        async with self.payments(echo, signals.append) as payments:
            answer = await payments.request(
                "lnbits",
                "POST",
                "/api/v1/thing",
                effect=Effect.KEYED,
                json={"a": "1"},
                headers={"Idempotency-Key": "k"},
            )

        [sent] = echo.sent
        assert answer == {"amount": Decimal("1.10"), "list": [1, None]}
        assert (sent.method, sent.url, sent.content) == ("POST", "http://127.0.0.1:1/api/v1/thing", b'{"a":"1"}')
        assert {("x-api-key", "invoice-key"), ("idempotency-key", "k")} <= set(sent.headers)
        [told] = [one for one in signals if isinstance(one, CallFinished)]
        assert (told.provider, told.operation, told.outcome) == ("lnbits", "request", "ok")

    async def test_its_effect_decides_whether_it_is_tried_again(self) -> None:
        echo = Echo(status=500, answer=b"{}")
        async with self.payments(echo) as payments:
            with pytest.raises(OutcomeUnknown):
                await payments.request("lnbits", "POST", "/api/v1/thing", effect=Effect.ONCE)

        assert len(echo.sent) == 1

    async def test_a_refusal_has_its_cause(self) -> None:
        async with self.payments(Echo(status=400, answer=b'{"detail": "no"}')) as payments:
            with pytest.raises(Rejected, match="lnbits: look rejected"):
                await payments.request("lnbits", "GET", "/api/v1/thing", effect=Effect.READ, operation="look")

    async def test_what_is_answered_with_nothing_is_not_read(self) -> None:
        async with self.payments(Echo(status=204, answer=b"")) as payments:
            answer = await payments.request("lnbits", "DELETE", "/api/v1/thing", effect=Effect.IDEMPOTENT, answer=False)

        assert answer is None

    @pytest.mark.parametrize(
        "path", ["https://evil.example/v1", "HTTP://evil.example", "v1", "", "/v1/../../admin", "/v1?x=1", "/v1\n"]
    )
    async def test_it_never_leaves_the_vendor(self, path: str) -> None:
        echo = Echo()
        async with self.payments(echo) as payments:
            with pytest.raises(InvalidInput):
                await payments.request("lnbits", "GET", path, effect=Effect.READ)

        assert echo.sent == []

    async def test_the_provider_has_to_be_one_of_ours(self) -> None:
        async with self.payments(Echo()) as payments:
            with pytest.raises(InvalidInput, match="no payment provider stripe; there are lnbits"):
                await payments.request("stripe", "GET", "/v1", effect=Effect.READ)


def payments_on(tmp_path: object, clock: ManualClock, *providers: PaymentProvider | Retired) -> Payments:
    """As another process would open them, on the same file."""
    store = open_store(f"sqlite:///{tmp_path}/shop.db", clock=clock)
    return Payments(providers, runtime=Runtime(store, clock=clock))


def lost() -> None:
    raise OutcomeUnknown("connection reset")


def refused() -> None:
    raise Rejected("declined")


def down() -> None:
    raise NotSent("connection refused")


async def not_found(http: object, attempt: object) -> None:
    return None
