"""Every run of these tests draws the same examples: what fails once fails for everybody."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "broker", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("broker")
