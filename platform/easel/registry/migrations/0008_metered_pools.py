"""Pools are metered from here on: what their workers did before was not priced."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("registry", "0007_tiers"),
    ]

    operations = [
        migrations.AddField(
            model_name="workerday",
            name="metered_seconds",
            field=models.FloatField(default=0, help_text="Of a dedicated pool's up_seconds, what is metered."),
        ),
        migrations.RunSQL("UPDATE registry_workerday SET metered_seconds = up_seconds", migrations.RunSQL.noop),
    ]
