"""Keys may have the scope of webhooks; those of before have it not: `easel key create --scope webhooks`."""

import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0009_scope_billing"),
    ]

    operations = [
        migrations.AlterField(
            model_name="apikey",
            name="scopes",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(
                    choices=[
                        ("generate", "create, read and cancel jobs"),
                        ("adapters", "upload, read and retire adapters"),
                        ("usage", "read usage and cost"),
                        ("billing", "set and remove budgets"),
                        ("webhooks", "make, change and read webhooks"),
                    ],
                    max_length=20,
                ),
                size=None,
            ),
        ),
    ]
