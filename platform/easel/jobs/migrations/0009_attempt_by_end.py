"""Finds the attempts that ran beside another. The index is built while attempts end."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("jobs", "0008_job_abandoned")]

    operations = [
        AddIndexConcurrently(model_name="attempt", index=models.Index(fields=["finished_at"], name="attempt_by_end")),
    ]
