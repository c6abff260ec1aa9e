"""Slack's SDK, used as its documentation says; only its base address is set."""

import asyncio
import json
import sys

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler
from slack_sdk.signature import SignatureVerifier
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook import WebhookClient


def client(given, **options):
    return WebClient(token=options.pop("token", given["token"]), base_url=given["url"] + "/api/", **options)


def caught(call):
    """What the error says."""
    try:
        call()
    except SlackApiError as error:
        response = error.response
        return [response.status_code, response["error"], response.headers.get("Retry-After")]
    return None


def calls(given):
    slack = client(given)
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "*Paid*"}}]
    metadata = {"event_type": "order_paid", "event_payload": {"reference": "order-1"}}
    posted = slack.chat_postMessage(channel="#general", text="Paid", blocks=blocks, metadata=metadata)
    channel, ts = posted["channel"], posted["ts"]
    reply = slack.chat_postMessage(
        channel=slack.users_lookupByEmail(email="grace@example.com")["user"]["id"], text="Hi"
    )
    pages = [[one["name"] for one in page["channels"]] for page in slack.conversations_list(limit=1)]
    return {
        "bot": slack.auth_test()["bot_id"][:1],
        "ts": ts,
        "blocks": posted["message"]["blocks"] == blocks,
        "direct": reply["channel"][:1],
        "throttled": caught(lambda: slack.chat_postMessage(channel=channel, text="again")),
        "unknown": caught(lambda: slack.chat_postMessage(channel="nowhere", text="Hi")),
        "no_text": caught(lambda: slack.chat_postMessage(channel="#alerts")),
        "wrong_token": caught(lambda: client(given, token="xoxb-wrong").auth_test()),
        "no_method": caught(lambda: slack.api_call("chat.shout")),
        "edited": slack.chat_update(channel=channel, ts=ts, text="Refunded")["message"]["text"],
        "history": [one["text"] for one in slack.conversations_history(channel=channel)["messages"]],
        "pages": pages,
        "deleted": slack.chat_delete(channel=channel, ts=ts)["ok"],
        "after": slack.conversations_history(channel=channel)["messages"],
        "hook": [WebhookClient(given["incoming_webhook"]).send(text="Hi").status_code for _ in range(2)],
    }


def asynchronous(given):
    async def both():
        slack = AsyncWebClient(token=given["token"], base_url=given["url"] + "/api/")
        posted = await slack.chat_postMessage(channel="#alerts", text="async")
        return [
            posted["message"]["text"],
            [page["members"][0]["name"] async for page in await slack.users_list(limit=1)],
        ]

    return asyncio.run(both())


def files(given):
    """An upload in one call, of which the SDK makes three."""
    slack = client(given)
    here = slack.conversations_list()["channels"][0]["id"]
    done = slack.files_upload_v2(
        channel=here, filename="invoice.txt", title="Invoice 4711", content="CHF 120.00", initial_comment="Your invoice"
    )
    two = [{"filename": f"{number}.txt", "content": "x" * number} for number in (1, 2)]
    alone = slack.files_upload_v2(file_uploads=two)
    return {
        "file": [done["file"][name] for name in ("name", "title", "size")],
        "said": [
            (one["text"], [file["title"] for file in one["files"]])
            for one in slack.conversations_history(channel=here)["messages"]
        ],
        "read": slack.files_info(file=done["file"]["id"])["file"]["title"],
        "alone": [file["name"] for file in alone["files"]],
        "nowhere": caught(lambda: slack.files_upload_v2(channel="C0", filename="a", content="b")),
        "never_uploaded": caught(
            lambda: slack.files_completeUploadExternal(
                files=[{"id": slack.files_getUploadURLExternal(filename="a", length=1)["file_id"]}]
            )
        ),
    }


def patient(given):
    """The SDK itself waits as told, and tries again."""
    slack = client(given, retry_handlers=[RateLimitErrorRetryHandler(max_retry_count=2)])
    return [slack.chat_postMessage(channel="#alerts", text=text)["ok"] for text in ("one", "two")]


def validate(given):
    """Which webhooks the official validator lets through."""
    return [
        SignatureVerifier(secret).is_valid_request(body, dict(headers)) for headers, body, secret in given["webhooks"]
    ]


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](json.load(sys.stdin))))
