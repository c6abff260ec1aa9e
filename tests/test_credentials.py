"""What a hub is made of wrongly is refused when it is made, not when money is due."""

from typing import Any

import pytest

from holdfast import Holdfast, Secret, Secrets
from holdfast.errors import ConfigurationError, MissingCredential
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


def test_an_empty_credential_is_refused_when_the_hub_is_made() -> None:
    vendor = Stripe(api_key=Secret(""), webhook_secret=Secrets("whsec_one"), base_url=LOCAL)

    with pytest.raises(MissingCredential, match="stripe: api_key is empty"):
        Holdfast(store="memory://", payments=[vendor])


def test_a_plain_text_is_no_secret_of_the_hub() -> None:
    with pytest.raises(ConfigurationError, match="secret is a Secrets, not a str") as refused:
        Holdfast(store="memory://", secret=PLAIN)

    assert PLAIN not in str(refused.value)


def test_a_handler_is_of_the_class_of_an_event() -> None:
    hub = Holdfast(store="memory://", payments=[FakePayments()])
    paid: Any = "payment.paid"

    with pytest.raises(ConfigurationError, match=r"such as PaymentPaid, not 'payment\.paid'"):

        @hub.on(paid, name="ship")
        async def ship(event: object) -> None: ...


def test_sealed_credentials_are_taken() -> None:
    vendor = Stripe(api_key=Secret("sk_test_sealed"), webhook_secret=Secrets("whsec_one"), base_url=LOCAL)

    assert list(Holdfast(store="memory://", payments=[vendor]).payments.providers) == ["stripe"]
