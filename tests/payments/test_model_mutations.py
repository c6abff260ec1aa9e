"""The model check objects to broken code: each of these is noticed within a few histories."""

from collections.abc import Callable

import pytest

from tests.payments.model.history import History
from tests.payments.model.mutations import MUTATIONS

pytestmark = pytest.mark.unmeasured

ENOUGH = 600


@pytest.mark.parametrize("mutation", MUTATIONS)
async def test_the_oracle_objects_to_broken_code(
    mutation: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)

    for seed in range(ENOUGH):
        wrong = await History(seed=seed).run()
        if wrong:
            print(f"seed {seed}: {wrong[0]}")
            return
    pytest.fail("nobody noticed")
