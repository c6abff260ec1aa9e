"""One seed for all the chance a program takes."""

import os
import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Until it is left, `random`, `secrets`, `uuid4` and `os.urandom` give the same again for the same seed."""
    chance, module = random.Random(f"program:{seed}"), cast(Any, random)
    before, urandom, for_secrets = random.getstate(), os.urandom, module._urandom
    random.seed(chance.getrandbits(64))
    os.urandom = module._urandom = chance.randbytes
    try:
        yield
    finally:
        os.urandom, module._urandom = urandom, for_secrets
        random.setstate(before)
