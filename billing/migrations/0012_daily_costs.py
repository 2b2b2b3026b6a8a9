"""Sums of charges by the day, which take in every charge exactly once: see `billing.models.costs`."""

from decimal import Decimal

import django.db.models.deletion
from django.db import migrations, models

# The first of the two numbers of an advisory lock; the second is the day's.
_LOCK = 1_163_088_716
_COLUMNS = """day, booked_at, tenant_id, project_id, labels, pool, model, model_version, adapter, quality, tier, resolution,
        api_key, gpu_class, storage_kind, meter, kind, rate_id, contract_id, discount, statement_id, currency,
        quantity, amount_micros, list_micros, charges"""


def _sums(charges: str, condition: str) -> str:
    return f"""
        INSERT INTO billing_dailycost ({_COLUMNS})
        SELECT (record.occurred_at AT TIME ZONE 'UTC')::date,
               -- A month begins between 10:00 of the last and 12:00 of the first day of one in UTC, by the quarter hour.
               CASE WHEN extract(day FROM charge.created_at AT TIME ZONE 'UTC') = 1
                      OR extract(day FROM (charge.created_at + interval '24 hours') AT TIME ZONE 'UTC') = 1
                    THEN date_bin('15 minutes', charge.created_at, '2000-01-01T00:00Z')
                    ELSE date_trunc('day', charge.created_at, 'UTC') END,
               record.tenant_id, record.project_id, record.dimensions -> 'labels',
               coalesce(record.dimensions ->> 'pool', ''), coalesce(record.dimensions ->> 'model', ''),
               coalesce(record.dimensions ->> 'model_version', ''), coalesce(record.dimensions ->> 'adapter', ''),
               coalesce(record.dimensions ->> 'quality', ''), coalesce(record.dimensions ->> 'tier', ''),
               coalesce(record.dimensions ->> 'resolution', ''), coalesce(record.dimensions ->> 'api_key', ''),
               coalesce(record.dimensions ->> 'gpu_class', ''), coalesce(record.dimensions ->> 'kind', ''),
               record.meter, charge.kind, charge.rate_id, charge.contract_id, charge.discount, charge.statement_id,
               charge.currency,
               sum(CASE charge.kind WHEN 'cap' THEN 0 ELSE record.quantity END), sum(charge.amount_micros),
               sum(coalesce(charge.list_micros, charge.amount_micros)), count(*)
          FROM {charges} charge JOIN billing_usagerecord record ON record.id = charge.usage_record_id
         WHERE {condition}
         GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22;"""


FORWARD = f"""
-- Until the newest day that is sealed, charges add themselves. Its days are sealed in order, so one date says it all.
CREATE FUNCTION billing_add_up() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE written date;
BEGIN
    FOR written IN SELECT DISTINCT (created_at AT TIME ZONE 'UTC')::date FROM added ORDER BY 1 LOOP
        IF written > (SELECT max(day) FROM billing_costday) THEN
            PERFORM pg_advisory_xact_lock_shared({_LOCK}, written - date '2000-01-01');
        END IF;
        -- Asked anew, by a snapshot from after the lock: it may have been sealed meanwhile.
        IF written <= (SELECT max(day) FROM billing_costday) THEN
            {_sums("added", "(charge.created_at AT TIME ZONE 'UTC')::date = written")}
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER billing_charge_added_up AFTER INSERT ON billing_charge
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION billing_add_up();

-- Adds up the charges of a day, once; true when it did. Waits for those who wrote some and have not committed.
CREATE FUNCTION billing_seal_day(sealed date, at timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE newest date;
BEGIN
    PERFORM pg_advisory_xact_lock({_LOCK}, sealed - date '2000-01-01');
    newest := (SELECT max(day) FROM billing_costday);
    IF sealed <= newest THEN
        RETURN false;
    ELSIF sealed > newest + 1 THEN
        RAISE EXCEPTION 'days are sealed in order: % is next', newest + 1 USING ERRCODE = 'restrict_violation';
    END IF;
    INSERT INTO billing_costday VALUES (sealed, at);
    {
    _sums(
        "billing_charge",
        "charge.created_at >= sealed::timestamp AT TIME ZONE 'UTC'"
        " AND charge.created_at < (sealed + 1)::timestamp AT TIME ZONE 'UTC'",
    )
}
    RETURN true;
END $$;

INSERT INTO billing_costday
SELECT coalesce((min(created_at) AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date) - 1, now()
  FROM billing_charge;
""" + "".join(
    f"""
CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
"""
    for table in ("billing_costday", "billing_dailycost")
)

BACKWARD = """
DROP TRIGGER billing_charge_added_up ON billing_charge;
DROP FUNCTION billing_add_up, billing_seal_day;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0011_corrected_caps"),
        ("tenants", "0009_scope_billing"),
    ]

    operations = [
        migrations.CreateModel(
            name="CostDay",
            fields=[
                ("day", models.DateField(primary_key=True, serialize=False)),
                ("sealed_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="DailyCost",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField(help_text="On which it was used, in UTC.")),
                (
                    "booked_at",
                    models.DateTimeField(
                        help_text="The beginning of the day (UTC) in which the charges were written; on the last and the first day of a month, of the quarter hour, since a statement may end at any of those in its time zone."
                    ),
                ),
                (
                    "labels",
                    models.JSONField(help_text="The project's at the time; None before they were kept.", null=True),
                ),
                ("pool", models.CharField(blank=True, max_length=40)),
                ("model", models.CharField(blank=True, max_length=100)),
                ("model_version", models.CharField(blank=True, max_length=200)),
                ("adapter", models.TextField(blank=True)),
                ("quality", models.CharField(blank=True, max_length=20)),
                ("tier", models.CharField(blank=True, max_length=10)),
                ("resolution", models.CharField(blank=True, max_length=20)),
                ("api_key", models.CharField(blank=True, max_length=20)),
                ("gpu_class", models.CharField(blank=True, max_length=40)),
                ("storage_kind", models.CharField(blank=True, max_length=10)),
                ("meter", models.CharField(max_length=20)),
                ("kind", models.CharField(max_length=10)),
                ("discount", models.DecimalField(decimal_places=6, default=Decimal("0"), max_digits=7)),
                ("currency", models.CharField(max_length=3)),
                (
                    "quantity",
                    models.DecimalField(decimal_places=15, help_text="0 of a cap, whose usage has it.", max_digits=38),
                ),
                ("amount_micros", models.BigIntegerField()),
                (
                    "list_micros",
                    models.BigIntegerField(help_text="By the list's prices; the amount where those were not kept."),
                ),
                ("charges", models.PositiveIntegerField(help_text="How many it sums.")),
                (
                    "contract",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="billing.contract"
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenants.project"
                    ),
                ),
                (
                    "rate",
                    models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to="billing.rate"),
                ),
                (
                    "statement",
                    models.ForeignKey(
                        help_text="A credit note.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.statement",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenants.tenant"
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["day"], name="daily_cost_by_day"),
                    models.Index(fields=["tenant", "day"], name="daily_cost_by_tenant"),
                    models.Index(fields=["tenant", "booked_at"], name="daily_cost_by_booking"),
                ],
            },
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
