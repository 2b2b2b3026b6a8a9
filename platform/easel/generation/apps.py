from django.apps import AppConfig


class GenerationConfig(AppConfig):
    name = "easel.generation"
    default_auto_field = "django.db.models.BigAutoField"
