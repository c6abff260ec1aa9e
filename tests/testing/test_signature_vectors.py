"""What simulators sign is, byte for byte, what the vendors' own published examples are signed with."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from holdfast.testing.simulators.simulator import Simulator
from holdfast.testing.simulators.slack import SlackSimulator
from holdfast.testing.simulators.stripe import StripeSimulator
from holdfast.testing.simulators.twilio import TwilioSimulator

VECTORS = Path(__file__).parents[3] / "shared" / "specs" / "signature-vectors.json"


def vectors(scheme: str) -> list[dict[str, Any]]:
    """The published signatures that are valid and that the vendor itself would make."""
    if not VECTORS.exists():
        pytest.skip("the published signatures are not here")
    published = json.loads(VECTORS.read_text())["vectors"]
    # "-added" and "multi" are what a validator must forgive, not what the vendor signs.
    ours = [one for one in published if one["scheme"] == scheme and one["valid"]]
    return [one for one in ours if not one["id"].endswith(("-added", "-multi-sig"))]


def signed(simulator: Simulator, vector: dict[str, Any]) -> dict[str, str]:
    body = vector["body"] if vector.get("params") is None else urlencode([tuple(pair) for pair in vector["params"]])
    at = datetime.fromtimestamp(vector.get("timestamp", 0), UTC)
    return dict(simulator.sign(body.encode(), secret=vector["secret"], at=at, url=vector.get("url", "")))


def test_stripe_signs_as_published() -> None:
    found = vectors("stripe")
    assert found
    for vector in found:
        published = vector["headers"]["Stripe-Signature"].split(",")
        assert signed(StripeSimulator(), vector)["stripe-signature"].split(",")[:2] == published[:2]


def test_slack_signs_as_published() -> None:
    found = vectors("slack")
    assert found
    for vector in found:
        published = {name.lower(): value for name, value in vector["headers"].items()}
        assert signed(SlackSimulator(), vector) == published


def test_twilio_signs_as_published() -> None:
    found = vectors("twilio")
    assert len(found) >= 4
    for vector in found:
        published = {name.lower(): value for name, value in vector["headers"].items()}
        assert (vector["id"], signed(TwilioSimulator(), vector)) == (vector["id"], published)
