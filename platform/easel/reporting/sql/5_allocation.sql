-- What the pools cost the platform, to the projects that they drew for: chargeback and showback by any label.
-- A union with sums over each day's pool, and each part read once, so that a condition on the day reaches all of it.
-- Costs are summed before they get their names: those are compared and joined once for each project and day.
CREATE VIEW reporting.cost_allocation AS
WITH side AS (
         SELECT day, pool, tenant.slug::text AS tenant, project.slug::text AS project,
                coalesce(used.labels ->> 'department', '') AS department, used.labels, false AS is_pool,
                gpu_seconds, charged, 0::numeric AS up_seconds, 0::numeric AS cost
           FROM (SELECT day, pool, tenant_id, project_id, labels,
                        greatest(coalesce(sum(quantity) FILTER (WHERE meter = 'gpu_second'), 0), 0) AS gpu_seconds,
                        coalesce(sum(amount_micros) FILTER (WHERE currency = 'USD'), 0)             AS charged
                   FROM reporting.costs WHERE pool <> ''
                  GROUP BY day, pool, tenant_id, project_id, labels) used
           JOIN tenants_tenant tenant ON tenant.id = used.tenant_id
           JOIN tenants_project project ON project.id = used.project_id
         UNION ALL
         SELECT worker.day, pool.slug::text, coalesce(tenant.slug, '')::text, '', '', '{}'::jsonb, true,
                0, 0, sum(worker.up_seconds)::numeric, sum(worker.cost) * 1000000
           FROM catalog_workerday worker
           JOIN catalog_pool pool ON pool.id = worker.pool_id
           LEFT JOIN tenants_tenant tenant ON tenant.id = pool.tenant_id
          GROUP BY worker.day, pool.slug, tenant.slug
     ), pool_day AS (
         SELECT side.*,
                bool_or(is_pool) OVER whole                      AS is_paid,
                sum(cost) OVER whole                             AS pool_cost,
                sum(gpu_seconds) OVER whole                      AS pool_gpu_seconds,
                count(*) FILTER (WHERE gpu_seconds > 0) OVER whole AS users,
                -- A job that began yesterday is of the day that it ended on: no day gives away more than it cost.
                coalesce(sum(cost) OVER whole
                         / nullif(greatest(sum(up_seconds) OVER whole, sum(gpu_seconds) OVER whole), 0), 0) AS second_cost
           FROM side WINDOW whole AS (PARTITION BY day, pool)
     )
SELECT policy.name AS policy, day, pool, tenant, project, department, labels,
       gpu_seconds, gpu_seconds * second_cost AS direct_micros,
       (pool_cost - pool_gpu_seconds * second_cost)
           * CASE WHEN is_pool THEN 1
                  WHEN gpu_seconds = 0 THEN 0
                  WHEN policy.name = 'proportional' THEN gpu_seconds / pool_gpu_seconds
                  WHEN policy.name = 'even' THEN 1.0 / users
                  ELSE 0 END AS shared_micros,
       charged AS charged_micros
  FROM pool_day CROSS JOIN (VALUES ('proportional'), ('even'), ('none')) AS policy (name)
 -- The pool's own row has what nobody bears.
 WHERE is_paid AND (NOT is_pool OR policy.name = 'none' OR users = 0);

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
