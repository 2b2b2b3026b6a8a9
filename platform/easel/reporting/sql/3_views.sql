CREATE VIEW reporting.charges AS
SELECT record.occurred_at                                  AS used_at,
       charge.created_at                                   AS charged_at,
       (record.occurred_at AT TIME ZONE 'UTC')::date       AS day,
       tenant.slug                                         AS tenant,
       project.slug                                        AS project,
       coalesce(coalesce(record.dimensions -> 'labels', project.labels) ->> 'department', '') AS department,
       coalesce(record.dimensions -> 'labels', project.labels) AS labels,
       record.job_id                                       AS job_id,
       coalesce(pool.slug, '')                             AS pool,
       coalesce(record.dimensions ->> 'model', '')         AS model,
       coalesce(record.dimensions ->> 'model_version', '') AS model_version,
       coalesce(record.dimensions ->> 'adapter', '')       AS adapter,
       coalesce(record.dimensions ->> 'quality', '')       AS quality,
       coalesce(record.dimensions ->> 'tier', '')          AS tier,
       coalesce(record.dimensions ->> 'resolution', '')    AS resolution,
       coalesce(record.dimensions ->> 'api_key', '')       AS api_key,
       coalesce(record.dimensions ->> 'gpu_class', '')     AS gpu_class,
       coalesce(record.dimensions ->> 'kind', '')          AS storage_kind,
       record.meter                                        AS meter,
       charge.kind                                         AS kind,
       -- A waiver has no quantity of its own, so that a sum counts each quantity once.
       CASE charge.kind WHEN 'waiver' THEN 0 ELSE record.quantity END AS quantity,
       charge.amount_micros                                AS amount_micros,
       charge.currency::text                               AS currency,
       coalesce(project.labels ->> 'history', '') = 'generated' AS is_history
  FROM billing_charge charge
  JOIN billing_usagerecord record ON record.id = charge.usage_record_id
  JOIN tenants_tenant tenant ON tenant.id = record.tenant_id
  JOIN tenants_project project ON project.id = record.project_id
  LEFT JOIN jobs_job job ON job.id = record.job_id
  LEFT JOIN catalog_pool pool ON pool.id = job.pool_id;

COMMENT ON VIEW reporting.charges IS
    'One row per charge, the cost of a measured quantity. Their sum is what the ledger earned.';
COMMENT ON COLUMN reporting.charges.used_at IS
    'Time of use: the end of the job, or the last instant of a day of storage.';
COMMENT ON COLUMN reporting.charges.charged_at IS 'When the charge was written; for storage, the midnight after the day.';
COMMENT ON COLUMN reporting.charges.day IS 'The day of used_at, by which the API counts.';
COMMENT ON COLUMN reporting.charges.tenant IS 'Slug of the tenant that is charged.';
COMMENT ON COLUMN reporting.charges.project IS 'Slug of the project that bears the cost.';
COMMENT ON COLUMN reporting.charges.department IS 'The project''s label department at the time of use; empty if it had none.';
COMMENT ON COLUMN reporting.charges.labels IS 'The project''s labels at the time of use, as a JSON object.';
COMMENT ON COLUMN reporting.charges.job_id IS 'The charged job; null for storage.';
COMMENT ON COLUMN reporting.charges.pool IS 'The pool that ran the job; empty for storage.';
COMMENT ON COLUMN reporting.charges.model IS 'The model that the request named; empty for storage.';
COMMENT ON COLUMN reporting.charges.model_version IS 'The version that served the job, as model@number; empty for storage.';
COMMENT ON COLUMN reporting.charges.adapter IS 'Names of the LoRA adapters, joined by +; empty without adapters.';
COMMENT ON COLUMN reporting.charges.quality IS 'The requested quality; empty for storage.';
COMMENT ON COLUMN reporting.charges.tier IS 'The tier of the job, fast or hd; empty for storage.';
COMMENT ON COLUMN reporting.charges.resolution IS 'Width x height in pixels, as 1024x1024; empty for storage.';
COMMENT ON COLUMN reporting.charges.api_key IS 'The public part of the API key; empty for storage.';
COMMENT ON COLUMN reporting.charges.gpu_class IS 'The GPU class of GPU seconds; empty for other meters.';
COMMENT ON COLUMN reporting.charges.storage_kind IS 'For storage, the kind of file: output or adapter; else empty.';
COMMENT ON COLUMN reporting.charges.meter IS 'The meter, as in reporting.costs.';
COMMENT ON COLUMN reporting.charges.kind IS
    'usage: quantity times price; waiver: the waived part (negative) of a job that cost more than was quoted; correction: the
     difference that a correction of the usage makes.';
