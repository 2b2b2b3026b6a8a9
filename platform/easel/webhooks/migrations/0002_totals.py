"""What attempts came to, kept longer than they are."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("webhooks", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="WebhookTotal",
            fields=[
                (
                    "outcome",
                    models.CharField(
                        choices=[
                            ("delivered", "answered with 2xx"),
                            ("retried", "failed, and will be made again"),
                            ("given_up", "failed, and was the last"),
                        ],
                        max_length=10,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("attempts", models.BigIntegerField()),
            ],
        ),
    ]
