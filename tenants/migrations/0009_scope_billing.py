"""Keys that set budgets."""

import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0008_retention"),
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
                    ],
                    max_length=20,
                ),
                size=None,
            ),
        ),
    ]
