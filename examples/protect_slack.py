"""Slack's own async client in a guard: a message that may be out is not posted again, and you are told so."""

import asyncio

from slack_sdk.web.async_client import AsyncWebClient

from examples.unreliable import LOST, vendor
from holdfast import Policy
from holdfast.errors import OutcomeUnknown
from holdfast.resilience.protect import protect


async def main() -> None:
    """Look something up through a failure; then lose the answer to a message."""
    with vendor((500, {}), (200, {"ok": True, "channels": []}), LOST) as (url, seen):
        client = AsyncWebClient("xoxb-example", base_url=f"{url}/api/", retry_handlers=[])
        slack = protect(client, "slack", Policy(deadline=10))

        await slack.conversations_list()  # pyright: ignore[reportUnknownMemberType]  # slack_sdk leaves types open
        print("looked up after", len(seen), "requests")

        try:
            await slack.chat_postMessage(channel="C1", text="It begins.")  # pyright: ignore[reportUnknownMemberType]
        except OutcomeUnknown as error:
            print(*error.__notes__)
        print("posted", sum(path.endswith("chat.postMessage") for path, _ in seen), "time")


if __name__ == "__main__":
    asyncio.run(main())
