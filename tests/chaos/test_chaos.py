"""Every fault, several times at random moments, in a rollout of a good model and in one of a harmful model.

Both end as they would without it. The moments come from a seed, which is printed; SERIN_CHAOS_SEED=N makes the same
ones again, and SERIN_CHAOS_TIMES is how often a fault strikes in the good model's rollout.
"""

import os

import pytest
from tests.chaos.conftest import Serve
from tests.chaos.faults import FAULTS
from tests.chaos.ledger import Ledger
from tests.chaos.world import Fault

pytestmark = pytest.mark.timeout(1200)

TIMES = int(os.environ.get("SERIN_CHAOS_TIMES") or 3)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_rollouts_end_as_they_would_without(fault: Fault, serve: Serve, ledger: Ledger) -> None:
    print(f"seed {ledger.seed}")
    with serve(fault) as trial:
        try:
            trial.run(TIMES)
        except BaseException as error:
            trial.entry.outcome.append(f"FAILED: {str(error).partition(chr(10))[0][:100]}")
            raise
        finally:
            ledger.write()
