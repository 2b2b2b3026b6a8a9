from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # as CREATE INDEX CONCURRENTLY demands

    dependencies = [
        ("jobs", "0002_timeline"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="attempt", index=models.Index(fields=["dispatched_at"], name="attempt_by_time")
        ),
    ]
