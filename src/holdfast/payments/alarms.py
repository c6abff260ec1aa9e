"""What a person is told of money: which payment, which vendor, what happened, and what to do."""

from collections.abc import Mapping
from typing import Final

from holdfast.payments.events import PaymentDisputed, PaymentFlagged, RefundByHand, RefundFailed, SpendLimitReached
from holdfast.payments.models import Anomaly
from holdfast.queue.alarms import Alarm, alarm

ANOMALIES: Final[Mapping[Anomaly, tuple[str, str]]] = {
    Anomaly.UNDERPAID: ("less came in than was due", "ask for the rest, or send back what came"),
    Anomaly.OVERPAID: ("more came in than was due", "send the rest back"),
    Anomaly.LATE: ("the money came after the offer's end", "is the booking still there? else send it back"),
    Anomaly.DUPLICATE: ("a second offer was paid too", "send one of them back, by its number"),
    Anomaly.ORPHAN_PAID: (
        "an offer that nobody was shown was paid",
        "nothing with the money, it counts; find out how the offer got around",
    ),
    Anomaly.MISMATCH: ("the vendor's object is not the one asked for, nothing was believed", "ask the vendor"),
    Anomaly.TEST_MODE: ("the vendor says the money is not real, nothing was believed", "ask the vendor"),
    Anomaly.MANUAL: ("somebody at the vendor's marked it as paid, no money was seen", "ask who did"),
    Anomaly.HELD: ("your own check does not let it pass", "resolve it with Verdict.RELEASE or Verdict.REFUSE"),
    Anomaly.CAPTURE_UNKNOWN: (
        "money that was to move may have, and the vendor cannot be asked again",
        "look at the vendor's, then resolve it with Verdict.NEVER_HAPPENED; where it moved, the next look shows it",
    ),
    Anomaly.REFUND_UNKNOWN: (
        "money that was to go back may have, and the vendor cannot be asked again",
        "look at the vendor's, then settle_refund",
    ),
}
"""What happened, and what to do."""

PaymentAlarm = PaymentFlagged | PaymentDisputed | RefundByHand | RefundFailed | SpendLimitReached


def alarm_of(event: PaymentAlarm) -> Alarm:
    """What to tell; neither the vendor's words nor a link is in it, since either may be the payer's."""
    match event:
        case SpendLimitReached():
            text = f"{event.provider} kept {event.spent} on {event.day}: your limit of {event.limit} is reached."
            return Alarm(subject=f"Fees of {event.provider}", text=text)
        case PaymentFlagged():
            happened, to_do = ANOMALIES[event.anomaly]
            money = f" ({event.received})" if event.received is not None else ""
            return alarm(_subject(event, event.anomaly), happened=happened + money, to_do=to_do)
        case PaymentDisputed():
            return alarm(
                _subject(event, "disputed"),
                happened=f"the payer's bank asks {event.money} back, or took it",
                to_do="answer at the vendor's before its time is up, and send nothing back meanwhile",
            )
        case RefundByHand():
            claim = "; the payer can claim it by the refund's claim_url" if event.claim_url else ""
            return alarm(
                _subject(event, "refund by hand"),
                happened=f"the vendor cannot send back {event.money} by itself (refund {event.key})",
                to_do=f"send it by other means, then settle_refund{claim}",
            )
        case RefundFailed():
            return alarm(
                _subject(event, "refund failed"),
                happened=f"{event.money} did not go back (refund {event.key})",
                to_do="see the refund's error, then ask again under another key",
            )


def _subject(event: PaymentFlagged | PaymentDisputed | RefundByHand | RefundFailed, what: str) -> str:
    return f"Payment {event.reference} at {event.provider}: {what}"
