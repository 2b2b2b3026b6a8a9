from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # an index is built concurrently outside a transaction alone

    dependencies = [("jobs", "0005_batches")]

    operations = [
        AddIndexConcurrently(
            model_name="job",
            index=models.Index(
                condition=models.Q(("in_batch", True), ("state", "queued")),
                fields=["pool", "tenant"],
                name="job_batch_queue",
            ),
        ),
    ]
