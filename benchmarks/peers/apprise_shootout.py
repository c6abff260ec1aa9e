"""Apprise tells somebody of each order, by its service for JSON over HTTP: an effect is a message.

It does not try again unless it is told to, by `retry=`, as with `--retry` here. It has no notion of idempotency keys.

https://appriseit.com/services/json/
https://github.com/caronc/apprise
"""

import sys

import apprise

from benchmarks._intents import TIMEOUT, Task, ask_each_in_threads, finish


def main(task: Task) -> None:
    retry = "&retry=3" if "--retry" in sys.argv else ""
    host = task.url.removeprefix("http://")
    service = apprise.Apprise()
    assert service.add(f"json://{host}/messages?cto={TIMEOUT}&rto={TIMEOUT}{retry}")

    def tell(order: str) -> None:
        if not service.notify(title=order, body="Thank you."):
            raise RuntimeError("not delivered")

    ask_each_in_threads(task.orders, tell)
    finish("apprise")


main(Task.given())
