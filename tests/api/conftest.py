"""Property tests must not fail because the machine is busy: no time limits."""

from hypothesis import HealthCheck, settings

settings.register_profile("navarch", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("navarch")
