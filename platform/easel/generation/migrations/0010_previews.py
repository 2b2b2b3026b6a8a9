"""Previews of images on their way, and who waits for them; what attempts stored beside images is swept."""

from django.db import migrations, models
from django.db.models import Q

# As in `0002`, and word of every other change for those who follow a job.
FORWARD = """
CREATE OR REPLACE FUNCTION generation_job_notify() RETURNS trigger LANGUAGE plpgsql AS $$
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

CREATE FUNCTION generation_attempt_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('easel_progress', NEW.job_id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER generation_attempt_notified AFTER UPDATE OF steps_done, previews ON generation_attempt
    FOR EACH ROW WHEN (NEW.steps_done <> OLD.steps_done OR NEW.previews <> OLD.previews)
    EXECUTE FUNCTION generation_attempt_notify();

-- What was stored before this has been looked at by nobody; images of jobs that succeeded are in their places.
UPDATE generation_attempt SET swept_at = finished_at WHERE state = 'succeeded';
"""

BACKWARD = """
DROP TRIGGER generation_attempt_notified ON generation_attempt;
DROP FUNCTION generation_attempt_notify;
CREATE OR REPLACE FUNCTION generation_job_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state = 'queued' THEN
        PERFORM pg_notify('easel_queued', NEW.pool_id::text);
    ELSIF NEW.finished_at IS NOT NULL THEN
        PERFORM pg_notify('easel_finished', NEW.id::text);
    END IF;
    RETURN NULL;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("generation", "0009_months_count_their_jobs")]

    operations = [
        migrations.AddField(
            model_name="job",
            name="partial_images",
            field=models.PositiveSmallIntegerField(default=0, help_text="Previews of each image on its way."),
        ),
        migrations.AddField(
            model_name="attempt",
            name="previews",
            field=models.JSONField(default=list, help_text="Those stored, as [index of the image, number]."),
        ),
        migrations.AddField(
            model_name="attempt",
            name="swept_at",
            field=models.DateTimeField(null=True, help_text="When what it stored and no image is was deleted."),
        ),
        migrations.AddIndex(
            model_name="attempt",
            index=models.Index(fields=["dispatched_at"], condition=Q(swept_at=None), name="attempt_to_sweep"),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
