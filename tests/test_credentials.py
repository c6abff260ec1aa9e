"""A credential that is no `Secret` is refused when the hub is made, not when money is due."""

from typing import Any

import pytest

from holdfast import Holdfast, Secret, Secrets
from holdfast.errors import ConfigurationError
from holdfast.providers import Stripe
from holdfast.testing import FakePayments

LOCAL = "http://127.0.0.1:1"
PLAIN: Any = "sk_test_plain"
ONE: Any = Secret("whsec_one")
CLASS: Any = FakePayments


@pytest.mark.parametrize(
    ("vendor", "told"),
    [
        (
            Stripe(api_key=PLAIN, webhook_secret=Secrets("whsec_one"), base_url=LOCAL),
            'stripe: api_key is a Secret, not a str: write api_key=Secret("…")',
        ),
        (
            Stripe(api_key=Secret("sk_test_sealed"), webhook_secret=ONE, base_url=LOCAL),
            'stripe: webhook_secret is a Secrets, not a Secret: write webhook_secret=Secrets("…")',
        ),
        (CLASS, "FakePayments is a class; give a provider made of it: FakePayments(…)"),
    ],
)
def test_what_is_no_sealed_credential_is_refused_when_the_hub_is_made(vendor: Any, told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Holdfast(store="memory://", payments=[vendor])

    assert str(refused.value) == told
    assert "sk_test_plain" not in str(refused.value)


def test_sealed_credentials_are_taken() -> None:
    vendor = Stripe(api_key=Secret("sk_test_sealed"), webhook_secret=Secrets("whsec_one"), base_url=LOCAL)

    assert list(Holdfast(store="memory://", payments=[vendor]).payments.providers) == ["stripe"]
