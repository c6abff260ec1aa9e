"""huey on SQLite with fsync and four threads: for each line with a number it enqueues so many tasks that do nothing,
works through them, and prints the seconds the work took. A task is taken from the queue before it runs: at most once.

Its arguments are a file and the bytes of a task's argument.
"""

import itertools
import sys
import threading
import time

from huey import SqliteHuey

THREADS = 4

huey = SqliteHuey(filename=sys.argv[1], fsync=True)
body = "x" * int(sys.argv[2])
handled = itertools.count(1)
wanted = 0
over = threading.Event()


@huey.task()
def handle(body: str) -> None:
    if next(handled) == wanted:
        over.set()


for line in sys.stdin:
    count = int(line)
    handled, wanted = itertools.count(1), count
    over.clear()
    for _ in range(count):
        handle(body)
    consumer = huey.create_consumer(workers=THREADS, worker_type="thread", periodic=False, check_worker_health=False)
    begun = time.perf_counter()
    consumer.start()
    over.wait()
    seconds = time.perf_counter() - begun
    consumer.stop(graceful=True)
    print(seconds, flush=True)