COMMENT ON COLUMN reporting.charges.quantity IS 'Quantity in the meter''s unit; 0 for a waiver.';
COMMENT ON COLUMN reporting.charges.amount_micros IS 'The amount in micro-units of the currency.';
COMMENT ON COLUMN reporting.charges.currency IS 'Currency code of ISO 4217.';
COMMENT ON COLUMN reporting.charges.is_history IS 'True for a project with the label history=generated: its use is made up, for demonstration.';


CREATE VIEW reporting.jobs AS
SELECT job.id                                        AS job_id,
       job.created_at                                AS created_at,
       job.finished_at                               AS finished_at,
       tenant.slug                                   AS tenant,
       project.slug                                  AS project,
       coalesce(project.labels ->> 'department', '') AS department,
       model.name                                    AS model,
       model.name || '@' || version.number           AS model_version,
       pool.slug                                     AS pool,
       coalesce(experiment.name, '')                 AS experiment,
       coalesce(arm.name, '')                        AS arm,
       job.state                                     AS state,
       job.error_code                                AS error_code,
       job.quality                                   AS quality,
       job.tier                                      AS tier,
       job.width || 'x' || job.height                AS resolution,
       job.n                                         AS n,
       job.steps                                     AS steps,
       -- Subqueries, not joins: a report that doesn't read a column doesn't compute it.
       (SELECT count(*) FROM jobs_attempt WHERE job_id = job.id) AS attempts,
       extract(epoch FROM (SELECT min(started_at) FROM jobs_attempt WHERE job_id = job.id) - job.created_at)
                                                     AS queue_seconds,
       extract(epoch FROM job.finished_at - (SELECT min(started_at) FROM jobs_attempt WHERE job_id = job.id))
                                                     AS run_seconds,
       (SELECT coalesce(sum(attempt.gpu_seconds), 0) FROM jobs_attempt attempt WHERE attempt.job_id = job.id)
                                                     AS gpu_seconds,
       (SELECT coalesce(sum(charge.amount_micros), 0)::bigint
          FROM billing_usagerecord record JOIN billing_charge charge ON charge.usage_record_id = record.id
         WHERE record.job_id = job.id)               AS amount_micros,
       tenant.currency::text                         AS currency
  FROM jobs_job job
  JOIN tenants_tenant tenant ON tenant.id = job.tenant_id
  JOIN tenants_project project ON project.id = job.project_id
  JOIN catalog_modelversion version ON version.id = job.model_version_id
  JOIN catalog_model model ON model.id = version.model_id
  JOIN catalog_pool pool ON pool.id = job.pool_id
  LEFT JOIN serving_arm arm ON arm.id = job.arm_id
  LEFT JOIN serving_experiment experiment ON experiment.id = arm.experiment_id;

