import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("catalog", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="PoolOutage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("began_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField()),
                (
                    "pool",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="outages", to="catalog.pool"
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["pool", "ended_at"], name="outage_by_pool")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("began_at__lt", models.F("ended_at"))), name="outage_begins_before_it_ends"
                    )
                ],
            },
        ),
    ]
