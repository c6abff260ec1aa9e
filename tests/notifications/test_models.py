"""Messages and recipients, before anything is sent."""

import pytest

from holdfast.errors import InvalidInput
from holdfast.notifications.models import Address, Message, Recipient


@pytest.mark.parametrize("text", ["", " ", "\n", "half \ud83d"])
def test_a_message_needs_a_text_that_can_be_written(text: str) -> None:
    with pytest.raises(InvalidInput):
        Message(text)


def test_a_recipient_needs_an_address() -> None:
    with pytest.raises(InvalidInput):
        Recipient()


def test_a_recipient_is_reached_at_the_first_address_of_a_channel() -> None:
    ada = Recipient(Address("email", "work@example.org"), email="home@example.org", telegram=4711)

    assert ada.on("email") == "work@example.org"
    assert ada.on("telegram") == "4711"
    assert ada.on("sms") is None
