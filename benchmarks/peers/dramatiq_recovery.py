"""dramatiq: `enqueue` or `work`, with its defaults, but for a thread per job: eight would run eight of ten."""

import sys
import threading
import time

import dramatiq
from dramatiq import Worker
from dramatiq.brokers.redis import RedisBroker

from benchmarks._recovery import ENQUEUE, JOBS, SECONDS, note

broker = RedisBroker(url=sys.argv[2])
dramatiq.set_broker(broker)


@dramatiq.actor
def wait(number: int) -> None:
    note(number)
    time.sleep(SECONDS)


if __name__ == "__main__":
    if sys.argv[1] == ENQUEUE:
        for number in range(JOBS):
            wait.send(number)
    else:
        Worker(broker, worker_threads=JOBS).start()
        threading.Event().wait()
