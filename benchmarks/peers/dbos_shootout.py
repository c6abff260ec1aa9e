"""DBOS: each order is a workflow whose id is the order's name, and the charge is its one step.

A process that is killed is started again, and DBOS recovers the workflows that were running. A step is retried after an
exception only if it is told to, which is done where the vendor honours keys; the workflow's id is the key. Its system
database is on PostgreSQL, as it recommends for production.

https://docs.dbos.dev/python/tutorials/step-tutorial
https://docs.dbos.dev/python/tutorials/workflow-tutorial
"""

import sys

import httpx
from dbos import DBOS, DBOSConfig, SetWorkflowID

from benchmarks._intents import TIMEOUT, Task, ask_each_in_threads, charge, finish

task = Task.given()
config: DBOSConfig = {"name": "shootout", "system_database_url": sys.argv[5]}
DBOS(config=config)
client = httpx.Client(base_url=task.url, timeout=TIMEOUT)


@DBOS.step(retries_allowed=task.keys)
def create(order: str) -> str:
    headers = {"Idempotency-Key": DBOS.workflow_id or ""} if task.keys else {}
    response = client.post("/charges", json=charge(order), headers=headers)
    response.raise_for_status()
    return str(response.json()["id"])


@DBOS.workflow()
def check_out(order: str) -> str:
    return create(order)


def ask(order: str) -> str:
    with SetWorkflowID(order):
        return DBOS.start_workflow(check_out, order).get_result()


if __name__ == "__main__":
    DBOS.launch()
    ask_each_in_threads(task.orders, ask)
    DBOS.destroy()
    finish("dbos", "httpx")
