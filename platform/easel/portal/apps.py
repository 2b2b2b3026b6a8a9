"""The Django app of the portal: makes the roles after migrations."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class PortalConfig(AppConfig):
    name = "easel.portal"

    def ready(self) -> None:
        from easel.actions.roles import roles_make

        post_migrate.connect(roles_make)
