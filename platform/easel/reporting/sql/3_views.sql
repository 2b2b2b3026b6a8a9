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
       -- The quantity belongs to the charge of the usage or its correction, so that a sum counts it once.
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
    'One row per charge: what a measured quantity cost. Their sum is what the ledger earned.';
COMMENT ON COLUMN reporting.charges.used_at IS
    'When it was used: the end of the job, or the last instant of the day that storage was kept.';
COMMENT ON COLUMN reporting.charges.charged_at IS 'When the charge was written: of storage, the midnight after the day.';
COMMENT ON COLUMN reporting.charges.day IS 'The day of used_at, which statements and the API count by.';
COMMENT ON COLUMN reporting.charges.tenant IS 'Slug of the tenant that pays.';
COMMENT ON COLUMN reporting.charges.project IS 'Slug of the project that the cost belongs to.';
COMMENT ON COLUMN reporting.charges.department IS 'The label department as it was at the time; empty without one.';
COMMENT ON COLUMN reporting.charges.labels IS 'All labels of the project as they were at the time, as a JSON object.';
COMMENT ON COLUMN reporting.charges.job_id IS 'The job that was charged; null for storage.';
COMMENT ON COLUMN reporting.charges.pool IS 'The pool that drew it; empty for storage.';
COMMENT ON COLUMN reporting.charges.model IS 'The model that was called; empty for storage.';
COMMENT ON COLUMN reporting.charges.model_version IS 'The version that served it, as model@number; empty for storage.';
COMMENT ON COLUMN reporting.charges.adapter IS 'Names of the LoRA adapters, joined by +; empty without one.';
COMMENT ON COLUMN reporting.charges.quality IS 'The quality that was asked for; empty for storage.';
COMMENT ON COLUMN reporting.charges.tier IS 'The tier that drew it, fast or hd; empty for storage.';
COMMENT ON COLUMN reporting.charges.resolution IS 'Width x height in pixels, as 1024x1024; empty for storage.';
COMMENT ON COLUMN reporting.charges.api_key IS 'The readable part of the key that asked; empty for storage.';
COMMENT ON COLUMN reporting.charges.gpu_class IS 'The class of GPU whose seconds these are; empty for other meters.';
COMMENT ON COLUMN reporting.charges.storage_kind IS 'Of storage, what was kept: output or adapter; else empty.';
COMMENT ON COLUMN reporting.charges.meter IS 'What was counted: gpu_second, image_unit, request or storage_gb_second.';
COMMENT ON COLUMN reporting.charges.kind IS
    'usage: quantity times price; waiver: the part of a job''s cost above its quote, which nobody pays (below zero);
     correction: the difference that a correction of the usage makes.';
COMMENT ON COLUMN reporting.charges.quantity IS 'How much of the meter, in the meter''s unit; 0 for a waiver.';
COMMENT ON COLUMN reporting.charges.amount_micros IS 'The amount in micro-units of the currency.';
COMMENT ON COLUMN reporting.charges.currency IS 'ISO 4217.';
COMMENT ON COLUMN reporting.charges.is_history IS 'True for a project whose label history says that its use was generated, to look at.';


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
       -- Each asked for by itself, so that a report that leaves it out doesn't pay for it.
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

