from importlib import import_module

from django.apps import AppConfig
from django.db.models.signals import post_migrate

# A page of the portal is there once its module is imported.
PAGES = (
    "tenant_pages",
    "adapter_pages",
    "model_pages",
    "experiment_pages",
    "job_pages",
    "price_pages",
    "money_pages",
    "statement_pages",
    "webhook_pages",
    "audit_pages",
)


class PortalConfig(AppConfig):
    name = "easel.portal"

    def ready(self) -> None:
        from easel.actions.roles import roles_make
        from easel.portal import sign_in  # noqa: F401 - receives what Django says of sign-ins

        for page in PAGES:
            import_module(f"easel.portal.{page}")
        post_migrate.connect(roles_make)
