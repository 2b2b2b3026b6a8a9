"""The Django app of the API."""

from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "easel.api"
    default_auto_field = "django.db.models.BigAutoField"
