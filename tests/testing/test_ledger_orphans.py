"""What lasts at a vendor and nobody knows of; and two offers that could both be paid."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import BadJson, Fault, Latency, Reset
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.simulator import Request, Webhook
from holdfast.testing.simulators.webhooks import Manner, Sent
from holdfast.values import Money

FRANCS = Money(120, "CHF")


@dataclass
class Shop:
    """A vendor's side of a shop's calls, as the simulators write them down."""

    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.journal = Journal(self.clock)
        self.ledger = Ledger(journal=self.journal)

    def make(
        self,
        id: str,
        *,
        kind: Kind = Kind.OFFER,
        key: str = "o1",
        vendor: str = "stripe",
        fault: Fault | None = None,
        arrived: bool | None = None,
        lives: float | None = None,
    ) -> None:
        """A call that makes something."""
        expires = {} if lives is None else {"expires_at": (self.clock.now() + timedelta(seconds=lives)).isoformat()}
        number = self.journal.begin()
        self.ledger.record(kind, vendor=vendor, id=id, key=key, money=FRANCS, facts=expires)
        self.answer(f'{{"id":"{id}"}}', vendor=vendor, fault=fault, arrived=arrived, number=number)

    def answer(
        self,
        body: str,
        *,
        vendor: str = "stripe",
        target: str = "/v1/things",
        fault: Fault | None = None,
        arrived: bool | None = None,
        status: int = 200,
        number: int | None = None,
    ) -> None:
        """A call, answered with this body."""
        request = Request(method="GET", target=target)
        ending = "reset" if isinstance(fault, Reset) else "answered"
        self.journal.call(
            vendor,
            "things.get",
            request,
            fault=fault,
            ending=ending,
            status=status,
            answer=body.encode(),
            number=number,
        ).arrived = arrived

    def happen(self, kind: Kind, id: str, *, key: str = "o1", vendor: str = "stripe") -> None:
        """Something that no call asked for."""
        self.ledger.record(kind, vendor=vendor, id=id, key=key, money=FRANCS)

    def tell(
        self,
        id: str,
        *,
        vendor: str = "stripe",
        manner: Manner = Manner.GENUINE,
        status: int = 200,
        body: bytes | None = None,
    ) -> None:
        """The vendor's webhook about it."""
        body = f'{{"id":"{id}"}}'.encode() if body is None else body
        webhook = Webhook(vendor=vendor, url="https://shop.test", event="paid", about=id, key="o1", body=body)
        self.journal.webhook(Sent(webhook=webhook, manner=manner, status=status, at=self.clock.now()))


@pytest.fixture
def shop() -> Shop:
    return Shop()


LASTING = [Kind.OFFER, Kind.MEETING, Kind.CAPTURE, Kind.REFUND]


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("lost", [{"fault": Reset()}, {"fault": BadJson()}, {"arrived": False}])
def test_an_effect_whose_answer_was_lost_is_an_orphan(shop: Shop, kind: Kind, lost: dict[str, object]) -> None:
    shop.make("x1", kind=kind, **lost)  # type: ignore[arg-type]  # a table of keyword arguments
    with pytest.raises(
        AssertionError, match=rf"never told of what lasts at its vendors:\n  {kind} of o1: stripe x1 at"
    ):
        shop.ledger.no_orphans()


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("fault", [None, Latency()])
def test_an_effect_whose_answer_came_is_none(shop: Shop, kind: Kind, fault: Fault | None) -> None:
    shop.make("x1", kind=kind, fault=fault, arrived=True)
    shop.ledger.no_orphans()


def test_the_same_call_answered_again_tells(shop: Shop) -> None:
    shop.make("x1", fault=Reset())
    shop.answer('{"id":"x1"}')
    shop.ledger.no_orphans()


@pytest.mark.parametrize(
    "look_up",
    [{"body": '{"data":[{"id":"x1"}]}'}, {"body": '{"paid":true}', "target": "/v1/things/x1"}],
    ids=["found in a list", "named in the request"],
)
def test_a_look_up_tells(shop: Shop, look_up: dict[str, str]) -> None:
    shop.make("x1", fault=Reset())
    shop.answer(**look_up)  # type: ignore[arg-type]  # a table of keyword arguments
    shop.ledger.no_orphans()


