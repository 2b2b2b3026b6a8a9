"""Sums of jobs that ended, by the day, which take in every job exactly once: see `DailyJobs`."""

from typing import Any

import django.db.models.deletion
from django.db import migrations, models

# Of billing's 0012: who writes into a day holds it shared, who seals it holds it alone.
_LOCK = 1_163_088_716
_COLUMNS = (
    "day, tenant_id, project_id, pool, model, model_version, quality, tier, resolution, state, seconds, jobs, images"
)
_GROUP = """(job.finished_at AT TIME ZONE 'UTC')::date, job.tenant_id, job.project_id, pool.slug, model.name,
               model.name || '@' || version.number, job.quality, job.tier, job.width || 'x' || job.height, job.state,
               generation_step_of_ten(extract(epoch FROM job.finished_at - job.created_at))"""
_NAMES = """JOIN registry_pool pool ON pool.id = job.pool_id
          JOIN registry_modelversion version ON version.id = job.model_version_id
          JOIN registry_model model ON model.id = version.model_id"""


def _sums(condition: str) -> str:
    return f"""
        INSERT INTO generation_dailyjobs ({_COLUMNS})
        SELECT {_GROUP}, count(*), sum(job.n)
          FROM generation_job job
          {_NAMES}
         -- As the index is: by version, then by the end.
         WHERE job.model_version_id = ANY(ARRAY(SELECT id FROM registry_modelversion)) AND {condition}
         GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;"""


STATES = [
    (state, state.capitalize())
    for state in ("queued", "dispatched", "running", "succeeded", "failed", "canceled", "expired")
]
TIERS = [("fast", "small images and low quality"), ("hd", "large images and high quality")]
FORWARD = f"""
-- The nearest of ten steps in each power of ten: 1, 1.259, 1.585 ...
CREATE FUNCTION generation_step_of_ten(seconds numeric) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN seconds < 0.01 THEN 0 ELSE round(power(10, round(log(seconds::float8) * 10) / 10)::numeric, 3) END
$$;

-- A job that ends on a day that is sealed adds itself. Run at the commit, so that no lock is waited for under the day's.
CREATE FUNCTION generation_add_up_job() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE ended date := (NEW.finished_at AT TIME ZONE 'UTC')::date;
BEGIN
    IF ended > (SELECT max(day) FROM billing_costday) THEN
        PERFORM pg_advisory_xact_lock_shared({_LOCK}, ended - date '2000-01-01');
    END IF;
    -- Asked anew, by a snapshot from after the lock: it may have been sealed meanwhile.
    IF ended <= (SELECT max(day) FROM billing_costday) THEN
        INSERT INTO generation_dailyjobs ({_COLUMNS})
        SELECT {_GROUP}, 1, job.n
          FROM (SELECT NEW.*) job
          {_NAMES};
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER generation_job_ended AFTER UPDATE ON generation_job DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION generation_add_up_job();
CREATE CONSTRAINT TRIGGER generation_job_made_ended AFTER INSERT ON generation_job DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.finished_at IS NOT NULL) EXECUTE FUNCTION generation_add_up_job();

-- Who seals a day (`billing_seal_day`) holds it alone, and so has seen all who ended a job on it.
CREATE FUNCTION generation_add_up_day() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {
    _sums(
        "job.finished_at >= NEW.day::timestamp AT TIME ZONE 'UTC'"
        " AND job.finished_at < (NEW.day + 1)::timestamp AT TIME ZONE 'UTC'"
    )
}
    RETURN NULL;
END $$;
CREATE TRIGGER generation_day_added_up AFTER INSERT ON billing_costday
    FOR EACH ROW EXECUTE FUNCTION generation_add_up_day();

{_sums("job.finished_at < (SELECT (max(day) + 1)::timestamp AT TIME ZONE 'UTC' FROM billing_costday)")}

CREATE TRIGGER generation_dailyjobs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON generation_dailyjobs
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
"""

BACKWARD = """
DROP TRIGGER generation_day_added_up ON billing_costday;
DROP TRIGGER generation_job_ended ON generation_job;
DROP TRIGGER generation_job_made_ended ON generation_job;
DROP FUNCTION generation_add_up_day, generation_add_up_job, generation_step_of_ten;
"""


def _of(model: str) -> Any:
    return models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to=model)


class Migration(migrations.Migration):
    dependencies = [
        ("generation", "0013_deleted_jobs"),
        ("billing", "0012_daily_costs"),
        ("registry", "0009_worker_days_cost"),
        ("tenants", "0009_scope_billing"),
    ]

    operations = [
        migrations.CreateModel(
            name="DailyJobs",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField(help_text="On which they ended, in UTC.")),
                ("pool", models.CharField(max_length=40)),
                ("model", models.CharField(max_length=100)),
                ("model_version", models.CharField(max_length=200)),
                ("quality", models.CharField(max_length=8)),
                ("tier", models.CharField(choices=TIERS, max_length=4)),
                ("resolution", models.CharField(max_length=20)),
                ("state", models.CharField(choices=STATES, max_length=10)),
                (
                    "seconds",
                    models.DecimalField(
                        decimal_places=3,
                        help_text="From the request to the end, the nearest of ten steps in each power of ten: it is for percentiles.",
                        max_digits=15,
                    ),
                ),
                ("jobs", models.PositiveIntegerField(help_text="How many it sums.")),
                ("images", models.PositiveIntegerField(help_text="How many they asked for together.")),
                ("project", _of("tenants.project")),
                ("tenant", _of("tenants.tenant")),
            ],
            options={
                "indexes": [
                    models.Index(fields=["day"], name="daily_jobs_by_day"),
                    models.Index(fields=["tenant", "day"], name="daily_jobs_by_tenant"),
                ],
            },
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
