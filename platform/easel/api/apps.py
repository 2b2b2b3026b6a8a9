"""The Django app of the API: registers its extensions of drf-spectacular."""

from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "easel.api"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from easel.api import declaration  # noqa: F401 - registers its extensions of drf-spectacular
