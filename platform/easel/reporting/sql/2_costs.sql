-- What was charged, by day: sums of sealed days (billing/usage/daily_costs.py) and single charges since then.
-- A union without GROUP BY and with equal column types, so that PostgreSQL pushes conditions down to both sides: it
-- doesn't if a column is text on one side and varchar on the other. Readers sum the rows anyway.
CREATE VIEW reporting.costs AS
WITH sealed AS MATERIALIZED (
         SELECT (max(day) + 1)::timestamp AT TIME ZONE 'UTC' AS until, timestamptz 'infinity' AS forever
           FROM billing_costday
     ), cost AS (
         SELECT day, booked_at, tenant_id, project_id, labels, pool::text, model::text, model_version::text, adapter,
                quality::text, tier::text, resolution::text, api_key::text, gpu_class::text, storage_kind::text, meter,
                kind, rate_id, contract_id, discount, statement_id, currency, quantity, amount_micros,
                list_micros, charges
           FROM billing_dailycost
         UNION ALL
         SELECT (record.occurred_at AT TIME ZONE 'UTC')::date, charge.created_at, record.tenant_id, record.project_id,
                record.dimensions -> 'labels', coalesce(record.dimensions ->> 'pool', ''),
                coalesce(record.dimensions ->> 'model', ''), coalesce(record.dimensions ->> 'model_version', ''),
                coalesce(record.dimensions ->> 'adapter', ''), coalesce(record.dimensions ->> 'quality', ''),
                coalesce(record.dimensions ->> 'tier', ''), coalesce(record.dimensions ->> 'resolution', ''),
                coalesce(record.dimensions ->> 'api_key', ''), coalesce(record.dimensions ->> 'gpu_class', ''),
                coalesce(record.dimensions ->> 'kind', ''), record.meter, charge.kind, charge.rate_id,
                charge.contract_id, charge.discount, charge.statement_id, charge.currency,
                CASE charge.kind WHEN 'waiver' THEN 0 ELSE record.quantity END, charge.amount_micros,
                coalesce(charge.list_micros, charge.amount_micros), 1
           FROM billing_charge charge
           JOIN billing_usagerecord record ON record.id = charge.usage_record_id
          -- The upper bound is for the planner: it estimates a range with unknown bounds as small and uses the index,
          -- but a lower bound alone as a third of the table.
          WHERE charge.created_at >= (SELECT until FROM sealed) AND charge.created_at < (SELECT forever FROM sealed)
     )
SELECT cost.day                                                                  AS day,
       cost.booked_at                                                            AS booked_at,
       tenant.slug                                                               AS tenant,
       project.slug                                                              AS project,
       coalesce(coalesce(cost.labels, project.labels) ->> 'department', '')      AS department,
       coalesce(cost.labels, project.labels)                                     AS labels,
       cost.pool::text                                                           AS pool,
       cost.model::text                                                          AS model,
       cost.model_version::text                                                  AS model_version,
       cost.adapter                                                              AS adapter,
       cost.quality::text                                                        AS quality,
       cost.tier::text                                                           AS tier,
       cost.resolution::text                                                     AS resolution,
       cost.api_key::text                                                        AS api_key,
       cost.gpu_class::text                                                      AS gpu_class,
       cost.storage_kind::text                                                   AS storage_kind,
       cost.meter::text                                                          AS meter,
       cost.kind::text                                                           AS kind,
       cost.quantity                                                             AS quantity,
       cost.charges                                                              AS charges,
       cost.amount_micros                                                        AS amount_micros,
       cost.list_micros                                                          AS list_micros,
       cost.currency::text                                                       AS currency,
       coalesce(project.labels ->> 'history', '') = 'generated'                  AS is_history,
       cost.tenant_id                                                            AS tenant_id,
       cost.project_id                                                           AS project_id,
       cost.rate_id                                                              AS rate_id,
       cost.contract_id                                                          AS contract_id,
       cost.discount                                                             AS discount,
       cost.statement_id                                                         AS credit_note_id
  FROM cost
  -- Every cost has both. A left join lets the planner drop the join if a report doesn't read its columns.
  LEFT JOIN tenants_tenant tenant ON tenant.id = cost.tenant_id
  LEFT JOIN tenants_project project ON project.id = cost.project_id;

COMMENT ON VIEW reporting.costs IS
    'Charges, partly summed by equal attributes; sum the rows that you read. Their total is what the ledger earned.
     Faster than reporting.charges, which has each charge.';