COMMENT ON VIEW reporting.jobs IS 'One row per job, without prompts: those are for the tenant only.';
COMMENT ON COLUMN reporting.jobs.job_id IS 'The job''s id, as the API gives it.';
COMMENT ON COLUMN reporting.jobs.created_at IS 'When it was admitted.';
COMMENT ON COLUMN reporting.jobs.finished_at IS 'When it ended; null until then.';
COMMENT ON COLUMN reporting.jobs.tenant IS 'Slug of the tenant.';
COMMENT ON COLUMN reporting.jobs.project IS 'Slug of the project that bears its cost.';
COMMENT ON COLUMN reporting.jobs.department IS 'The project''s current label department; empty if it has none.';
COMMENT ON COLUMN reporting.jobs.model IS 'The model that the request named.';
COMMENT ON COLUMN reporting.jobs.model_version IS 'The version that serves the job, as model@number.';
COMMENT ON COLUMN reporting.jobs.pool IS 'The pool that runs the job.';
COMMENT ON COLUMN reporting.jobs.experiment IS 'The experiment that the job is part of; empty if none.';
COMMENT ON COLUMN reporting.jobs.arm IS 'The arm of the experiment; empty if none.';
COMMENT ON COLUMN reporting.jobs.state IS 'queued, dispatched, running, succeeded, failed, canceled or expired.';
COMMENT ON COLUMN reporting.jobs.error_code IS 'The error''s code; empty unless the job failed.';
COMMENT ON COLUMN reporting.jobs.quality IS 'The requested quality, by OpenAI''s names.';
COMMENT ON COLUMN reporting.jobs.tier IS 'The tier of the job: fast or hd.';
COMMENT ON COLUMN reporting.jobs.resolution IS 'Width x height of each image in pixels, as 1024x1024.';
COMMENT ON COLUMN reporting.jobs.n IS 'Number of requested images.';
COMMENT ON COLUMN reporting.jobs.steps IS 'Denoising steps per image.';
COMMENT ON COLUMN reporting.jobs.attempts IS 'Number of attempts.';
COMMENT ON COLUMN reporting.jobs.queue_seconds IS 'Seconds from admission to the start of the first attempt; null until then.';
COMMENT ON COLUMN reporting.jobs.run_seconds IS 'Seconds from that start to the end of the job, retries included; null until then.';
COMMENT ON COLUMN reporting.jobs.gpu_seconds IS 'GPU seconds of all attempts; those of failed attempts are not charged.';
COMMENT ON COLUMN reporting.jobs.amount_micros IS 'Charged amount in micro-units of the currency; 0 unless the job succeeded, or was canceled under prices that charge for its steps.';
COMMENT ON COLUMN reporting.jobs.currency IS 'Currency code of ISO 4217.';


-- Ended jobs by day: sums of sealed days and single jobs since then, as in reporting.costs.
CREATE VIEW reporting.job_days AS
WITH sealed AS MATERIALIZED (
         SELECT (max(day) + 1)::timestamp AT TIME ZONE 'UTC' AS until, timestamptz 'infinity' AS forever
           FROM billing_costday
     ), ended AS (
         SELECT day, tenant_id, project_id, pool, model, model_version, quality, tier, resolution, state, seconds, jobs,
                images
           FROM jobs_dailyjobs
         UNION ALL
         SELECT (job.finished_at AT TIME ZONE 'UTC')::date, job.tenant_id, job.project_id, pool.slug, model.name,
                model.name || '@' || version.number, job.quality, job.tier, job.width || 'x' || job.height, job.state,
                jobs_step_of_ten(extract(epoch FROM job.finished_at - job.created_at)), 1, job.n
           FROM jobs_job job
           JOIN catalog_pool pool ON pool.id = job.pool_id
           JOIN catalog_modelversion version ON version.id = job.model_version_id
           JOIN catalog_model model ON model.id = version.model_id
          -- Names every version, so that the index on (version, end) is used.
          WHERE job.model_version_id = ANY(ARRAY(SELECT id FROM catalog_modelversion))
            AND job.finished_at >= (SELECT until FROM sealed) AND job.finished_at < (SELECT forever FROM sealed)
     )
SELECT ended.day                                     AS day,
       tenant.slug                                   AS tenant,
       project.slug                                  AS project,
       coalesce(project.labels ->> 'department', '') AS department,
       ended.model::text                             AS model,
       ended.model_version::text                     AS model_version,
       ended.pool::text                              AS pool,
       ended.state::text                             AS state,
       ended.quality::text                           AS quality,
       ended.tier::text                              AS tier,
       ended.resolution::text                        AS resolution,
       ended.seconds                                 AS seconds,
       ended.jobs                                    AS jobs,
       ended.images                                  AS images,
       tenant.currency::text                         AS currency
  FROM ended
  JOIN tenants_tenant tenant ON tenant.id = ended.tenant_id
  -- Every job has one. A left join lets the planner drop the join if a report doesn't read its columns.
  LEFT JOIN tenants_project project ON project.id = ended.project_id;

