import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0010_key_limits"),
    ]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="moderation",
            field=models.CharField(
                choices=[("off", "nothing"), ("prompts", "prompts"), ("all", "prompts and images")],
                db_default="off",
                default="off",
                help_text="What the classifier judges (EASEL_MODERATION_URL).",
                max_length=7,
            ),
        ),
        migrations.AddField(
            model_name="tenant",
            name="moderation_categories",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=100),
                blank=True,
                db_default=[],
                default=list,
                help_text="Categories that are refused, as violence or violence=0.4; without one: whatever is flagged.",
                size=None,
            ),
        ),
        migrations.AddConstraint(
            model_name="tenant",
            constraint=models.CheckConstraint(
                condition=models.Q(("moderation__in", ["off", "prompts", "all"])), name="tenant_moderation_known"
            ),
        ),
    ]
