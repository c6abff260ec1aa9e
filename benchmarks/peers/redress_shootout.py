"""redress and its httpx client, with the bounds of its HTTP starter.

It warns against retrying a charge "with no idempotency key", and its example leaves such methods out. So a POST is
retried where the vendor honours keys, and not where it does not.

https://aponysus.github.io/redress/pitfalls-and-defaults/
https://aponysus.github.io/redress/starters/http-client/
"""

import asyncio

import httpx
from redress import AsyncPolicy, AsyncRetry, default_classifier
from redress.contrib.httpx import AsyncRetryingHttpxClient, default_result_classifier, is_idempotent_method
from redress.strategies import decorrelated_jitter, retry_after_or

from benchmarks._intents import TIMEOUT, Task, ask_each, charge, finish


async def main(task: Task) -> None:
    policy = AsyncPolicy(
        retry=AsyncRetry(
            classifier=default_classifier,
            result_classifier=default_result_classifier,
            strategy=retry_after_or(decorrelated_jitter(max_s=5.0)),
            max_attempts=4,
            deadline_s=10.0,
            max_unknown_attempts=2,
        ),
    )
    async with httpx.AsyncClient(base_url=task.url, timeout=TIMEOUT) as client:
        upstream = AsyncRetryingHttpxClient(
            client, policy, skip_if=lambda method, _url: not task.keys and not is_idempotent_method(method)
        )

        async def create(order: str) -> object:
            headers = {"Idempotency-Key": order} if task.keys else {}
            response = await upstream.post("/charges", json=charge(order), headers=headers)
            response.raise_for_status()
            return response.json()

        await ask_each(task.orders, create)
    finish("redress", "httpx")


asyncio.run(main(Task.given()))