COMMENT ON VIEW reporting.job_days IS
    'Ended jobs, partly summed by equal attributes; sum the rows that you read. Faster than reporting.jobs, which has each
     job, also unfinished ones.';
COMMENT ON COLUMN reporting.job_days.day IS
    'The day (UTC) on which the jobs ended, when they are charged; they may have been admitted on an earlier day.';
COMMENT ON COLUMN reporting.job_days.tenant IS 'Slug of the tenant.';
COMMENT ON COLUMN reporting.job_days.project IS 'Slug of the project that bears their cost.';
COMMENT ON COLUMN reporting.job_days.department IS 'The project''s current label department; empty if it has none.';
COMMENT ON COLUMN reporting.job_days.model IS 'The model that the requests named.';
COMMENT ON COLUMN reporting.job_days.model_version IS 'The version that served the jobs, as model@number.';
COMMENT ON COLUMN reporting.job_days.pool IS 'The pool that ran the jobs.';
COMMENT ON COLUMN reporting.job_days.state IS 'Final state: succeeded, failed, canceled or expired.';
COMMENT ON COLUMN reporting.job_days.quality IS 'The requested quality, by OpenAI''s names.';
COMMENT ON COLUMN reporting.job_days.tier IS 'The tier of the jobs: fast or hd.';
COMMENT ON COLUMN reporting.job_days.resolution IS 'Width x height of each image in pixels, as 1024x1024.';
COMMENT ON COLUMN reporting.job_days.seconds IS
    'Seconds from admission to end, rounded to one of ten steps per power of ten (1, 1.259, 1.585 ...; at most 13 % off),
     and 0 below a hundredth. For percentiles.';
COMMENT ON COLUMN reporting.job_days.jobs IS 'Number of jobs in the sum.';
COMMENT ON COLUMN reporting.job_days.images IS 'Number of images that the jobs requested.';
COMMENT ON COLUMN reporting.job_days.currency IS 'The tenant''s currency, as a code of ISO 4217.';


