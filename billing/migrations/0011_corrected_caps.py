"""A correction may take back what was let off."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0010_budgets"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="charge",
            name="charge_sign",
        ),
        migrations.AlterField(
            model_name="charge",
            name="kind",
            field=models.CharField(
                choices=[
                    ("usage", "quantity times price"),
                    (
                        "cap",
                        "what is let off because the job cost more than was held; of a correction, what no longer is",
                    ),
                    ("correction", "the difference that a correction of the usage makes"),
                ],
                default="usage",
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="charge",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("amount_micros__gte", 0), ("kind", "usage")),
                    models.Q(("kind", "cap"), models.Q(("amount_micros", 0), _negated=True)),
                    ("kind", "correction"),
                    _connector="OR",
                ),
                name="charge_sign",
            ),
        ),
    ]
