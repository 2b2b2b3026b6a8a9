"""Prices by model, tier and contract; grants, budgets, adjustments, statements; corrections of usage."""

import uuid

import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0006_configured"),
        ("tenants", "0007_configuration"),
    ]

    operations = [
        migrations.CreateModel(
            name="Adjustment",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("credit", "given to the tenant"),
                            ("debit", "taken from the tenant"),
                            ("write_off", "a debt given up"),
                            ("minimum", "what a month's charges fell short of the contract's minimum"),
                            ("volume", "what a month's volume price differs from what was charged"),
                        ],
                        max_length=10,
                    ),
                ),
                ("amount_micros", models.BigIntegerField(help_text="Above zero: the tenant pays more.")),
                ("currency", models.CharField(max_length=3)),
                ("reason", models.CharField(max_length=200)),
                ("author", models.CharField(help_text="As in the audit log: `operator:ann`.", max_length=200)),
                ("created_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="BillingProfile",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="billing_profile",
                        serialize=False,
                        to="tenants.tenant",
                    ),
                ),
                ("legal_name", models.CharField(blank=True, max_length=200)),
                ("address", models.TextField(blank=True)),
                (
                    "email",
                    models.EmailField(blank=True, help_text="Where statements and budget notices go.", max_length=254),
                ),
                ("tax_id", models.CharField(blank=True, max_length=60)),
                ("tax_name", models.CharField(default="Tax", help_text="As statements show it: VAT.", max_length=40)),
                ("tax_rate", models.DecimalField(decimal_places=6, default=0, help_text="0.19 is 19 %.", max_digits=7)),
                (
                    "time_zone",
                    models.CharField(
                        default="UTC",
                        help_text="Of months and statements; a change holds from the next one on.",
                        max_length=60,
                    ),
                ),
                ("updated_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Budget",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ("amount_micros", models.BigIntegerField()),
                ("currency", models.CharField(max_length=3)),
                ("hard_stop", models.BooleanField(default=False, help_text="Refuse what would go over it.")),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="BudgetCrossing",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("percent", models.PositiveSmallIntegerField()),
                ("spent_micros", models.BigIntegerField()),
                ("at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="BudgetHold",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("reference", models.UUIDField(db_index=True, help_text="The job's id.")),
                ("amount_micros", models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="BudgetMonth",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("month", models.DateField(help_text="Its first day.")),
                ("spent_micros", models.BigIntegerField(default=0)),
                ("held_micros", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Contract",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                (
                    "discount",
                    models.DecimalField(decimal_places=6, default=0, help_text="0.1 takes a tenth off.", max_digits=7),
                ),
                ("minimum_micros", models.BigIntegerField(default=0, help_text="A month's charges are at least this.")),
                ("starts_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="CreditDraw",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("amount_micros", models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="CreditGrant",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                (
                    "category",
                    models.CharField(
                        choices=[
                            ("paid", "bought"),
                            ("promotional", "given away"),
                            ("refund", "given back: a correction or an adjustment"),
                        ],
                        default="paid",
                        max_length=12,
                    ),
                ),
                ("priority", models.SmallIntegerField(default=50, help_text="0 is spent first, 100 last.")),
                ("currency", models.CharField(max_length=3)),
                ("amount_micros", models.BigIntegerField()),
                ("remaining_micros", models.BigIntegerField()),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="MonthlyQuantity",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("month", models.DateField(help_text="Its first day.")),
                ("quantity", models.DecimalField(decimal_places=15, default=0, max_digits=38)),
            ],
        ),
        migrations.CreateModel(
            name="RateTier",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("above", models.DecimalField(decimal_places=15, max_digits=38)),
                ("unit_price", models.DecimalField(decimal_places=15, max_digits=30)),
            ],
            options={
                "ordering": ["above"],
            },
        ),
        migrations.CreateModel(
            name="Statement",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                (
                    "kind",
                    models.CharField(
                        choices=[("statement", "Statement"), ("credit_note", "credit note")],
                        default="statement",
                        max_length=12,
                    ),
                ),
                (
                    "state",
                    models.CharField(choices=[("draft", "Draft"), ("final", "Final")], default="draft", max_length=5),
                ),
                (
                    "number",
                    models.PositiveBigIntegerField(
                        help_text="Without gaps, of final documents.", null=True, unique=True
                    ),
                ),
                ("currency", models.CharField(max_length=3)),
                ("time_zone", models.CharField(max_length=60)),
                ("period_start", models.DateTimeField()),
                ("period_end", models.DateTimeField()),
                ("billed_to", models.JSONField(default=dict, help_text="Name, address and tax id as they were.")),
                ("tax_name", models.CharField(default="Tax", max_length=40)),
                ("tax_rate", models.DecimalField(decimal_places=6, default=0, max_digits=7)),
                ("subtotal_micros", models.BigIntegerField(default=0)),
                ("tax_micros", models.BigIntegerField(default=0)),
                ("total_micros", models.BigIntegerField(default=0)),
                ("made_at", models.DateTimeField()),
                ("finalised_at", models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name="StatementLine",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.PositiveIntegerField()),
                ("meter", models.CharField(blank=True, help_text="Empty for an adjustment.", max_length=20)),
                ("model", models.CharField(blank=True, max_length=100)),
                ("description", models.CharField(max_length=300)),
                ("quantity", models.DecimalField(decimal_places=15, max_digits=38, null=True)),
                ("charges", models.PositiveIntegerField(default=0, help_text="How many it sums.")),
                ("amount_micros", models.BigIntegerField()),
            ],
            options={
                "ordering": ["position"],
            },
        ),
        migrations.CreateModel(
            name="StatementSequence",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("last", models.PositiveBigIntegerField(default=0)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="account",
            name="account_unique",
        ),
        migrations.RemoveConstraint(
            model_name="account",
            name="account_not_overdrawn",
        ),
        migrations.RemoveConstraint(
            model_name="account",
            name="receivable_is_owed",
        ),
        migrations.RemoveConstraint(
            model_name="charge",
            name="charge_sign",
        ),
        migrations.RemoveConstraint(
            model_name="pricebook",
            name="price_book_version_unique",
        ),
        migrations.RemoveConstraint(
            model_name="pricebook",
            name="price_book_effective_at_unique",
        ),
        migrations.RemoveConstraint(
            model_name="rate",
            name="rate_unique_in_book",
        ),
        migrations.RemoveConstraint(
            model_name="rate",
            name="rate_gpu_class_of_gpu_seconds_only",
        ),
        migrations.RemoveConstraint(
            model_name="usagerecord",
            name="usage_not_negative",
        ),
        migrations.AddField(
            model_name="account",
            name="credit_limit_micros",
            field=models.BigIntegerField(default=0, help_text="How far `credit` may go below zero."),
        ),
        migrations.AddField(
            model_name="account",
            name="meter",
            field=models.CharField(
                blank=True, help_text="Of revenue; empty before it was kept by meter.", max_length=20
            ),
        ),
        migrations.AddField(
            model_name="charge",
            name="discount",
            field=models.DecimalField(decimal_places=6, default=0, max_digits=7),
        ),
        migrations.AddField(
            model_name="charge",
            name="list_micros",
            field=models.BigIntegerField(help_text="By the list's prices; None before they were kept.", null=True),
        ),
        migrations.AddField(
            model_name="charge",
            name="used_before",
            field=models.DecimalField(
                decimal_places=15, default=0, help_text="Of the rate in the month, where it has tiers.", max_digits=38
            ),
        ),
        migrations.AddField(
            model_name="pricebook",
            name="tenant",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="price_books",
                to="tenants.tenant",
            ),
        ),
        migrations.AddField(
            model_name="rate",
            name="mode",
            field=models.CharField(
                choices=[
                    ("flat", "every unit at the same price"),
                    ("graduated", "units of the month above a tier's beginning at that tier's price"),
                    ("volume", "all units of the month at the price of the tier that their sum reaches"),
                ],
                default="flat",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="rate",
            name="model",
            field=models.CharField(blank=True, help_text="Empty: any model without its own rate.", max_length=100),
        ),
        migrations.AddField(
            model_name="rate",
            name="tier",
            field=models.CharField(blank=True, help_text="Empty: any tier without its own rate.", max_length=10),
        ),
        migrations.AddField(
            model_name="usagerecord",
            name="corrects",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="corrections",
                to="billing.usagerecord",
            ),
        ),
        migrations.AddField(
            model_name="usagerecord",
            name="reason",
            field=models.CharField(blank=True, help_text="Of a correction.", max_length=200),
        ),
        migrations.AddField(
            model_name="usagerecord",
            name="source",
            field=models.CharField(default="completion", help_text="What measured it.", max_length=40),
        ),
        migrations.AlterField(
            model_name="account",
            name="kind",
            field=models.CharField(
                choices=[
                    ("funding", "where credit comes from"),
                    ("credit", "what the tenant can spend; below zero, down to its limit, what it owes on account"),
                    ("held", "what is reserved for jobs not settled yet"),
                    ("revenue", "what was earned, by meter"),
                    ("receivable", "what the tenant owes beyond its limit, below zero: the next grant pays it first"),
                    ("adjustments", "what was given or taken by hand"),
                    ("expired", "credit that ran out unspent"),
                    ("tax", "taxes on final statements"),
                    ("write_off", "debts given up"),
                ],
                max_length=20,
            ),
        ),
        migrations.AlterField(
            model_name="charge",
            name="kind",
            field=models.CharField(
                choices=[
                    ("usage", "quantity times price"),
                    ("cap", "what is let off because the job cost more than was held for it"),
                    ("correction", "the difference that a correction of the usage makes"),
                ],
                default="usage",
                max_length=10,
            ),
        ),
        migrations.AlterField(
            model_name="rate",
            name="meter",
            field=models.CharField(
                choices=[
                    ("gpu_second", "GPU seconds"),
                    ("pool_second", "seconds of a dedicated pool's workers, idle ones too"),
                    ("image_unit", "image units of 512x512 pixels"),
                    ("request", "successful requests"),
                    ("cache_hit", "requests answered from the result cache"),
                    ("storage_gb_second", "GB (10^9 bytes) kept for a second"),
                    ("egress_gb", "GB (10^9 bytes) of images sent out"),
                ],
                max_length=20,
            ),
        ),
        migrations.AlterField(
            model_name="rate",
            name="unit_price",
            field=models.DecimalField(
                decimal_places=15, help_text="Up to the first tier, if there are any.", max_digits=30
            ),
        ),
        migrations.AlterField(
            model_name="transaction",
            name="kind",
            field=models.CharField(
                choices=[
                    ("grant", "credit given"),
                    ("hold", "credit reserved"),
                    ("post", "a hold settled: charged, and the rest returned"),
                    ("void", "a hold returned whole"),
                    ("charge", "charged without a hold: from credit as far as it goes, the rest is owed"),
                    ("correct", "the difference that a correction of usage makes"),
                    ("adjust", "given or taken by hand"),
                    ("expire", "credit that ran out unspent"),
                    ("tax", "the tax of a final statement"),
                    ("write_off", "a debt given up"),
                ],
                max_length=10,
            ),
        ),
        migrations.AlterField(
            model_name="usagerecord",
            name="job_id",
            field=models.UUIDField(db_index=True, help_text="None for storage and pools.", null=True),
        ),
        migrations.AlterField(
            model_name="usagerecord",
            name="meter",
            field=models.CharField(
                choices=[
                    ("gpu_second", "GPU seconds"),
                    ("pool_second", "seconds of a dedicated pool's workers, idle ones too"),
                    ("image_unit", "image units of 512x512 pixels"),
                    ("request", "successful requests"),
                    ("cache_hit", "requests answered from the result cache"),
                    ("storage_gb_second", "GB (10^9 bytes) kept for a second"),
                    ("egress_gb", "GB (10^9 bytes) of images sent out"),
                ],
                max_length=20,
            ),
        ),
        migrations.AddIndex(
            model_name="usagerecord",
            index=models.Index(fields=["occurred_at"], name="usage_by_time"),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.UniqueConstraint(fields=("tenant", "kind", "meter", "currency"), name="account_unique"),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("kind__in", ["held", "expired"]), _negated=True),
                    ("balance_micros__gte", 0),
                    _connector="OR",
                ),
                name="account_not_overdrawn",
            ),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("kind", "credit"), _negated=True),
                    (
                        "balance_micros__gte",
                        django.db.models.expressions.CombinedExpression(
                            models.F("credit_limit_micros"), "*", models.Value(-1)
                        ),
                    ),
                    _connector="OR",
                ),
                name="credit_within_its_limit",
            ),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("credit_limit_micros", 0),
                    models.Q(("credit_limit_micros__gt", 0), ("kind", "credit")),
                    _connector="OR",
                ),
                name="account_limit_of_credit_only",
            ),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=models.Q(("meter", ""), ("kind", "revenue"), _connector="OR"),
                name="account_meter_of_revenue_only",
            ),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("kind__in", ["receivable", "write_off"]), _negated=True),
                    ("balance_micros__lte", 0),
                    _connector="OR",
                ),
                name="receivable_is_owed",
            ),
        ),
        migrations.AddConstraint(
            model_name="pricebook",
            constraint=models.UniqueConstraint(
                fields=("tenant", "currency", "version"), name="price_book_version_unique", nulls_distinct=False
            ),
        ),
        migrations.AddConstraint(
            model_name="pricebook",
            constraint=models.UniqueConstraint(
                fields=("tenant", "currency", "effective_at"),
                name="price_book_effective_at_unique",
                nulls_distinct=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="rate",
            constraint=models.UniqueConstraint(
                fields=("price_book", "meter", "gpu_class", "model", "tier"), name="rate_unique_in_book"
            ),
        ),
        migrations.AddConstraint(
            model_name="rate",
            constraint=models.CheckConstraint(
                condition=models.Q(("meter__in", ["gpu_second", "pool_second"]), ("gpu_class", ""), _connector="OR"),
                name="rate_gpu_class_of_gpu_seconds_only",
            ),
        ),
        migrations.AddConstraint(
            model_name="rate",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("meter__in", ["pool_second", "storage_gb_second"]), _negated=True),
                    models.Q(("model", ""), ("tier", "")),
                    _connector="OR",
                ),
                name="rate_model_of_jobs_only",
            ),
        ),
        migrations.AddConstraint(
            model_name="usagerecord",
            constraint=models.CheckConstraint(
                condition=models.Q(("quantity__gte", 0), ("corrects__isnull", False), _connector="OR"),
                name="usage_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="usagerecord",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("corrects__isnull", True), models.Q(("reason", ""), _negated=True), _connector="OR"
                ),
                name="usage_correction_has_a_reason",
            ),
        ),
        migrations.AddField(
            model_name="adjustment",
            name="charge",
            field=models.ForeignKey(
                blank=True,
                help_text="Disputed.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="adjustments",
                to="billing.charge",
            ),
        ),
        migrations.AddField(
            model_name="adjustment",
            name="project",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="tenants.project",
            ),
        ),
        migrations.AddField(
            model_name="adjustment",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="adjustments", to="tenants.tenant"
            ),
        ),
        migrations.AddField(
            model_name="adjustment",
            name="transaction",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.PROTECT, related_name="adjustment", to="billing.transaction"
            ),
        ),
        migrations.AddConstraint(
            model_name="billingprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(("tax_rate__gte", 0), ("tax_rate__lte", 1)), name="tax_rate_in_range"
            ),
        ),
        migrations.AddField(
            model_name="budget",
            name="api_key",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="budgets",
                to="tenants.apikey",
            ),
        ),
        migrations.AddField(
            model_name="budget",
            name="project",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="budgets",
                to="tenants.project",
            ),
        ),
        migrations.AddField(
            model_name="budget",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="budgets", to="tenants.tenant"
            ),
        ),
        migrations.AddField(
            model_name="budgetmonth",
            name="budget",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="months", to="billing.budget"
            ),
        ),
        migrations.AddField(
            model_name="budgethold",
            name="budget_month",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="holds", to="billing.budgetmonth"
            ),
        ),
        migrations.AddField(
            model_name="budgetcrossing",
            name="budget_month",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="crossings", to="billing.budgetmonth"
            ),
        ),
        migrations.AddField(
            model_name="contract",
            name="price_book",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.pricebook",
            ),
        ),
        migrations.AddField(
            model_name="contract",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="contracts", to="tenants.tenant"
            ),
        ),
        migrations.AddField(
            model_name="charge",
            name="contract",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.contract",
            ),
        ),
        migrations.AddField(
            model_name="creditdraw",
            name="transaction",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="draws", to="billing.transaction"
            ),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="credit_grants", to="tenants.tenant"
            ),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="transaction",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.PROTECT, related_name="credit_grant", to="billing.transaction"
            ),
        ),
        migrations.AddField(
            model_name="creditdraw",
            name="grant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="draws", to="billing.creditgrant"
            ),
        ),
        migrations.AddField(
            model_name="monthlyquantity",
            name="rate",
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to="billing.rate"),
        ),
        migrations.AddField(
            model_name="monthlyquantity",
            name="tenant",
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenants.tenant"),
        ),
        migrations.AddField(
            model_name="ratetier",
            name="rate",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="tiers", to="billing.rate"
            ),
        ),
        migrations.AddField(
            model_name="statement",
            name="corrects",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="credit_notes",
                to="billing.statement",
            ),
        ),
        migrations.AddField(
            model_name="statement",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="statements", to="tenants.tenant"
            ),
        ),
        migrations.AddField(
            model_name="charge",
            name="statement",
            field=models.ForeignKey(
                blank=True,
                help_text="A credit note.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.statement",
            ),
        ),
        migrations.AddConstraint(
            model_name="charge",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("amount_micros__gte", 0), ("kind", "usage")),
                    models.Q(("amount_micros__lt", 0), ("kind", "cap")),
                    ("kind", "correction"),
                    _connector="OR",
                ),
                name="charge_sign",
            ),
        ),
        migrations.AddField(
            model_name="statementline",
            name="project",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="tenants.project",
            ),
        ),
        migrations.AddField(
            model_name="statementline",
            name="statement",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="lines", to="billing.statement"
            ),
        ),
        migrations.AddIndex(
            model_name="adjustment",
            index=models.Index(fields=["tenant", "created_at"], name="adjustment_by_tenant"),
        ),
        migrations.AddConstraint(
            model_name="adjustment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("amount_micros", 0), _negated=True), models.Q(("reason", ""), _negated=True)
                ),
                name="adjustment_says_why",
            ),
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.UniqueConstraint(
                fields=("tenant", "project", "api_key"), name="budget_one_per_holder", nulls_distinct=False
            ),
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.CheckConstraint(
                condition=models.Q(("project__isnull", True), ("api_key__isnull", True), _connector="OR"),
                name="budget_of_a_project_or_a_key",
            ),
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount_micros__gte", 0)), name="budget_not_negative"
            ),
        ),
        migrations.AddConstraint(
            model_name="budgetmonth",
            constraint=models.UniqueConstraint(fields=("budget", "month"), name="budget_month_unique"),
        ),
        migrations.AddConstraint(
            model_name="budgetmonth",
            constraint=models.CheckConstraint(
                condition=models.Q(("held_micros__gte", 0)), name="budget_held_not_negative"
            ),
        ),
        migrations.AddConstraint(
            model_name="budgethold",
            constraint=models.UniqueConstraint(fields=("reference", "budget_month"), name="budget_hold_once"),
        ),
        migrations.AddConstraint(
            model_name="budgetcrossing",
            constraint=models.UniqueConstraint(fields=("budget_month", "percent"), name="budget_crossing_once"),
        ),
        migrations.AddConstraint(
            model_name="contract",
            constraint=models.CheckConstraint(
                condition=models.Q(("discount__gte", 0), ("discount__lte", 1)), name="contract_discount_in_range"
            ),
        ),
        migrations.AddConstraint(
            model_name="contract",
            constraint=models.CheckConstraint(
                condition=models.Q(("minimum_micros__gte", 0)), name="contract_minimum_not_negative"
            ),
        ),
        migrations.AddConstraint(
            model_name="contract",
            constraint=models.CheckConstraint(
                condition=models.Q(("ends_at__isnull", True), ("ends_at__gt", models.F("starts_at")), _connector="OR"),
                name="contract_ends_after_start",
            ),
        ),
        migrations.AddIndex(
            model_name="creditgrant",
            index=models.Index(
                condition=models.Q(("remaining_micros__gt", 0)),
                fields=["tenant", "priority", "expires_at", "created_at"],
                name="credit_grant_to_spend",
            ),
        ),
        migrations.AddIndex(
            model_name="creditgrant",
            index=models.Index(
                condition=models.Q(("expires_at__isnull", False), ("remaining_micros__gt", 0)),
                fields=["expires_at"],
                name="credit_grant_to_expire",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("amount_micros__gt", 0),
                    ("remaining_micros__gte", 0),
                    ("remaining_micros__lte", models.F("amount_micros")),
                ),
                name="credit_grant_in_range",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(("priority__gte", 0), ("priority__lte", 100)), name="credit_grant_priority_in_range"
            ),
        ),
        migrations.AddConstraint(
            model_name="creditdraw",
            constraint=models.UniqueConstraint(fields=("transaction", "grant"), name="credit_draw_once"),
        ),
        migrations.AddConstraint(
            model_name="creditdraw",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount_micros__gt", 0)), name="credit_draw_not_empty"
            ),
        ),
        migrations.AddConstraint(
            model_name="monthlyquantity",
            constraint=models.UniqueConstraint(fields=("tenant", "rate", "month"), name="monthly_quantity_unique"),
        ),
        migrations.AddConstraint(
            model_name="ratetier",
            constraint=models.UniqueConstraint(fields=("rate", "above"), name="rate_tier_unique"),
        ),
        migrations.AddConstraint(
            model_name="ratetier",
            constraint=models.CheckConstraint(
                condition=models.Q(("above__gt", 0), ("unit_price__gte", 0)), name="rate_tier_in_range"
            ),
        ),
        migrations.AddIndex(
            model_name="statement",
            index=models.Index(fields=["tenant", "-period_start"], name="statement_by_tenant"),
        ),
        migrations.AddConstraint(
            model_name="statement",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind", "statement")),
                fields=("tenant", "period_start"),
                name="statement_once_per_period",
            ),
        ),
        migrations.AddConstraint(
            model_name="statement",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind", "statement")), fields=("tenant", "period_end"), name="statement_ends_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="statement",
            constraint=models.CheckConstraint(
                condition=models.Q(("period_end__gt", models.F("period_start"))), name="statement_period_not_empty"
            ),
        ),
        migrations.AddConstraint(
            model_name="statement",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("finalised_at__isnull", False), ("number__isnull", False), ("state", "final")),
                    models.Q(("finalised_at__isnull", True), ("number__isnull", True), ("state", "draft")),
                    _connector="OR",
                ),
                name="statement_numbered_iff_final",
            ),
        ),
        migrations.AddConstraint(
            model_name="statement",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("corrects__isnull", False), ("kind", "credit_note")),
                    models.Q(("corrects__isnull", True), ("kind", "statement")),
                    _connector="OR",
                ),
                name="credit_note_corrects_a_statement",
            ),
        ),
        migrations.AddConstraint(
            model_name="statement",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "total_micros",
                        django.db.models.expressions.CombinedExpression(
                            models.F("subtotal_micros"), "+", models.F("tax_micros")
                        ),
                    )
                ),
                name="statement_adds_up",
            ),
        ),
        migrations.AddConstraint(
            model_name="statementline",
            constraint=models.UniqueConstraint(fields=("statement", "position"), name="statement_line_position_unique"),
        ),
    ]
