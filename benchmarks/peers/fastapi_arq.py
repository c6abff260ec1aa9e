"""An endpoint of FastAPI's that verifies a webhook and hands its body to arq; nobody works, and nobody looks for
duplicates. uvicorn serves it, with uvloop and httptools."""

import hmac
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from arq import create_pool
from arq.connections import RedisSettings
from fastapi import FastAPI, HTTPException, Request

SECRET = b"whsec_of_the_benchmark"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.redis = await create_pool(RedisSettings(port=int(os.environ["REDIS"])))
    yield
    await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.post("/hook")
async def hook(request: Request) -> dict[str, str]:
    body = await request.body()
    given = dict(pair.split("=", 1) for pair in request.headers["stripe-signature"].split(","))
    expected = hmac.digest(SECRET, given["t"].encode() + b"." + body, "sha256").hex()
    if not hmac.compare_digest(expected, given["v1"]):
        raise HTTPException(401)
    await request.app.state.redis.enqueue_job("handle", body)
    return {}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning")
