"""`kill -9` at any moment: what was accepted is handled, and its effect happens exactly once."""

import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

KILLS = 6
PER_LIFE = 400
SEED = 20261121


def _confirmed(directory: Path) -> Counter[str]:
    with closing(sqlite3.connect(directory / "shop.db")) as shop:
        return Counter(reference for (reference,) in shop.execute("SELECT reference FROM confirmed"))


def _start(directory: Path, life: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.journeys.crashing_shop", str(directory), str(life * PER_LIFE), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_no_accepted_payment_is_lost_or_confirmed_twice_by_kill_9(tmp_path: Path) -> None:
    chance = Random(SEED)
    accepted: set[str] = set()

    for life in range(KILLS):
        shop = _start(tmp_path, life, PER_LIFE)
        assert shop.stdout is not None
        for _ in range(chance.randrange(5, 60)):
            accepted.add(shop.stdout.readline().strip())
        shop.kill()
        rest, _ = shop.communicate()
        accepted |= set(rest.splitlines()[:-1])  # the last line may be cut

    last = _start(tmp_path, KILLS, 0)
    until = time.monotonic() + 120
    while not accepted <= set(_confirmed(tmp_path)) and time.monotonic() < until:
        time.sleep(0.05)
    last.kill()
    last.communicate()

    confirmed = _confirmed(tmp_path)
    assert accepted - set(confirmed) == set(), f"lost, with seed {SEED}"
    assert [reference for reference, count in confirmed.items() if count > 1] == []
    assert len(accepted) >= 30
