-- What the pools cost the platform, to the projects that they drew for: chargeback and showback by any label.
CREATE VIEW reporting.cost_allocation AS
WITH used AS (
         SELECT day, pool, tenant, project, department, labels,
                greatest(coalesce(sum(quantity) FILTER (WHERE meter = 'gpu_second'), 0), 0) AS gpu_seconds,
                coalesce(sum(amount_micros) FILTER (WHERE currency = 'USD'), 0)             AS charged
           FROM reporting.costs WHERE pool <> ''
          GROUP BY day, pool, tenant, project, department, labels
     ), paid AS (
         SELECT worker.day, pool.slug::text AS pool, coalesce(tenant.slug, '')::text AS owner,
                sum(worker.up_seconds)::numeric AS up_seconds, sum(worker.cost) * 1000000 AS cost
           FROM registry_workerday worker
           JOIN registry_pool pool ON pool.id = worker.pool_id
           LEFT JOIN tenants_tenant tenant ON tenant.id = pool.tenant_id
          GROUP BY worker.day, pool.slug, tenant.slug
     ), pool_day AS (
         SELECT paid.day, paid.pool, paid.owner, paid.cost,
                coalesce(sum(used.gpu_seconds), 0)                     AS gpu_seconds,
                count(*) FILTER (WHERE used.gpu_seconds > 0)           AS users,
                -- A job that began yesterday is of the day that it ended on: no day gives away more than it cost.
                paid.cost / nullif(greatest(paid.up_seconds, coalesce(sum(used.gpu_seconds), 0)), 0) AS second_cost
           FROM paid LEFT JOIN used USING (day, pool)
          GROUP BY paid.day, paid.pool, paid.owner, paid.cost, paid.up_seconds
     ), share AS (
         SELECT used.*, used.gpu_seconds * coalesce(pool_day.second_cost, 0) AS direct,
                CASE WHEN used.gpu_seconds > 0 THEN used.gpu_seconds / pool_day.gpu_seconds ELSE 0 END AS proportion,
                CASE WHEN used.gpu_seconds > 0 THEN 1.0 / pool_day.users ELSE 0 END                    AS even,
                pool_day.cost - pool_day.gpu_seconds * coalesce(pool_day.second_cost, 0)               AS rest
           FROM used JOIN pool_day USING (day, pool)
     )
SELECT policy.name AS policy, share.day, share.pool, share.tenant, share.project, share.department, share.labels,
       share.gpu_seconds, share.direct AS direct_micros,
       share.rest * CASE policy.name WHEN 'proportional' THEN share.proportion WHEN 'even' THEN share.even ELSE 0 END
                   AS shared_micros,
       share.charged AS charged_micros
  FROM share CROSS JOIN (VALUES ('proportional'), ('even'), ('none')) AS policy (name)
UNION ALL
SELECT policy.name, pool_day.day, pool_day.pool, pool_day.owner, '', '', '{}'::jsonb, 0, 0,
       pool_day.cost - pool_day.gpu_seconds * coalesce(pool_day.second_cost, 0), 0
  FROM pool_day CROSS JOIN (VALUES ('proportional'), ('even'), ('none')) AS policy (name)
 WHERE policy.name = 'none' OR pool_day.users = 0;

COMMENT ON VIEW reporting.cost_allocation IS
    'What each pool cost the platform on each day, to the projects that it drew for, once by each policy: always ask for
     one. By each, direct_micros and shared_micros sum to what the pools cost.';
COMMENT ON COLUMN reporting.cost_allocation.policy IS
    'Who bears the time that no charged job had (idle, loading, wasted attempts): proportional, by GPU seconds of the day;
     even, the same for each project that the pool drew for on the day; none, nobody: a row without a project.';
COMMENT ON COLUMN reporting.cost_allocation.day IS 'The day (UTC).';
COMMENT ON COLUMN reporting.cost_allocation.pool IS 'Slug of the pool.';
COMMENT ON COLUMN reporting.cost_allocation.tenant IS
    'Slug of the tenant; of what nobody bears, that of the pool''s owner, or empty for a shared pool.';
COMMENT ON COLUMN reporting.cost_allocation.project IS 'Slug of the project; empty for what nobody bears.';
COMMENT ON COLUMN reporting.cost_allocation.department IS 'The label department as it was at the time; empty without one.';
COMMENT ON COLUMN reporting.cost_allocation.labels IS 'All labels of the project as they were at the time, as a JSON object.';
COMMENT ON COLUMN reporting.cost_allocation.gpu_seconds IS 'GPU seconds that the project was charged.';
COMMENT ON COLUMN reporting.cost_allocation.direct_micros IS
    'Their part of what the pool cost, by its cost of a second up, in micro-USD.';
COMMENT ON COLUMN reporting.cost_allocation.shared_micros IS
    'The project''s part, by the policy, of what the rest of the day''s time cost, in micro-USD.';
COMMENT ON COLUMN reporting.cost_allocation.charged_micros IS
    'What the project was charged for the pool''s work, in micro-USD: less the two others, the margin.';
