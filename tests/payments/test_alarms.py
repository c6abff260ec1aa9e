"""What a person is told of money: which payment, which vendor, what happened, what to do, and nothing of the payer."""

import re
from datetime import UTC, date, datetime

import pytest

from holdfast import Anomaly, Money, PaymentDisputed, PaymentFlagged, RefundByHand, RefundFailed, SpendLimitReached
from holdfast.payments.alarms import ANOMALIES, PaymentAlarm, alarm_of
from tests.docs.pages import DOCS

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
DUE = Money("120.00", "CHF")


def flagged(anomaly: Anomaly, received: Money | None = DUE) -> PaymentFlagged:
    return PaymentFlagged(
        id="payment/order-1/3/payment.flagged",
        reference="order-1",
        at=AT,
        anomaly=anomaly,
        provider="stripe",
        vendor_id="cs_test_private",
        received=received,
    )


def by_hand(claim_url: str | None) -> RefundByHand:
    return RefundByHand(
        id="refund/order-1",
        reference="order-1",
        at=AT,
        key="no-show",
        money=DUE,
        provider="btcpay",
        claim_url=claim_url,
    )


FAILED = RefundFailed(
    id="refund/order-1",
    reference="order-1",
    at=AT,
    key="no-show",
    money=DUE,
    provider="stripe",
    reason="ada@example.org closed the account",
)
DISPUTED = PaymentDisputed(id="payment/order-1", reference="order-1", at=AT, money=DUE, provider="stripe")


@pytest.mark.parametrize("anomaly", Anomaly)
def test_every_anomaly_has_what_happened_and_what_to_do(anomaly: Anomaly) -> None:
    happened, to_do = ANOMALIES[anomaly]

    assert alarm_of(flagged(anomaly)).text.splitlines() == [
        f"Payment order-1 at stripe: {anomaly}.",
        f"What happened: {happened} (120.00 CHF).",
        f"What to do: {to_do}.",
    ]


def test_the_how_to_has_the_same_flags() -> None:
    page = (DOCS / "how-to" / "take-payments.md").read_text()
    table = page.partition("## What a person looks at")[2].partition("\n## ")[0]
    flags = [flag for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for flag in re.findall(r"`(\w+)`", row)]

    assert sorted(flags) == sorted(ANOMALIES)


@pytest.mark.parametrize(
    ("event", "subject", "words"),
    [
        (flagged(Anomaly.MISMATCH, None), "Payment order-1 at stripe: mismatch", "nothing was believed."),
        (DISPUTED, "Payment order-1 at stripe: disputed", "asks 120.00 CHF back"),
        (FAILED, "Payment order-1 at stripe: refund failed", "120.00 CHF did not go back (refund no-show)"),
        (by_hand(None), "Payment order-1 at btcpay: refund by hand", "120.00 CHF by itself (refund no-show)"),
        (by_hand("https://btcpay.example/x"), "Payment order-1 at btcpay: refund by hand", "claim it by the refund's"),
    ],
)
def test_each_names_the_payment_the_vendor_and_the_money(event: PaymentAlarm, subject: str, words: str) -> None:
    alarm = alarm_of(event)

    assert alarm.subject == subject
    assert words in alarm.text
    assert len(alarm.text.splitlines()) == 3


@pytest.mark.parametrize("event", [flagged(Anomaly.LATE), FAILED, by_hand("https://btcpay.example/claim-me")])
def test_neither_a_vendors_words_nor_ids_nor_a_link_is_told(event: PaymentAlarm) -> None:
    text = alarm_of(event).text

    assert not re.search(r"private|ada@|https?://|claim-me", text)


def test_a_limit_is_told_in_a_line() -> None:
    limit = Money("50.00", "CHF")
    event = SpendLimitReached(
        id="s", reference="stripe/2026-03-02", at=AT, provider="stripe", day=date(2026, 3, 2), spent=DUE, limit=limit
    )

    assert alarm_of(event).text == "stripe kept 120.00 CHF on 2026-03-02: your limit of 50.00 CHF is reached."
