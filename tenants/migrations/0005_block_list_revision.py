"""Every change of a block list, whoever makes it, raises the list's revision in the same transaction."""

import django.db.models.deletion
from django.db import migrations, models

FORWARD = """
INSERT INTO tenants_blocklistrevision (tenant_id, revision) VALUES (NULL, 0);

CREATE FUNCTION tenants_count_block_list_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner uuid;
BEGIN
    FOR owner IN
        SELECT OLD.tenant_id WHERE TG_OP <> 'INSERT' UNION SELECT NEW.tenant_id WHERE TG_OP <> 'DELETE' ORDER BY 1
    LOOP
        IF owner IS NULL THEN
            UPDATE tenants_blocklistrevision SET revision = revision + 1 WHERE tenant_id IS NULL;
        ELSE
            INSERT INTO tenants_blocklistrevision AS list (tenant_id, revision) VALUES (owner, 1)
                ON CONFLICT (tenant_id) DO UPDATE SET revision = list.revision + 1;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER tenants_blocklistentry_revision AFTER INSERT OR UPDATE OR DELETE ON tenants_blocklistentry
    FOR EACH ROW EXECUTE FUNCTION tenants_count_block_list_change();

INSERT INTO tenants_blocklistrevision (tenant_id, revision)
    SELECT DISTINCT tenant_id, 1 FROM tenants_blocklistentry WHERE tenant_id IS NOT NULL;
"""
BACKWARD = """
DROP TRIGGER tenants_blocklistentry_revision ON tenants_blocklistentry;
DROP FUNCTION tenants_count_block_list_change;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0004_quotas_and_block_lists"),
    ]

    operations = [
        migrations.CreateModel(
            name="BlockListRevision",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("revision", models.BigIntegerField()),
                (
                    "tenant",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
            ],
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
