"""Finds the history in which your code does something twice, or loses it: crashes, faults, and webhooks in any order.

found = explore(test_an_order_is_charged_once, histories=500, seed=7)
"""

from holdfast.testing.explore.crashes import Crashes
from holdfast.testing.explore.exploring import Found, Progress, explore, replay
from holdfast.testing.explore.history import CallFails, Crash, History, Step, WebhookComes
from holdfast.testing.explore.kept import KeptStore
from holdfast.testing.explore.running import HistoryHangs, Limits, Ran

__all__ = [
    "CallFails",
    "Crash",
    "Crashes",
    "Found",
    "History",
    "HistoryHangs",
    "KeptStore",
    "Limits",
    "Progress",
    "Ran",
    "Step",
    "WebhookComes",
    "explore",
    "replay",
]
