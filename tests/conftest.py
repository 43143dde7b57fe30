"""What all tests share: hypothesis without time limits, since a busy machine is no bug."""

from hypothesis import HealthCheck, settings

settings.register_profile("serin", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("serin")
