"""The Django app of the portal: imports its pages, and makes the roles after migrations."""

from importlib import import_module
from pkgutil import iter_modules

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class PortalConfig(AppConfig):
    name = "easel.portal"

    def ready(self) -> None:
        from easel.actions.roles import roles_make
        from easel.portal import sign_in  # noqa: F401 - receives what Django says of sign-ins

        # A page of the portal is there once its module is imported.
        for module in iter_modules([self.path]):
            if module.name.endswith("_pages"):
                import_module(f"{self.name}.{module.name}")
        post_migrate.connect(roles_make)
