from django.apps import AppConfig


class CatalogConfig(AppConfig):
    name = "easel.catalog"
    default_auto_field = "django.db.models.BigAutoField"
