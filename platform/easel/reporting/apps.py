from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate, pre_migrate


class ReportingConfig(AppConfig):
    name = "easel.reporting"

    def ready(self) -> None:
        from easel.reporting.views import views_drop, views_make

        # Django sends these for each app with models. This one has none, so it listens to one whose tables it reads.
        sender = apps.get_app_config("generation")
        pre_migrate.connect(views_drop, sender=sender, dispatch_uid="reporting")
        post_migrate.connect(views_make, sender=sender, dispatch_uid="reporting")
