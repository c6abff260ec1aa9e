"""Twilio's SDK, used as its documentation says; only its base address is set."""

import asyncio
import json
import sys
from urllib.parse import parse_qsl

from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client


def client(given, **options):
    found = Client(given["account_sid"], options.pop("token", given["auth_token"]), **options)
    found.api.base_url = given["url"]
    return found


def caught(call):
    """What the error says."""
    try:
        call()
    except TwilioRestException as error:
        return [error.status, error.code, error.msg.partition(": ")[2]]
    except TwilioException as error:
        return [str(error)[:60]]
    return None


def calls(given):
    twilio = client(given)
    sender = given["from"]
    sent = twilio.messages.create(
        to="+41790000001", from_=sender, body="Your code is 4711", status_callback="https://shop.test/sms?order=1"
    )
    for number in range(2, 5):
        twilio.messages.create(to=f"+4179000000{number}", from_=sender, body=f"number {number}")
    twice = [twilio.messages.create(to="+41790000009", from_=sender, body="twice").sid for _ in range(2)]
    later = twilio.messages.create(
        to="+41790000008",
        messaging_service_sid=given["messaging_service_sid"],
        body="later",
        schedule_type="fixed",
        send_at=given["later"],
    )
    return {
        "sent": [sent.sid[:2], sent.status, sent.date_created.isoformat(), sent.num_segments, sent.direction],
        "read": twilio.messages(sent.sid).fetch().body,
        "listed": [one.body for one in twilio.messages.stream(page_size=2)],
        "to": [one.sid == sent.sid for one in twilio.messages.list(to="+41790000001")],
        "twice": len(set(twice)),
        "scheduled": [later.status, twilio.messages(later.sid).update(status="canceled").status],
        "invalid": caught(lambda: twilio.messages.create(to="12", from_=sender, body="x")),
        "stopped": caught(lambda: twilio.messages.create(to="+15005550004", from_=sender, body="x")),
        "nothing": caught(lambda: twilio.messages.create(to="+41790000001", from_=sender)),
        "not_ours": caught(lambda: twilio.messages.create(to="+41790000001", from_="+15005550007", body="x")),
        "missing": caught(lambda: twilio.messages("SM" + "0" * 32).fetch()),
        "wrong_token": caught(lambda: client(given, token="wrong").messages.list()),
        "account": twilio.api.accounts(given["account_sid"]).fetch().status,
        "balance": twilio.balance.fetch().currency,
    }


def asynchronous(given):
    async def send():
        async with AsyncTwilioHttpClient() as http:
            twilio = client(given, http_client=http)
            sent = await twilio.messages.create_async(to="+41790000001", from_=given["from"], body="async")
            return [one.sid == sent.sid for one in await twilio.messages.list_async()]

    return asyncio.run(send())


def limited(given):
    """Calls until Twilio says that it is enough."""
    for number in range(100):
        if error := caught(lambda: client(given).balance.fetch()):
            return [number, *error[:2]]
    return None


def clean_up(given):
    """What has arrived can be emptied, and deleted."""
    message = client(given).messages(given["sid"])
    return [message.fetch().status, message.update(body="").body, message.delete(), caught(message.fetch)[1]]


def validate(given):
    """Which webhooks the official validator lets through."""
    return [
        RequestValidator(secret).validate(url, dict(parse_qsl(body, keep_blank_values=True)), signature)
        for url, signature, body, secret in given["webhooks"]
    ]


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](json.load(sys.stdin))))
