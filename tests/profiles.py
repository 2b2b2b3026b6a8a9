"""How many examples Hypothesis tries: few in every `make test`, many in `make test-all`."""

from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
settings.register_profile("small", max_examples=25, **_COMMON)
settings.register_profile("large", max_examples=500, **_COMMON)
settings.load_profile("small")  # `--hypothesis-profile=large` comes after this and before the tests are imported


def examples(share: float) -> int:
    """The number of examples for a test that costs more than others: a share of the profile's."""
    return round(settings.default.max_examples * share)
