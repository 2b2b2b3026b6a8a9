"""Changes of these tables raise the revision of what requests are answered by."""

from importlib import import_module

from django.db import migrations

counted = import_module("tenants.migrations.0007_configuration").counted


class Migration(migrations.Migration):
    dependencies = [
        ("registry", "0005_precision"),
        ("tenants", "0007_configuration"),
    ]

    operations = [
        counted(
            "registry_pool",
            "registry_model",
            "registry_modelversion",
            "registry_route",
            "registry_experiment",
            "registry_arm",
        ),
    ]
