"""The Django app of batches."""

from django.apps import AppConfig


class BatchesConfig(AppConfig):
    name = "easel.batches"
    default_auto_field = "django.db.models.BigAutoField"
