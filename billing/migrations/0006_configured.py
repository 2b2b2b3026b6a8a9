"""Changes of these tables raise the revision of what requests are answered by."""

from importlib import import_module

from django.db import migrations

counted = import_module("tenants.migrations.0007_configuration").counted


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0005_stopped_work"),
        ("tenants", "0007_configuration"),
    ]

    operations = [
        counted(
            "billing_pricebook",
            "billing_rate",
        ),
    ]
