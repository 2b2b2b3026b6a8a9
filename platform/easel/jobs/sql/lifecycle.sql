-- The state machine of a job: it begins queued and takes only these transitions, so a final state is final.

CREATE OR REPLACE FUNCTION jobs_job_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'queued' THEN
            RAISE EXCEPTION 'a new job must be queued, not %', NEW.state USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN (
        ('queued', 'dispatched'), ('queued', 'failed'), ('queued', 'canceled'), ('queued', 'expired'), ('queued', 'succeeded'),
        ('dispatched', 'running'), ('dispatched', 'queued'), ('dispatched', 'succeeded'), ('dispatched', 'failed'), ('dispatched', 'canceled'), ('dispatched', 'expired'),
        ('running', 'queued'), ('running', 'succeeded'), ('running', 'failed'), ('running', 'canceled'), ('running', 'expired')
    ) THEN
        RAISE EXCEPTION 'job %: the transition % -> % is not allowed', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER jobs_job_guarded BEFORE INSERT OR UPDATE OF state ON jobs_job
    FOR EACH ROW EXECUTE FUNCTION jobs_job_guard();

-- Notifications: they wake the dispatcher (`easel_queued`) and waiting clients (`easel_progress`, `easel_finished`).
CREATE OR REPLACE FUNCTION jobs_job_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state = 'queued' THEN
        PERFORM pg_notify('easel_queued', NEW.pool_id::text);
    END IF;
    IF NEW.finished_at IS NOT NULL THEN
        PERFORM pg_notify('easel_finished', NEW.id::text);
    ELSIF TG_OP = 'UPDATE' THEN
        PERFORM pg_notify('easel_progress', NEW.id::text);
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER jobs_job_notified AFTER INSERT OR UPDATE OF state ON jobs_job
    FOR EACH ROW EXECUTE FUNCTION jobs_job_notify();

CREATE OR REPLACE FUNCTION jobs_attempt_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('easel_progress', NEW.job_id::text);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER jobs_attempt_notified AFTER UPDATE OF steps_done, previews ON jobs_attempt
    FOR EACH ROW WHEN (NEW.steps_done <> OLD.steps_done OR NEW.previews <> OLD.previews) EXECUTE FUNCTION jobs_attempt_notify();
