"""Budgets: since when they count, whose holds count, and which crossings are told."""

from datetime import UTC, datetime

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0009_statement_lines"),
    ]

    operations = [
        migrations.AddField(
            model_name="account",
            name="budgeted",
            field=models.BooleanField(default=False, help_text="Of `credit`: whether its tenant has budgets."),
        ),
        migrations.AddField(
            model_name="budget",
            name="counts_from",
            field=models.DateTimeField(
                default=datetime(2000, 1, 1, tzinfo=UTC),  # of no row: nothing has made budgets before
                help_text="The beginning of the month in which it was made.",
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="budgetcrossing",
            name="mailed_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="budgetcrossing",
            name="told_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddIndex(
            model_name="budgetcrossing",
            index=models.Index(
                condition=models.Q(("told_at__isnull", True), ("mailed_at__isnull", True), _connector="OR"),
                fields=["at"],
                name="budget_crossing_due",
            ),
        ),
        # Nothing that is kept between requests has a budget in it.
        migrations.RunSQL(
            "DROP TRIGGER billing_budget_configured ON billing_budget;",
            "CREATE TRIGGER billing_budget_configured AFTER INSERT OR UPDATE OR DELETE ON billing_budget"
            " FOR EACH STATEMENT EXECUTE FUNCTION tenants_count_configuration_change();",
        ),
    ]
