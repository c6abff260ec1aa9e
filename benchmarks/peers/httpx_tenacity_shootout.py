"""httpx and tenacity, as tutorials have it: transport errors and 5xx are retried, three attempts, growing waits.

Neither has a notion of idempotency keys. With `--key` the shop adds that one header by itself.

https://tenacity.readthedocs.io/en/latest/
"""

import asyncio
import sys

import httpx
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential

from benchmarks._intents import TIMEOUT, Task, ask_each, charge, finish


def transient(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


async def main(task: Task) -> None:
    async with httpx.AsyncClient(base_url=task.url, timeout=TIMEOUT) as client:

        @retry(
            retry=retry_if_exception(transient),
            stop=stop_after_attempt(3),
            wait=wait_exponential(multiplier=0.5, max=10),
            reraise=True,
        )
        async def create(order: str) -> object:
            headers = {"Idempotency-Key": order} if "--key" in sys.argv else {}
            response = await client.post("/charges", json=charge(order), headers=headers)
            response.raise_for_status()
            return response.json()

        await ask_each(task.orders, create)
    finish("httpx", "tenacity")


asyncio.run(main(Task.given()))
