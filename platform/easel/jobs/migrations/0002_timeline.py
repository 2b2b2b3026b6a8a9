from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="attempt",
            name="phases",
            field=models.JSONField(
                help_text="Seconds from its beginning to each phase, as the worker measured.", null=True
            ),
        ),
        migrations.AddField(
            model_name="attempt",
            name="capped_since",
            field=models.DateTimeField(
                help_text="Since when its tenant had run as many jobs as it may, when it was dispatched.", null=True
            ),
        ),
        migrations.AddField(
            model_name="fairshare",
            name="capped_since",
            field=models.DateTimeField(
                help_text="Since when the tenant runs as many jobs as it may while others of it wait.", null=True
            ),
        ),
    ]
