"""Holdfast: payments, meetings and notifications that survive other people's outages.

Names are resolved when first used, so that a part costs only what it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from holdfast.errors import HoldfastError
    from holdfast.http.retrofit import GuardedTransport
    from holdfast.hub import Holdfast
    from holdfast.meetings.client import Meetings
    from holdfast.meetings.models import Feature, Meeting
    from holdfast.notifications.client import Notifications
    from holdfast.notifications.models import Address, Dispatch, Message, Recipient
    from holdfast.outcome import Cause, Effect
    from holdfast.payments.accounts import Retired, for_tenant
    from holdfast.payments.client import Payments
    from holdfast.payments.desk import Screening
    from holdfast.payments.events import (
        PaymentAuthorized,
        PaymentCanceled,
        PaymentDisputed,
        PaymentExpired,
        PaymentFailed,
        PaymentFlagged,
        PaymentPaid,
        PaymentRefunded,
        RefundByHand,
        RefundFailed,
        SpendLimitReached,
    )
    from holdfast.payments.facts import Decision, Verdict
    from holdfast.payments.models import Anomaly, Capture, Offer, Payer, Payment, PaymentStatus, RefundStatus
    from holdfast.payments.rates import FixedRates
    from holdfast.payments.reconcile import Finding, FindingKind, MoneyReport
    from holdfast.payments.refunds import Refund
    from holdfast.payments.spend import Spend, SpendLimit
    from holdfast.queue.alerts import AlertLimits
    from holdfast.queue.backlog import BacklogLimits
    from holdfast.queue.calls import Call
    from holdfast.queue.dead_letters import DeadLetters
    from holdfast.queue.events import Event, HandlerRetry
    from holdfast.queue.handled import handled_ddl
    from holdfast.queue.inbox import Arrived
    from holdfast.queue.intake import ReceiverLimits
    from holdfast.queue.lanes import GroupLimit
    from holdfast.queue.outbox_table import outbox_ddl
    from holdfast.queue.worker import WorkerOptions
    from holdfast.resilience.context import priority
    from holdfast.resilience.guard import Guard
    from holdfast.resilience.policy import Breaker, Budget, Cache, Concurrency, Hedge, Policy, Priority, Rate, Retry
    from holdfast.resilience.protect import guard_of, protect
    from holdfast.routing import ByRule, Cheapest, Fastest, Healthiest, Ordered, Rule, Switch, Switched, Weighted
    from holdfast.stores import open_store
    from holdfast.stores.cache import SharedCache
    from holdfast.stores.key_ring import KeyRing
    from holdfast.stores.store import JobFilter, JobState
    from holdfast.values import Money, Reference, Secret, Secrets

_HOME = {
    "Address": "notifications.models",
    "AlertLimits": "queue.alerts",
    "Anomaly": "payments.models",
    "Arrived": "queue.inbox",
    "BacklogLimits": "queue.backlog",
    "Breaker": "resilience.policy",
    "Budget": "resilience.policy",
    "ByRule": "routing",
    "Cache": "resilience.policy",
    "Call": "queue.calls",
    "Capture": "payments.models",
    "Cause": "outcome",
    "Cheapest": "routing",
    "Concurrency": "resilience.policy",
    "DeadLetters": "queue.dead_letters",
    "Decision": "payments.facts",
    "Dispatch": "notifications.models",
    "Effect": "outcome",
    "Event": "queue.events",
    "Fastest": "routing",
    "Feature": "meetings.models",
    "Finding": "payments.reconcile",
    "FindingKind": "payments.reconcile",
    "FixedRates": "payments.rates",
    "GroupLimit": "queue.lanes",
    "Guard": "resilience.guard",
    "GuardedTransport": "http.retrofit",
    "HandlerRetry": "queue.events",
    "Healthiest": "routing",
    "Hedge": "resilience.policy",
    "Holdfast": "hub",
    "HoldfastError": "errors",
    "JobFilter": "stores.store",
    "JobState": "stores.store",
    "KeyRing": "stores.key_ring",
    "Meeting": "meetings.models",
    "Meetings": "meetings.client",
    "Message": "notifications.models",
    "Money": "values",
    "MoneyReport": "payments.reconcile",
    "Notifications": "notifications.client",
    "Offer": "payments.models",
    "Ordered": "routing",
    "Payer": "payments.models",
    "Payment": "payments.models",
    "PaymentAuthorized": "payments.events",
    "PaymentCanceled": "payments.events",
    "PaymentDisputed": "payments.events",
    "PaymentExpired": "payments.events",
    "PaymentFailed": "payments.events",
    "PaymentFlagged": "payments.events",
    "PaymentPaid": "payments.events",
    "PaymentRefunded": "payments.events",
    "PaymentStatus": "payments.models",
    "Payments": "payments.client",
    "Policy": "resilience.policy",
    "Priority": "resilience.policy",
    "Rate": "resilience.policy",
    "ReceiverLimits": "queue.intake",
    "Recipient": "notifications.models",
    "Reference": "values",
    "Refund": "payments.refunds",
    "RefundByHand": "payments.events",
    "RefundFailed": "payments.events",
    "RefundStatus": "payments.models",
    "Retired": "payments.accounts",
    "Retry": "resilience.policy",
    "Rule": "routing",
    "Screening": "payments.desk",
    "Secret": "values",
    "Secrets": "values",
    "SharedCache": "stores.cache",
    "Spend": "payments.spend",
    "SpendLimit": "payments.spend",
    "SpendLimitReached": "payments.events",
    "Switch": "routing",
    "Switched": "routing",
    "Verdict": "payments.facts",
    "Weighted": "routing",
    "WorkerOptions": "queue.worker",
    "for_tenant": "payments.accounts",
    "guard_of": "resilience.protect",
    "handled_ddl": "queue.handled",
    "open_store": "stores",
    "outbox_ddl": "queue.outbox_table",
    "priority": "resilience.context",
    "protect": "resilience.protect",
}

__all__ = [
    "Address",
    "AlertLimits",
    "Anomaly",
    "Arrived",
    "BacklogLimits",
    "Breaker",
    "Budget",
    "ByRule",
    "Cache",
    "Call",
    "Capture",
    "Cause",
    "Cheapest",
    "Concurrency",
    "DeadLetters",
    "Decision",
    "Dispatch",
    "Effect",
    "Event",
    "Fastest",
    "Feature",
    "Finding",
    "FindingKind",
    "FixedRates",
    "GroupLimit",
    "Guard",
    "GuardedTransport",
    "HandlerRetry",
    "Healthiest",
    "Hedge",
    "Holdfast",
    "HoldfastError",
    "JobFilter",
    "JobState",
    "KeyRing",
    "Meeting",
    "Meetings",
    "Message",
    "Money",
    "MoneyReport",
    "Notifications",
    "Offer",
    "Ordered",
    "Payer",
    "Payment",
    "PaymentAuthorized",
    "PaymentCanceled",
    "PaymentDisputed",
    "PaymentExpired",
    "PaymentFailed",
    "PaymentFlagged",
    "PaymentPaid",
    "PaymentRefunded",
    "PaymentStatus",
    "Payments",
    "Policy",
    "Priority",
    "Rate",
    "ReceiverLimits",
    "Recipient",
    "Reference",
    "Refund",
    "RefundByHand",
    "RefundFailed",
    "RefundStatus",
    "Retired",
    "Retry",
    "Rule",
    "Screening",
    "Secret",
    "Secrets",
    "SharedCache",
    "Spend",
    "SpendLimit",
    "SpendLimitReached",
    "Switch",
    "Switched",
    "Verdict",
    "Weighted",
    "WorkerOptions",
    "for_tenant",
    "guard_of",
    "handled_ddl",
    "open_store",
    "outbox_ddl",
    "priority",
    "protect",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    value = getattr(import_module(f"holdfast.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
