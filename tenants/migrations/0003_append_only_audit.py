"""What was done stays on record: nobody changes or removes an audit event."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION tenants_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER tenants_auditevent_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON tenants_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION tenants_refuse_change();
"""
BACKWARD = """
DROP TRIGGER tenants_auditevent_append_only ON tenants_auditevent;
DROP FUNCTION tenants_refuse_change;
"""


class Migration(migrations.Migration):
    dependencies = [("tenants", "0002_audit_event")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
