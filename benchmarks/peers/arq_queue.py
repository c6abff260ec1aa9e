"""arq: one `enqueue_job` per caller."""

import sys
from collections.abc import Mapping

from _lines import Verb, add, serve
from arq import create_pool
from arq.connections import RedisSettings


async def verbs() -> Mapping[str, Verb]:
    pool = await create_pool(RedisSettings.from_dsn(sys.argv[1]))
    return {"add": lambda jobs: add(lambda body: pool.enqueue_job("handle", body), jobs)}


serve(verbs)