@pytest.mark.parametrize(
    "look_up",
    [
        {"body": '{"id":"x1"}', "fault": Reset()},
        {"body": '{"id":"x1"}', "fault": BadJson()},
        {"body": '{"id":"x1"}', "arrived": False},
        {"body": '{"id":"x12"}'},
        {"body": '{"id":"ax1"}'},
        {"body": '{"id":"x1"}', "vendor": "paypal"},
        {"body": "{}", "target": "/v1/things/x1", "status": 404},
    ],
    ids=["lost", "damaged", "given up on", "of a longer one", "of another", "at another vendor", "refused"],
)
def test_a_look_up_that_says_nothing_of_it_does_not_tell(shop: Shop, look_up: dict[str, object]) -> None:
    shop.make("x1", fault=Reset())
    shop.answer(**look_up)  # type: ignore[arg-type]  # a table of keyword arguments
    with pytest.raises(AssertionError, match="never told"):
        shop.ledger.no_orphans()


def test_what_was_told_before_it_happened_tells_nothing_of_it(shop: Shop) -> None:
    # given
    shop.make("x1")
    shop.ledger.no_orphans()

    # when
    shop.happen(Kind.CAPTURE, "x1")

    # then
    with pytest.raises(AssertionError, match="capture of o1: stripe x1"):
        shop.ledger.no_orphans()


def test_a_webhook_that_was_taken_tells(shop: Shop) -> None:
    shop.happen(Kind.CAPTURE, "x1")
    shop.tell("x1")
    shop.ledger.no_orphans()


def test_a_webhook_tells_by_what_it_is_about_or_by_what_it_says(shop: Shop) -> None:
    shop.happen(Kind.CAPTURE, "x1")
    shop.happen(Kind.CAPTURE, "x2")
    shop.tell("x1", body=b"{}")
    shop.tell("evt_1", body=b'{"object":"x2"}')
    shop.ledger.no_orphans()


def test_a_webhook_taken_before_it_happened_tells_nothing_of_it(shop: Shop) -> None:
    shop.tell("x1")
    shop.happen(Kind.CAPTURE, "x1")
    with pytest.raises(AssertionError, match="never told"):
        shop.ledger.no_orphans()


@pytest.mark.parametrize(
    ("manner", "status", "id"),
    [
        (Manner.GENUINE, 500, "x1"),
        (Manner.GENUINE, 0, "x1"),
        (Manner.WRONG_KEY, 200, "x1"),
        (Manner.LIE, 200, "x1"),
        (Manner.GENUINE, 200, "x2"),
    ],
)
def test_a_webhook_refused_forged_untrue_or_about_something_else_does_not(
    shop: Shop, manner: Manner, status: int, id: str
) -> None:
    shop.happen(Kind.CAPTURE, "x1")
    shop.tell(id, manner=manner, status=status)
    with pytest.raises(AssertionError, match="never told"):
        shop.ledger.no_orphans()


@pytest.mark.parametrize(
    ("kind", "end", "id"),
    [
        (Kind.OFFER, Kind.OFFER_CLOSED, "x1"),
        (Kind.MEETING, Kind.MEETING_DELETED, "x1"),
        (Kind.CAPTURE, Kind.REFUND, "r1"),
    ],
)
def test_what_ended_lasts_no_more(shop: Shop, kind: Kind, end: Kind, id: str) -> None:
    # given
    shop.make("x1", kind=kind, fault=Reset())

    # when
    shop.happen(end, id)

    # then
    shop.ledger.no_orphans()


def test_an_offer_that_expired_lasts_no_more(shop: Shop) -> None:
    # given
    shop.make("x1", fault=Reset(), lives=900)
    with pytest.raises(AssertionError, match="offer of o1"):
        shop.ledger.no_orphans()

    # when
    shop.clock.jump(900)

    # then
    shop.ledger.no_orphans()


