"""What all tests share: hypothesis without time limits, since a busy machine is no bug, and one thread for OpenMP.

The threads are one in the images too. A process that is forked after OpenMP has begun more waits for them for ever.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before anything loads OpenMP

from hypothesis import HealthCheck, settings

settings.register_profile("serin", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("serin")
