"""A job whose time is up expires in a worker's hands too, and one that is answered from the cache never is in any; the
guard of 0002 with these transitions."""

from django.db import migrations

BEFORE = {
    "queued": ("dispatched", "failed", "canceled", "expired"),
    "dispatched": ("running", "queued", "succeeded", "failed", "canceled"),
    "running": ("queued", "succeeded", "failed", "canceled"),
}
AFTER = {
    "queued": (*BEFORE["queued"], "succeeded"),
    "dispatched": (*BEFORE["dispatched"], "expired"),
    "running": (*BEFORE["running"], "expired"),
}


def guard(allowed: dict[str, tuple[str, ...]]) -> str:
    pairs = ", ".join(f"('{old}', '{new}')" for old, news in allowed.items() for new in news)
    return f"""
CREATE OR REPLACE FUNCTION generation_job_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'queued' THEN
            RAISE EXCEPTION 'a job begins queued, not %', NEW.state USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN ({pairs}) THEN
        RAISE EXCEPTION 'job %: % -> % is no transition', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("generation", "0006_jobs_by_time_and_request")]
    operations = [migrations.RunSQL(guard(AFTER), guard(BEFORE))]