COMMENT ON VIEW reporting.jobs IS 'One row per job. What was asked for in words is not here: prompts stay with their tenant.';
COMMENT ON COLUMN reporting.jobs.job_id IS 'The job''s id, as the API gives it.';
COMMENT ON COLUMN reporting.jobs.created_at IS 'When it was admitted.';
COMMENT ON COLUMN reporting.jobs.finished_at IS 'When it ended; null while it goes on.';
COMMENT ON COLUMN reporting.jobs.tenant IS 'Slug of the tenant that asked.';
COMMENT ON COLUMN reporting.jobs.project IS 'Slug of the project that its cost belongs to.';
COMMENT ON COLUMN reporting.jobs.department IS 'The project''s label department as it is now; empty without one.';
COMMENT ON COLUMN reporting.jobs.model IS 'The model that was called.';
COMMENT ON COLUMN reporting.jobs.model_version IS 'The version that serves it, as model@number.';
COMMENT ON COLUMN reporting.jobs.pool IS 'The pool of workers that it goes to.';
COMMENT ON COLUMN reporting.jobs.experiment IS 'The A/B test that it is part of; empty for most.';
COMMENT ON COLUMN reporting.jobs.arm IS 'The arm of that test; empty for most.';
COMMENT ON COLUMN reporting.jobs.state IS 'queued, dispatched, running, succeeded, failed, canceled or expired.';
COMMENT ON COLUMN reporting.jobs.error_code IS 'Why it failed; empty when it did not.';
COMMENT ON COLUMN reporting.jobs.quality IS 'The quality that was asked for, in OpenAI''s words.';
COMMENT ON COLUMN reporting.jobs.tier IS 'The tier that it goes to: fast or hd.';
COMMENT ON COLUMN reporting.jobs.resolution IS 'Width x height of each image in pixels, as 1024x1024.';
COMMENT ON COLUMN reporting.jobs.n IS 'How many images were asked for.';
COMMENT ON COLUMN reporting.jobs.steps IS 'Denoising steps of each image.';
COMMENT ON COLUMN reporting.jobs.attempts IS 'How often it was handed to a worker.';
COMMENT ON COLUMN reporting.jobs.queue_seconds IS 'From its admission until a worker first began it; null before.';
COMMENT ON COLUMN reporting.jobs.run_seconds IS 'From that beginning to its end, repeated attempts included; null before.';
COMMENT ON COLUMN reporting.jobs.gpu_seconds IS 'GPU seconds of all its attempts; those of attempts that failed are not charged.';
COMMENT ON COLUMN reporting.jobs.amount_micros IS 'What it was charged, in micro-units of the currency; 0 unless it succeeded, or was stopped under prices that charge for its steps.';
COMMENT ON COLUMN reporting.jobs.currency IS 'ISO 4217.';


-- Jobs that ended, by the day: sums of the days that are sealed, and the jobs since then, as reporting.costs does it.
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
          -- As the index is: by version, then by the end.
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
  -- Each has one: said so that a report that doesn't ask for the project doesn't pay for it.
  LEFT JOIN tenants_project project ON project.id = ended.project_id;

COMMENT ON VIEW reporting.job_days IS
    'Jobs that ended, in sums of jobs that are alike; sum what you read. It is the quick one: reporting.jobs has each job,
     and those that go on.';
COMMENT ON COLUMN reporting.job_days.day IS
    'The day (UTC) on which they ended, which is when they are charged: one that was admitted on the day before counts here.';
COMMENT ON COLUMN reporting.job_days.tenant IS 'Slug of the tenant that asked.';
COMMENT ON COLUMN reporting.job_days.project IS 'Slug of the project that their cost belongs to.';
COMMENT ON COLUMN reporting.job_days.department IS 'The project''s label department as it is now; empty without one.';
COMMENT ON COLUMN reporting.job_days.model IS 'The model that was called.';
COMMENT ON COLUMN reporting.job_days.model_version IS 'The version that served them, as model@number.';
COMMENT ON COLUMN reporting.job_days.pool IS 'The pool of workers that they went to.';
COMMENT ON COLUMN reporting.job_days.state IS 'How they ended: succeeded, failed, canceled or expired.';
COMMENT ON COLUMN reporting.job_days.quality IS 'The quality that was asked for, in OpenAI''s words.';
COMMENT ON COLUMN reporting.job_days.tier IS 'The tier that they went to: fast or hd.';
COMMENT ON COLUMN reporting.job_days.resolution IS 'Width x height of each image in pixels, as 1024x1024.';
COMMENT ON COLUMN reporting.job_days.seconds IS
    'From the admission of each to its end, as the nearest of ten steps in each power of ten (1, 1.259, 1.585 ...: 13 % at
     most off), and 0 below a hundredth: percentiles are made of it.';
COMMENT ON COLUMN reporting.job_days.jobs IS 'How many jobs the row sums.';
COMMENT ON COLUMN reporting.job_days.images IS 'How many images they asked for together.';
COMMENT ON COLUMN reporting.job_days.currency IS 'ISO 4217: the tenant''s.';