-- Exact, without reading every object for every day: an object adds its bytes when it is stored and subtracts them when
-- it is deleted. Bytes from before a day count for the whole day, changes of a day from their instant to the day's end
-- (today: to now).
CREATE VIEW reporting.storage AS
WITH event AS (
         SELECT project_id, kind, created_at AS event_at, size_bytes::numeric AS bytes, 1 AS objects
           FROM billing_storedobject
         UNION ALL
         SELECT project_id, kind, deleted_at, -size_bytes::numeric, -1
           FROM billing_storedobject WHERE deleted_at IS NOT NULL
     ), dated AS (
         SELECT *, (event_at AT TIME ZONE 'UTC')::date AS day FROM event WHERE event_at <= now()
     ), timed AS (
         SELECT *, least(((day + 1)::timestamp AT TIME ZONE 'UTC'), now()) AS day_end FROM dated
     ), change AS (
         SELECT project_id, kind, day, sum(bytes) AS bytes, sum(objects) AS objects,
                sum(bytes * extract(epoch FROM day_end - event_at)) AS byte_seconds
           FROM timed GROUP BY project_id, kind, day
     ), calendar AS (
         SELECT project_id, kind,
                generate_series(min(day)::timestamp, (now() AT TIME ZONE 'UTC')::date::timestamp, '1 day')::date AS day
           FROM change GROUP BY project_id, kind
     ), daily AS (
         SELECT project_id, kind, day,
                sum(change.bytes) OVER upto AS bytes,
                sum(change.objects) OVER upto AS objects,
                coalesce(sum(change.bytes) OVER before, 0) AS bytes_before,
                coalesce(change.byte_seconds, 0) AS byte_seconds,
                extract(epoch FROM least((day + 1)::timestamp AT TIME ZONE 'UTC', now())
                                   - day::timestamp AT TIME ZONE 'UTC') AS seconds
           FROM calendar LEFT JOIN change USING (project_id, kind, day)
         WINDOW upto AS (PARTITION BY project_id, kind ORDER BY day),
                before AS (PARTITION BY project_id, kind ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
     )
SELECT daily.day                                     AS day,
       tenant.slug                                   AS tenant,
       project.slug                                  AS project,
       coalesce(project.labels ->> 'department', '') AS department,
       daily.kind                                    AS kind,
       (daily.bytes_before * daily.seconds + daily.byte_seconds) / 86400 / 1000000000 AS gb_days,
       daily.bytes::bigint                           AS bytes,
       daily.objects::bigint                         AS objects,
       daily.day = (now() AT TIME ZONE 'UTC')::date  AS is_today
  FROM daily
  JOIN tenants_project project ON project.id = daily.project_id
  JOIN tenants_tenant tenant ON tenant.id = project.tenant_id;

COMMENT ON VIEW reporting.storage IS
    'Storage of each project on each day since its first object; days without a change have a row too.';
COMMENT ON COLUMN reporting.storage.day IS 'The day (UTC); today counts up to now.';
COMMENT ON COLUMN reporting.storage.tenant IS 'Slug of the tenant that is charged.';
COMMENT ON COLUMN reporting.storage.project IS 'Slug of the project.';
COMMENT ON COLUMN reporting.storage.department IS 'The project''s current label department; empty if it has none.';
COMMENT ON COLUMN reporting.storage.kind IS 'Kind of file: output (images) or adapter (LoRA weights).';
COMMENT ON COLUMN reporting.storage.gb_days IS 'GB (1,000,000,000 bytes) times days of storage, exact to the microsecond.';
COMMENT ON COLUMN reporting.storage.bytes IS 'Bytes stored at the end of the day; today, now.';
COMMENT ON COLUMN reporting.storage.objects IS 'Files stored at the end of the day; today, now.';
COMMENT ON COLUMN reporting.storage.is_today IS 'True for today, whose bytes and objects are current.';


-- A union instead of a join, so that PostgreSQL pushes a condition on the day down to both sides.
CREATE VIEW reporting.pool_days AS
WITH side AS (
         SELECT worker.day, pool.slug AS pool, 1 AS workers,
                up_seconds, worker.cost, worker.busy_seconds, worker.attributed_seconds, worker.load_seconds,
                0::numeric AS gpu_seconds, 0::numeric AS foreign_gpu_seconds, 0 AS revenue_micros, 0 AS job_revenue_micros
           FROM catalog_workerday worker JOIN catalog_pool pool ON pool.id = worker.pool_id
         UNION ALL
         SELECT day, pool, 0, 0, 0, 0, 0, 0,
                CASE WHEN meter = 'gpu_second' THEN quantity ELSE 0 END,
                CASE WHEN meter = 'gpu_second' AND currency <> 'USD' THEN quantity ELSE 0 END,
                CASE WHEN meter = 'gpu_second' AND currency = 'USD' THEN amount_micros ELSE 0 END,
                CASE WHEN currency = 'USD' THEN amount_micros ELSE 0 END
           FROM reporting.costs WHERE pool <> ''
     ), total AS (
         SELECT day, pool, sum(workers) AS workers, sum(up_seconds) AS up_seconds, sum(cost) AS cost, sum(busy_seconds) AS busy_seconds,
                sum(attributed_seconds) AS attributed_seconds, sum(load_seconds) AS load_seconds,
                sum(gpu_seconds) AS gpu_seconds, sum(foreign_gpu_seconds) AS foreign_gpu_seconds,
                sum(revenue_micros) AS revenue_micros, sum(job_revenue_micros) AS job_revenue_micros
           FROM side GROUP BY day, pool
     )
SELECT total.day                         AS day,
       total.pool                        AS pool,
       pool.gpu_class                    AS gpu_class,
       coalesce(tenant.slug, '')         AS tenant,
       total.workers                     AS workers,
       total.up_seconds                  AS up_seconds,
       total.busy_seconds                AS busy_seconds,
       total.attributed_seconds          AS attributed_seconds,
       total.load_seconds                AS load_seconds,
       greatest(total.up_seconds - total.busy_seconds - total.load_seconds, 0) AS idle_seconds,
       total.gpu_seconds                 AS billed_gpu_seconds,
       total.foreign_gpu_seconds         AS foreign_gpu_seconds,
       round(total.cost * 1000000)::bigint AS cost_micros,
       total.revenue_micros::bigint      AS revenue_micros,
       total.job_revenue_micros::bigint  AS job_revenue_micros,
       'USD'::text                       AS currency
  FROM total
  JOIN catalog_pool pool ON pool.slug = total.pool
  LEFT JOIN tenants_tenant tenant ON tenant.id = pool.tenant_id;

COMMENT ON VIEW reporting.pool_days IS
    'Use, cost and revenue of each pool on each day: what GPU seconds earned against what GPUs cost.';
COMMENT ON COLUMN reporting.pool_days.day IS 'The day (UTC); today counts up to now.';
COMMENT ON COLUMN reporting.pool_days.pool IS 'Slug of the pool.';
COMMENT ON COLUMN reporting.pool_days.gpu_class IS 'The pool''s GPU class.';
COMMENT ON COLUMN reporting.pool_days.tenant IS 'Slug of a dedicated pool''s tenant; empty for other pools.';
COMMENT ON COLUMN reporting.pool_days.workers IS 'Number of workers, by name, that were up on the day.';
COMMENT ON COLUMN reporting.pool_days.up_seconds IS 'Sum of the seconds that its workers were up, for which the provider charges.';
COMMENT ON COLUMN reporting.pool_days.busy_seconds IS 'Part of up_seconds in which the GPUs generated.';
COMMENT ON COLUMN reporting.pool_days.attributed_seconds IS 'Busy seconds attributed to jobs; equals busy_seconds to 0.1 %.';
COMMENT ON COLUMN reporting.pool_days.load_seconds IS 'Part of up_seconds in which workers loaded and warmed up models.';
COMMENT ON COLUMN reporting.pool_days.idle_seconds IS 'The rest of up_seconds.';
COMMENT ON COLUMN reporting.pool_days.billed_gpu_seconds IS
    'Charged GPU seconds, in any currency, by the day on which their job ended.';
COMMENT ON COLUMN reporting.pool_days.foreign_gpu_seconds IS
    'Part of billed_gpu_seconds charged in another currency than USD, whose revenue is not in this row.';
COMMENT ON COLUMN reporting.pool_days.cost_micros IS
    'Cost of up_seconds at the pool''s cost of a GPU hour at the time, in micro-USD.';
COMMENT ON COLUMN reporting.pool_days.revenue_micros IS
    'Charged for GPU seconds, less the waived part above quotes, in micro-USD.';
COMMENT ON COLUMN reporting.pool_days.job_revenue_micros IS
    'Charged in total, for jobs and for the up time of a dedicated pool, in micro-USD.';
COMMENT ON COLUMN reporting.pool_days.currency IS 'Always USD, the currency of pool costs.';


CREATE VIEW reporting.balances AS
SELECT tenant.slug                     AS tenant,
       account.currency::text          AS currency,
       coalesce(sum(balance_micros) FILTER (WHERE kind = 'credit'), 0)::bigint      AS credit_micros,
       coalesce(sum(balance_micros) FILTER (WHERE kind = 'held'), 0)::bigint        AS held_micros,
       coalesce(-sum(balance_micros) FILTER (WHERE kind = 'receivable'), 0)::bigint AS owed_micros,
       coalesce(sum(balance_micros) FILTER (WHERE kind = 'revenue'), 0)::bigint     AS charged_micros
  FROM billing_ledgeraccount account
  JOIN tenants_tenant tenant ON tenant.id = account.tenant_id
 GROUP BY tenant.slug, account.currency;

COMMENT ON VIEW reporting.balances IS 'Current balances, one row per tenant and currency.';
COMMENT ON COLUMN reporting.balances.tenant IS 'Slug of the tenant.';
COMMENT ON COLUMN reporting.balances.currency IS 'Currency code of ISO 4217.';
COMMENT ON COLUMN reporting.balances.credit_micros IS 'Available credit, in micro-units of the currency.';
COMMENT ON COLUMN reporting.balances.held_micros IS 'Held for unfinished jobs, in micro-units.';
COMMENT ON COLUMN reporting.balances.owed_micros IS 'Charged beyond the credit and owed, in micro-units.';
COMMENT ON COLUMN reporting.balances.charged_micros IS 'Charged in total, in micro-units.';
