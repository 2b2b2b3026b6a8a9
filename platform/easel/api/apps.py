from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "easel.api"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from easel.api import openapi  # noqa: F401 - registers the scheme of authentication
