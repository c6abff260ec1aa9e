"""Slack, simulated: a workspace with channels and people, the Web API of one app, its incoming webhook, its events."""

from holdfast.testing.simulators.slack.simulator import SlackSimulator
from holdfast.testing.simulators.slack.workspace import Limits

__all__ = ["Limits", "SlackSimulator"]
