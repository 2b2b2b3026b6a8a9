"""The job's state machine, held by the database for every writer."""

from django.db import migrations

# As `easel.generation.models.TRANSITIONS` (a test compares them); written out, since migrations don't change.
ALLOWED = {
    "queued": ("dispatched", "failed", "canceled", "expired"),
    "dispatched": ("running", "queued", "succeeded", "failed", "canceled"),
    "running": ("queued", "succeeded", "failed", "canceled"),
}
PAIRS = ", ".join(f"('{old}', '{new}')" for old, news in ALLOWED.items() for new in news)

# The NOTIFY of a change reaches listeners exactly when the change is committed: it wakes the dispatcher for a job
# that is (again) queued and the waiting clients for one that is final. Losing one costs a poll, not a job.
FORWARD = f"""
CREATE FUNCTION generation_job_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'queued' THEN
            RAISE EXCEPTION 'a job begins queued, not %', NEW.state USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN ({PAIRS}) THEN
        RAISE EXCEPTION 'job %: % -> % is no transition', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER generation_job_guarded BEFORE INSERT OR UPDATE OF state ON generation_job
    FOR EACH ROW EXECUTE FUNCTION generation_job_guard();

CREATE FUNCTION generation_job_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state = 'queued' THEN
        PERFORM pg_notify('easel_queued', NEW.pool_id::text);
    ELSIF NEW.finished_at IS NOT NULL THEN
        PERFORM pg_notify('easel_finished', NEW.id::text);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER generation_job_notified AFTER INSERT OR UPDATE OF state ON generation_job
    FOR EACH ROW EXECUTE FUNCTION generation_job_notify();
"""

BACKWARD = """
DROP TRIGGER generation_job_guarded ON generation_job;
DROP TRIGGER generation_job_notified ON generation_job;
DROP FUNCTION generation_job_guard, generation_job_notify;
"""


class Migration(migrations.Migration):
    dependencies = [("generation", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
