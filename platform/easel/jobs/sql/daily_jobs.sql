-- Daily sums of ended jobs, sealed together with the day's charges (`billing/sql/usage.sql`), under the same lock.

CALL core_append_only('jobs_dailyjobs');

-- Rounds to ten steps per power of ten: 1, 1.259, 1.585 ...
CREATE OR REPLACE FUNCTION jobs_step_of_ten(seconds numeric) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN seconds < 0.01 THEN 0 ELSE round(power(10, round(log(seconds::float8) * 10) / 10)::numeric, 3) END
$$;

-- A job that ends on a sealed day adds itself to the sums. It does so at the commit, so that it waits for no other lock
-- while it holds the day's.
CREATE OR REPLACE FUNCTION jobs_add_up_job() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE ended date := (NEW.finished_at AT TIME ZONE 'UTC')::date;
BEGIN
    IF ended > (SELECT max(day) FROM billing_costday) THEN
        PERFORM billing_day_lock(ended, 'ROW EXCLUSIVE');
    END IF;
    -- Read the sealed days again, in a snapshot taken after the lock: this day may have been sealed meanwhile.
    IF ended <= (SELECT max(day) FROM billing_costday) THEN
        INSERT INTO jobs_dailyjobs (day, tenant_id, project_id, pool, model, model_version, quality, tier, resolution, state, seconds, jobs, images)
        SELECT (job.finished_at AT TIME ZONE 'UTC')::date, job.tenant_id, job.project_id, pool.slug, model.name,
               model.name || '@' || version.number, job.quality, job.tier, job.width || 'x' || job.height, job.state,
               jobs_step_of_ten(extract(epoch FROM job.finished_at - job.created_at)), 1, job.n
          FROM (SELECT NEW.*) job
          JOIN catalog_pool pool ON pool.id = job.pool_id
          JOIN catalog_modelversion version ON version.id = job.model_version_id
          JOIN catalog_model model ON model.id = version.model_id;
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS jobs_job_ended ON jobs_job;
CREATE CONSTRAINT TRIGGER jobs_job_ended AFTER UPDATE ON jobs_job DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL) EXECUTE FUNCTION jobs_add_up_job();

DROP TRIGGER IF EXISTS jobs_job_made_ended ON jobs_job;
CREATE CONSTRAINT TRIGGER jobs_job_made_ended AFTER INSERT ON jobs_job DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.finished_at IS NOT NULL) EXECUTE FUNCTION jobs_add_up_job();

-- Sealing a day adds up the jobs that ended on it.
CREATE OR REPLACE FUNCTION jobs_add_up_day() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN

        INSERT INTO jobs_dailyjobs (day, tenant_id, project_id, pool, model, model_version, quality, tier, resolution, state, seconds, jobs, images)
        SELECT (job.finished_at AT TIME ZONE 'UTC')::date, job.tenant_id, job.project_id, pool.slug, model.name,
               model.name || '@' || version.number, job.quality, job.tier, job.width || 'x' || job.height, job.state,
               jobs_step_of_ten(extract(epoch FROM job.finished_at - job.created_at)), count(*), sum(job.n)
          FROM jobs_job job
          JOIN catalog_pool pool ON pool.id = job.pool_id
          JOIN catalog_modelversion version ON version.id = job.model_version_id
          JOIN catalog_model model ON model.id = version.model_id
         -- In the order of the index: by version, then by the end.
         WHERE job.model_version_id = ANY(ARRAY(SELECT id FROM catalog_modelversion)) AND job.finished_at >= NEW.day::timestamp AT TIME ZONE 'UTC' AND job.finished_at < (NEW.day + 1)::timestamp AT TIME ZONE 'UTC'
         GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER jobs_day_added_up AFTER INSERT ON billing_costday
    FOR EACH ROW EXECUTE FUNCTION jobs_add_up_day();