-- Exact without a look at every object on every day: bytes come and go by events, and what was there before a day
-- was there for the whole of it. A day's events count from their instant to the day's end, which today is now.
CREATE VIEW reporting.storage AS
WITH event AS (
         SELECT project_id, kind, created_at AS at, size_bytes::numeric AS bytes, 1 AS objects
           FROM billing_storedobject
         UNION ALL
         SELECT project_id, kind, deleted_at, -size_bytes::numeric, -1
           FROM billing_storedobject WHERE deleted_at IS NOT NULL
     ), dated AS (
         SELECT *, (at AT TIME ZONE 'UTC')::date AS day FROM event WHERE at <= now()
     ), timed AS (
         SELECT *, least(((day + 1)::timestamp AT TIME ZONE 'UTC'), now()) AS day_end FROM dated
     ), change AS (
         SELECT project_id, kind, day, sum(bytes) AS bytes, sum(objects) AS objects,
                sum(bytes * extract(epoch FROM day_end - at)) AS byte_seconds
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
    'What each project kept on each day, from its first object on. Days without a change have a row too.';
COMMENT ON COLUMN reporting.storage.day IS 'The day; of today, what has passed of it.';
COMMENT ON COLUMN reporting.storage.tenant IS 'Slug of the tenant that pays.';
COMMENT ON COLUMN reporting.storage.project IS 'Slug of the project that keeps it.';
COMMENT ON COLUMN reporting.storage.department IS 'The project''s label department as it is now; empty without one.';
COMMENT ON COLUMN reporting.storage.kind IS 'What is kept: output (images) or adapter (LoRA weights).';
COMMENT ON COLUMN reporting.storage.gb_days IS 'GB (1,000,000,000 bytes) times days kept, exact to the microsecond.';
COMMENT ON COLUMN reporting.storage.bytes IS 'Bytes there at the end of the day; today, now.';
COMMENT ON COLUMN reporting.storage.objects IS 'Files there at the end of the day; today, now.';
COMMENT ON COLUMN reporting.storage.is_today IS 'True for the row whose bytes and objects are those of now.';


-- A union and not a join, so that a condition on the day reaches both sides.
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
    'What each pool of GPUs did, cost and earned on each day: the price of GPU seconds against the cost of GPUs.';
COMMENT ON COLUMN reporting.pool_days.day IS 'The day; of today, what has passed of it.';
COMMENT ON COLUMN reporting.pool_days.pool IS 'Slug of the pool.';
COMMENT ON COLUMN reporting.pool_days.gpu_class IS 'The class of its GPUs.';
COMMENT ON COLUMN reporting.pool_days.tenant IS 'The tenant that a dedicated pool belongs to; empty for a shared one.';
COMMENT ON COLUMN reporting.pool_days.workers IS 'How many workers, by name, were up on the day.';
COMMENT ON COLUMN reporting.pool_days.up_seconds IS 'Seconds that its workers were up, added up: what the provider asks for.';
COMMENT ON COLUMN reporting.pool_days.busy_seconds IS 'Of those, seconds that the GPUs drew.';
COMMENT ON COLUMN reporting.pool_days.attributed_seconds IS 'Busy seconds given to jobs; equals busy_seconds to 0.1 %.';
COMMENT ON COLUMN reporting.pool_days.load_seconds IS 'Seconds of loading and warming up models.';
COMMENT ON COLUMN reporting.pool_days.idle_seconds IS 'Seconds up with nothing to draw or load.';
COMMENT ON COLUMN reporting.pool_days.billed_gpu_seconds IS
    'GPU seconds that were charged, in any currency, on the day that their job ended.';
COMMENT ON COLUMN reporting.pool_days.foreign_gpu_seconds IS
    'Of those, what was charged in another currency than USD: its revenue is not in this row.';
COMMENT ON COLUMN reporting.pool_days.cost_micros IS
    'up_seconds at what a GPU hour of the pool cost while they passed, in micro-USD.';
COMMENT ON COLUMN reporting.pool_days.revenue_micros IS
    'What the GPU seconds were charged, less waivers, in micro-USD.';
COMMENT ON COLUMN reporting.pool_days.job_revenue_micros IS
    'What was charged for it in all: its jobs, and the time of a dedicated pool, in micro-USD.';
COMMENT ON COLUMN reporting.pool_days.currency IS 'Always USD, in which pools are paid for.';


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

COMMENT ON VIEW reporting.balances IS 'One row per tenant and currency: what it has, owes and was charged, as of now.';
COMMENT ON COLUMN reporting.balances.tenant IS 'Slug of the tenant.';
COMMENT ON COLUMN reporting.balances.currency IS 'ISO 4217.';
COMMENT ON COLUMN reporting.balances.credit_micros IS 'What it can still spend, in micro-units of the currency.';
COMMENT ON COLUMN reporting.balances.held_micros IS 'Reserved for jobs that have not ended, in micro-units.';
COMMENT ON COLUMN reporting.balances.owed_micros IS 'Charged beyond its credit and owed, in micro-units.';
COMMENT ON COLUMN reporting.balances.charged_micros IS 'Charged since the beginning, in micro-units.';
