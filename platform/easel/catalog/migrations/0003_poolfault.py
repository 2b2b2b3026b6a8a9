import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("catalog", "0002_pooloutage"),
    ]

    operations = [
        migrations.CreateModel(
            name="PoolFault",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("key", "a key that could not be used"),
                            ("report", "reports that could not be applied"),
                            ("send", "tasks that could not be sent"),
                            ("memory", "too much memory of Redis"),
                            ("connections", "too many connections to Redis"),
                        ],
                        max_length=20,
                    ),
                ),
                ("count", models.BigIntegerField(default=0)),
                ("detail", models.CharField(default="", max_length=200)),
                ("last_at", models.DateTimeField()),
                (
                    "shut_until",
                    models.DateTimeField(help_text="Until then the pool's login of Redis is off.", null=True),
                ),
                (
                    "shut_seconds",
                    models.PositiveIntegerField(default=0, help_text="Length of the latest time that it was off."),
                ),
                (
                    "pool",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="faults", to="catalog.pool"
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("pool", "kind"), name="pool_fault_one_per_kind")],
            },
        ),
    ]
