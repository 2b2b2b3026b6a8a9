-- Usage and charges are append-only. Daily sums count every charge exactly once. A charge takes a shared lock on its day
-- until it commits. Sealing a day takes the lock exclusively. A charge of a sealed day adds itself.

-- The lock of a day is that of an empty table, of which there is one for each day of the week. Unlike an advisory lock, a
-- role without rights on the table can't take it; unlike the lock of a row, a shared one writes nothing.
DO $$ BEGIN
    FOR weekday IN 0..6 LOOP
        EXECUTE format('CREATE TABLE IF NOT EXISTS billing_daylock_%s ()', weekday);
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION billing_day_lock(day date, mode text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('LOCK TABLE billing_daylock_%s IN %s MODE', extract(isodow FROM day)::int - 1, mode);
END $$;

CALL core_append_only('billing_usagerecord', 'billing_charge', 'billing_costday', 'billing_dailycost');

-- The day before the first charge counts as sealed, so that days are sealed in order from the first one on.
INSERT INTO billing_costday
SELECT coalesce((min(created_at) AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date) - 1, now()
  FROM billing_charge HAVING NOT EXISTS (SELECT FROM billing_costday);

-- The query that adds charges of a table (or transition table) to the daily sums, for EXECUTE. A transition table is
-- visible in its trigger alone, so that this can't be a view or a function of its own.
CREATE OR REPLACE FUNCTION billing_sum_query(charges text, condition text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT format($query$
        INSERT INTO billing_dailycost (
            day, booked_at, tenant_id, project_id, labels, pool, model, model_version, adapter, quality, tier,
            resolution, api_key, gpu_class, storage_kind, meter, kind, rate_id, contract_id, discount, statement_id,
            currency, quantity, amount_micros, list_micros, charges
        )
        SELECT (record.occurred_at AT TIME ZONE 'UTC')::date,
               -- Depending on the time zone, a month begins at a quarter hour between 10:00 UTC on the last day of the
               -- month before and 12:00 UTC on the first day.
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
               sum(CASE charge.kind WHEN 'waiver' THEN 0 ELSE record.quantity END), sum(charge.amount_micros),
               sum(coalesce(charge.list_micros, charge.amount_micros)), count(*)
          FROM %I AS charge JOIN billing_usagerecord AS record ON record.id = charge.usage_record_id
         WHERE %s
         GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22
    $query$, charges, condition)
$$;

CREATE OR REPLACE FUNCTION billing_add_up() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE written date;
BEGIN
    FOR written IN SELECT DISTINCT (created_at AT TIME ZONE 'UTC')::date FROM added ORDER BY 1 LOOP
        IF written > (SELECT max(day) FROM billing_costday) THEN
            PERFORM billing_day_lock(written, 'ROW EXCLUSIVE');
        END IF;
        -- Read again with a snapshot taken after the lock: the day may have been sealed meanwhile.
        IF written <= (SELECT max(day) FROM billing_costday) THEN
            EXECUTE billing_sum_query('added', '(charge.created_at AT TIME ZONE ''UTC'')::date = $1') USING written;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER billing_charge_added_up AFTER INSERT ON billing_charge
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION billing_add_up();

-- Sums the charges of a day; false if that was done before. Waits for transactions that have written charges of the day.
CREATE OR REPLACE FUNCTION billing_seal_day(sealed date, sealed_at timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE newest date;
BEGIN
    PERFORM billing_day_lock(sealed, 'SHARE ROW EXCLUSIVE');
    newest := (SELECT max(day) FROM billing_costday);
    IF sealed <= newest THEN
        RETURN false;
    ELSIF sealed > newest + 1 THEN
        RAISE EXCEPTION 'days are sealed in order: % is next', newest + 1 USING ERRCODE = 'restrict_violation';
    END IF;
    INSERT INTO billing_costday VALUES (sealed, sealed_at);
    EXECUTE billing_sum_query('billing_charge', 'charge.created_at >= $1 AND charge.created_at < $2')
        USING sealed::timestamp AT TIME ZONE 'UTC', (sealed + 1)::timestamp AT TIME ZONE 'UTC';
    RETURN true;
END $$;