COMMENT ON COLUMN reporting.costs.day IS 'The day (UTC) of use, by which reports and the API count.';
COMMENT ON COLUMN reporting.costs.booked_at IS
    'When it was charged, rounded to the day; on the last and first day of a month rounded to a quarter hour or less, so
     that it determines the month in every time zone.';
COMMENT ON COLUMN reporting.costs.tenant IS 'Slug of the tenant that is charged.';
COMMENT ON COLUMN reporting.costs.project IS 'Slug of the project that bears the cost.';
COMMENT ON COLUMN reporting.costs.department IS 'The project''s label department at the time of use; empty if it had none.';
COMMENT ON COLUMN reporting.costs.labels IS 'The project''s labels at the time of use, as a JSON object.';
COMMENT ON COLUMN reporting.costs.pool IS 'The pool that ran the job; empty for storage.';
COMMENT ON COLUMN reporting.costs.model IS 'The model that the request named; empty for storage.';
COMMENT ON COLUMN reporting.costs.model_version IS 'The version that served the job, as model@number; empty for storage.';
COMMENT ON COLUMN reporting.costs.adapter IS 'Names of the LoRA adapters, joined by +; empty without adapters.';
COMMENT ON COLUMN reporting.costs.quality IS 'The requested quality; empty for storage.';
COMMENT ON COLUMN reporting.costs.tier IS 'The tier of the job, fast or hd; empty for storage.';
COMMENT ON COLUMN reporting.costs.resolution IS 'Width x height in pixels, as 1024x1024; empty for storage.';
COMMENT ON COLUMN reporting.costs.api_key IS 'The public part of the API key; empty for storage.';
COMMENT ON COLUMN reporting.costs.gpu_class IS 'The GPU class of GPU seconds; empty for other meters.';
COMMENT ON COLUMN reporting.costs.storage_kind IS 'For storage, the kind of file: output or adapter; else empty.';
COMMENT ON COLUMN reporting.costs.meter IS
    'The meter: gpu_second, pool_second, image_unit, request, cache_hit or storage_gb_second.';
COMMENT ON COLUMN reporting.costs.kind IS 'usage, waiver or correction, as in reporting.charges.';
COMMENT ON COLUMN reporting.costs.quantity IS 'Quantity in the meter''s unit; 0 for a waiver.';
COMMENT ON COLUMN reporting.costs.charges IS 'Number of charges in the sum.';
COMMENT ON COLUMN reporting.costs.amount_micros IS 'Charged amount in micro-units of the currency.';
COMMENT ON COLUMN reporting.costs.list_micros IS
    'The amount at list prices, without contract and discount, in micro-units.';
COMMENT ON COLUMN reporting.costs.currency IS 'Currency code of ISO 4217.';
COMMENT ON COLUMN reporting.costs.is_history IS 'True for a project with the label history=generated: its use is made up, for demonstration.';
COMMENT ON COLUMN reporting.costs.tenant_id IS 'The tenant''s id.';
COMMENT ON COLUMN reporting.costs.project_id IS 'The project''s id.';
COMMENT ON COLUMN reporting.costs.rate_id IS 'The rate, a price in a price book.';
COMMENT ON COLUMN reporting.costs.contract_id IS 'The contract that applied; null if there was none.';
COMMENT ON COLUMN reporting.costs.discount IS 'The discount of the contract and, of a batch''s work, of the price book: 0.1 is ten percent.';
COMMENT ON COLUMN reporting.costs.credit_note_id IS 'The credit note of a correction to a final statement; else null.';


CREATE VIEW reporting.unpriced AS
SELECT (record.occurred_at AT TIME ZONE 'UTC')::date       AS day,
       record.occurred_at                                  AS used_at,
       tenant.slug                                         AS tenant,
       project.slug                                        AS project,
       coalesce(coalesce(record.dimensions -> 'labels', project.labels) ->> 'department', '') AS department,
       coalesce(record.dimensions -> 'labels', project.labels) AS labels,
       record.job_id                                       AS job_id,
       record.meter::text                                  AS meter,
       record.quantity                                     AS quantity,
       coalesce(record.dimensions ->> 'model', '')         AS model,
       coalesce(record.dimensions ->> 'adapter', '')       AS adapter,
       coalesce(record.dimensions ->> 'gpu_class', '')     AS gpu_class,
       coalesce(record.dimensions ->> 'tier', '')          AS tier
  FROM billing_usagerecord record
  JOIN tenants_tenant tenant ON tenant.id = record.tenant_id
  JOIN tenants_project project ON project.id = record.project_id
 WHERE NOT EXISTS (SELECT FROM billing_charge charge WHERE charge.usage_record_id = record.id);

