"""Finds the jobs whose client disconnected. The index is built while jobs are admitted."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("jobs", "0007_client_calls")]

    operations = [
        AddIndexConcurrently(
            model_name="job",
            index=models.Index(
                condition=models.Q(abandoned_at__isnull=False, finished_at=None, cancel_requested_at=None),
                fields=["abandoned_at"],
                name="job_abandoned",
            ),
        ),
    ]
