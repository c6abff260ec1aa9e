"""`kill -9` in the middle of calls: each is made as often as it is declared, and what cannot be known is said."""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

from holdfast import open_store
from holdfast.stores.store import Job, JobFilter, JobState

KILLS = 4
PER_LIFE = 400
SEED = 20261121
OVER = (JobState.DONE, JobState.DEAD)


def _effects(directory: Path) -> Counter[str]:
    return Counter((directory / "effects").read_text().splitlines())


def _jobs(directory: Path) -> dict[str, Job]:
    async def look() -> dict[str, Job]:
        async with open_store(f"sqlite:///{directory}/holdfast.db") as store:
            return {job.key: job for job in await store.jobs.list(JobFilter(), limit=100_000)}

    return asyncio.run(look())


def _start(directory: Path, life: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.journeys.sending_shop", str(directory), str(life * PER_LIFE), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_call_cut_off_by_kill_9_is_made_again_only_where_it_may_be(tmp_path: Path) -> None:
    chance = Random(SEED)
    kept: set[str] = set()

    for life in range(KILLS):
        shop = _start(tmp_path, life, PER_LIFE)
        assert shop.stdout is not None
        for _ in range(chance.randrange(60, 150)):
            kept.add(shop.stdout.readline().strip())
        shop.kill()
        rest, _ = shop.communicate()
        kept |= set(rest.splitlines()[:-1])  # the last line may be cut

    last = _start(tmp_path, KILLS, 0)
    until = time.monotonic() + 120
    while not all(job.state in OVER for job in _jobs(tmp_path).values()) and time.monotonic() < until:
        time.sleep(0.2)
    last.kill()
    last.communicate()

    jobs, effects = _jobs(tmp_path), _effects(tmp_path)
    unknown = [key for key, job in jobs.items() if job.reason == "unknown"]
    assert kept - set(jobs) == set(), f"lost, with seed {SEED}"
    assert [key for key, job in jobs.items() if job.state not in OVER] == []
    assert [key for key in jobs if key.startswith("plain/") and not effects[key]] == []
    assert [key for key in jobs if key.startswith("check/") and effects[key] != 1] == []
    assert [key for key in jobs if key.startswith("hold/") and effects[key] > 1] == []
    assert [key for key in jobs if key.startswith("hold/") and not effects[key] and key not in unknown] == []
    assert unknown, "nothing was cut off: the test has proven nothing"
    assert all(key.startswith("hold/") for key in unknown)
