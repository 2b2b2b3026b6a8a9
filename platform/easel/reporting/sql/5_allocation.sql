-- Allocates the platform's cost of pools to the projects that used them, for chargeback and showback by any label.
-- A union with window sums per day and pool, each part of which is read once, so that PostgreSQL pushes a condition on
-- the day down to all parts. Costs are summed before the joins, so that names are joined once per project and day.
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
                -- A job counts on the day it ended, so a day's GPU seconds can exceed its up time. The greatest of both
                -- keeps the allocated cost within the day's cost.
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
 -- The pool's own row has the cost that no project bears.
 WHERE is_paid AND (NOT is_pool OR policy.name = 'none' OR users = 0);

COMMENT ON VIEW reporting.cost_allocation IS
    'The platform''s cost of each pool and day, allocated to the projects that used the pool, once by each policy: always
     filter by one policy. For each, direct_micros and shared_micros sum to the cost of the pools.';
COMMENT ON COLUMN reporting.cost_allocation.policy IS
    'Allocation of time without a charged job (idle, loading, failed attempts): proportional, by GPU seconds of the day;
     even, in equal parts to the projects that used the pool on the day; none, to a row without a project.';
COMMENT ON COLUMN reporting.cost_allocation.day IS 'The day (UTC).';
COMMENT ON COLUMN reporting.cost_allocation.pool IS 'Slug of the pool.';
COMMENT ON COLUMN reporting.cost_allocation.tenant IS
    'Slug of the tenant. In a row without a project: of the dedicated pool''s tenant, or empty.';
COMMENT ON COLUMN reporting.cost_allocation.project IS 'Slug of the project; empty for cost that no project bears.';
COMMENT ON COLUMN reporting.cost_allocation.department IS 'The project''s label department at the time of use; empty if it had none.';
COMMENT ON COLUMN reporting.cost_allocation.labels IS 'The project''s labels at the time of use, as a JSON object.';
COMMENT ON COLUMN reporting.cost_allocation.gpu_seconds IS 'Charged GPU seconds of the project.';
COMMENT ON COLUMN reporting.cost_allocation.direct_micros IS
    'Cost of gpu_seconds at the pool''s cost of a second of up time, in micro-USD.';
COMMENT ON COLUMN reporting.cost_allocation.shared_micros IS
    'The project''s part, by the policy, of the cost of the rest of the day, in micro-USD.';
COMMENT ON COLUMN reporting.cost_allocation.charged_micros IS
    'Charged to the project for the pool''s work, in micro-USD; less direct_micros and shared_micros, it is the margin.';
