import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# The same examples in every run, on a machine of any speed, as in the other tests; these run without them too.
settings.register_profile(
    "same-every-run",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("same-every-run")

sys.path.insert(0, str(Path(__file__).parent))
