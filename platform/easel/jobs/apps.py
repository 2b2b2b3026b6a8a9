"""The Django app of jobs."""

from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "easel.jobs"
    default_auto_field = "django.db.models.BigAutoField"
