"""Months count the jobs from before there were counts, too: a limit set in mid-month holds for the whole of it."""

from django.db import migrations

# What admission counts: every job but those that ended without an image, for its tenant and for its key.
COUNT = """
LOCK TABLE tenants_monthlyuse IN SHARE ROW EXCLUSIVE MODE;
DELETE FROM tenants_monthlyuse;
INSERT INTO tenants_monthlyuse (tenant_id, api_key_id, month, image_units)
SELECT tenant_id, api_key_id, month, SUM(units)
FROM (
    SELECT tenant_id, api_key_id, date_trunc('month', created_at AT TIME ZONE 'UTC')::date AS month,
           width::numeric * height * n / 262144 AS units
    FROM generation_job WHERE finished_at IS NULL OR state = 'succeeded'
) AS counted
GROUP BY GROUPING SETS ((tenant_id, month), (tenant_id, api_key_id, month));
"""


class Migration(migrations.Migration):
    dependencies = [
        ("generation", "0008_results_cached"),
        ("tenants", "0004_quotas_and_block_lists"),
    ]

    operations = [migrations.RunSQL(COUNT, migrations.RunSQL.noop)]
