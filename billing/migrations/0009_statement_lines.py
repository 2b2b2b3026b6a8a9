"""What a statement line sums, and the statement that an adjustment was made for."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0008_finance_rules"),
    ]

    operations = [
        migrations.AddField(
            model_name="adjustment",
            name="statement",
            field=models.ForeignKey(
                blank=True,
                help_text="The one that it was made for; without one, that of the month in which it was made.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.statement",
            ),
        ),
        migrations.AddField(
            model_name="statementline",
            name="discount",
            field=models.DecimalField(decimal_places=6, default=0, max_digits=7),
        ),
        migrations.AddField(
            model_name="statementline",
            name="kind",
            field=models.CharField(default="usage", help_text="Of its charges, or of the adjustment.", max_length=10),
        ),
        migrations.AddField(
            model_name="statementline",
            name="rate",
            field=models.ForeignKey(
                blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="billing.rate"
            ),
        ),
    ]