def test_money_on_an_expired_offer_nobody_knows_of_is_an_orphan(shop: Shop) -> None:
    # given
    shop.make("x1", fault=Reset(), lives=900)
    shop.clock.jump(900)

    # when
    shop.happen(Kind.CAPTURE, "x1")

    # then
    with pytest.raises(AssertionError, match="capture of o1"):
        shop.ledger.no_orphans()


def test_money_partly_given_back_still_lasts(shop: Shop) -> None:
    shop.make("x1", kind=Kind.CAPTURE, fault=Reset())
    shop.ledger.record(Kind.REFUND, vendor="stripe", id="r1", key="o1", money=Money(1, "CHF"))
    with pytest.raises(AssertionError, match="capture of o1"):
        shop.ledger.no_orphans()


def test_a_message_is_no_orphan(shop: Shop) -> None:
    shop.make("x1", kind=Kind.MESSAGE, fault=Reset())
    shop.ledger.no_orphans()


def test_what_a_test_makes_by_hand_is_known(shop: Shop) -> None:
    shop.happen(Kind.OFFER, "x1")
    shop.happen(Kind.MEETING, "x2")
    shop.ledger.no_orphans()


# Two offers


def test_two_offers_of_one_reference_at_one_time_are_told_wherever_they_are(shop: Shop) -> None:
    shop.make("x1")
    shop.make("y1", vendor="paypal")
    with pytest.raises(
        AssertionError, match=r"could be paid at the same time:\n  o1: stripe x1 at .* and paypal y1 at"
    ):
        shop.ledger.never_two_offers()


def test_two_offers_remain_two_after_one_was_paid(shop: Shop) -> None:
    shop.make("x1")
    shop.make("y1")
    shop.happen(Kind.CAPTURE, "y1")
    with pytest.raises(AssertionError, match="at the same time"):
        shop.ledger.never_two_offers()


def test_offers_of_different_references_are_two(shop: Shop) -> None:
    shop.make("x1", key="o1")
    shop.make("y1", key="o2")
    shop.ledger.never_two_offers()


@pytest.mark.parametrize("end", [Kind.OFFER_CLOSED, Kind.CAPTURE])
def test_an_offer_may_follow_one_that_ended(shop: Shop, end: Kind) -> None:
    shop.make("x1")
    shop.happen(end, "x1")
    shop.make("y1")
    shop.ledger.never_two_offers()


@pytest.mark.parametrize(("later", "two"), [(899, True), (900, False)])
def test_an_offer_may_follow_one_that_expired(shop: Shop, later: float, two: bool) -> None:
    # given
    shop.make("x1", lives=900)
    shop.clock.jump(later)

    # when
    shop.make("y1")

    # then
    if two:
        with pytest.raises(AssertionError, match="at the same time"):
            shop.ledger.never_two_offers()
    else:
        shop.ledger.never_two_offers()


def test_an_offer_nobody_was_told_of_is_not_held(shop: Shop) -> None:
    shop.make("x1", fault=Reset())
    shop.make("y1")
    shop.ledger.never_two_offers()


def test_an_offer_found_later_is_held_from_then_on(shop: Shop) -> None:
    # given
    shop.make("x1", fault=Reset())
    shop.make("y1")

    # when
    shop.answer('{"id":"x1"}')

    # then
    with pytest.raises(AssertionError, match="at the same time"):
        shop.ledger.never_two_offers()


def test_an_offer_found_when_the_other_has_ended_was_never_the_second(shop: Shop) -> None:
    shop.make("x1", fault=Reset())
    shop.make("y1")
    shop.happen(Kind.OFFER_CLOSED, "y1")
    shop.answer('{"id":"x1"}')
    shop.ledger.never_two_offers()


def test_an_offer_paid_by_an_object_of_another_name_has_ended(shop: Shop) -> None:
    shop.make("cs_1")
    shop.ledger.record(Kind.CAPTURE, vendor="stripe", id="ch_1", key="o1", facts={"checkout_session": "cs_1"})
    shop.make("cs_2")
    shop.ledger.never_two_offers()