COMMENT ON VIEW reporting.unpriced IS
    'One row per measured quantity that was not charged because the price book had no price for its meter.';
COMMENT ON COLUMN reporting.unpriced.day IS 'The day (UTC) of used_at.';
COMMENT ON COLUMN reporting.unpriced.used_at IS 'Time of use; filter by a range of it, which uses an index.';
COMMENT ON COLUMN reporting.unpriced.tenant IS 'Slug of the tenant that used it.';
COMMENT ON COLUMN reporting.unpriced.project IS 'Slug of the project that used it.';
COMMENT ON COLUMN reporting.unpriced.department IS 'The project''s label department at the time of use; empty if it had none.';
COMMENT ON COLUMN reporting.unpriced.labels IS 'The project''s labels at the time of use, as a JSON object.';
COMMENT ON COLUMN reporting.unpriced.job_id IS 'The job; null for storage and pools.';
COMMENT ON COLUMN reporting.unpriced.meter IS 'The meter, as in reporting.costs.';
COMMENT ON COLUMN reporting.unpriced.quantity IS 'Quantity in the meter''s unit; for a correction the difference.';
COMMENT ON COLUMN reporting.unpriced.model IS 'The model that the request named; empty for storage and pools.';
COMMENT ON COLUMN reporting.unpriced.adapter IS 'Names of the LoRA adapters, joined by +; empty without adapters.';
COMMENT ON COLUMN reporting.unpriced.gpu_class IS 'The GPU class of GPU seconds; empty for other meters.';
COMMENT ON COLUMN reporting.unpriced.tier IS 'The tier of the job; empty for storage and pools.';


CREATE VIEW reporting.usage_events AS
SELECT tenant.slug                                         AS tenant,
       record.occurred_at                                  AS used_at,
       json_build_object(
           'specversion', '1.0',
           'id', record.id,
           'source', '/easel/usage',
           'type', 'easel.usage.' || record.meter,
           'subject', tenant.slug,
           'time', to_char(record.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
           'datacontenttype', 'application/json',
           'data', json_build_object(
               'project', project.slug,
               'labels', coalesce(record.dimensions -> 'labels', project.labels),
               'job_id', record.job_id,
               'quantity', trim_scale(record.quantity)::text,
               'cost', trim_scale(cost.micros / 1e6)::text,
               'currency', tenant.currency,
               'corrects', record.corrects_id,
               'model', coalesce(record.dimensions ->> 'model', ''),
               'model_version', coalesce(record.dimensions ->> 'model_version', ''),
               'adapter', coalesce(record.dimensions ->> 'adapter', ''),
               'quality', coalesce(record.dimensions ->> 'quality', ''),
               'tier', coalesce(record.dimensions ->> 'tier', ''),
               'resolution', coalesce(record.dimensions ->> 'resolution', ''),
               'api_key', coalesce(record.dimensions ->> 'api_key', ''),
               'gpu_class', coalesce(record.dimensions ->> 'gpu_class', ''),
               'storage_kind', coalesce(record.dimensions ->> 'kind', '')
           )
       )                                                   AS event
  FROM billing_usagerecord record
  JOIN tenants_tenant tenant ON tenant.id = record.tenant_id
  JOIN tenants_project project ON project.id = record.project_id
 CROSS JOIN LATERAL (
        SELECT sum(charge.amount_micros) AS micros FROM billing_charge charge WHERE charge.usage_record_id = record.id
       ) cost;

COMMENT ON VIEW reporting.usage_events IS
    'One row per measured quantity, as a CloudEvent 1.0 for metering systems such as OpenMeter. Quantities and costs are
     decimal strings, so that they stay exact.';
COMMENT ON COLUMN reporting.usage_events.tenant IS 'Slug of the tenant, the event''s subject.';
COMMENT ON COLUMN reporting.usage_events.used_at IS 'Time of use, the event''s time.';
COMMENT ON COLUMN reporting.usage_events.event IS
    'The event. Its source and id never change, so a receiver can ignore a repeat. Its cost is null if it has no price.';
