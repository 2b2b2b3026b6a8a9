"""Every change of what requests are answered by raises one revision, in the same transaction."""

from django.db import migrations, models

TABLES = ("tenant", "project", "apikey", "quota", "blocklistrevision")

FORWARD = """
INSERT INTO tenants_configuration (revision) VALUES (0);

CREATE FUNCTION tenants_count_configuration_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tenants_configuration SET revision = revision + 1;
    RETURN NULL;
END $$;
"""
BACKWARD = "DROP FUNCTION tenants_count_configuration_change;"


def counted(*tables: str) -> migrations.RunSQL:
    """Has changes of these tables counted."""
    return migrations.RunSQL(
        "".join(
            f"CREATE TRIGGER {table}_configured AFTER INSERT OR UPDATE OR DELETE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION tenants_count_configuration_change();"
            for table in tables
        ),
        "".join(f"DROP TRIGGER {table}_configured ON {table};" for table in tables),
    )


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0006_running_jobs_max"),
    ]

    operations = [
        migrations.CreateModel(
            name="Configuration",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("revision", models.BigIntegerField()),
            ],
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
        counted(*(f"tenants_{table}" for table in TABLES)),
    ]
