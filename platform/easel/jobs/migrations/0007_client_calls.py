"""Remembers the calls of clients that number their retries, and when a job's client disconnected."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0001_initial"),
        ("jobs", "0006_job_batch_queue"),
    ]

    operations = [
        migrations.CreateModel(
            name="ClientCall",
            fields=[
                (
                    "job",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="client_call",
                        serialize=False,
                        to="jobs.job",
                    ),
                ),
                (
                    "api_key",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tenants.apikey",
                    ),
                ),
                ("endpoint", models.CharField(max_length=100)),
                ("fingerprint", models.BinaryField(help_text="SHA-256 of the request's parsed body.", max_length=32)),
                (
                    "retry_count",
                    models.PositiveSmallIntegerField(
                        help_text="The number of the request that waits for the job, or that waited last; 0 is the"
                        " first."
                    ),
                ),
                ("requested_at", models.DateTimeField(help_text="When that request arrived.")),
            ],
            options={
                "indexes": [models.Index(fields=["api_key", "endpoint", "fingerprint"], name="client_call_by_request")],
            },
        ),
        migrations.AddField(
            model_name="job",
            name="abandoned_at",
            field=models.DateTimeField(
                help_text="When the client that waited for it disconnected, until one waits again.", null=True
            ),
        ),
    ]
