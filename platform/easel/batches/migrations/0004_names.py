from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("batches", "0003_output_seconds"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="batch",
            options={"verbose_name_plural": "batches"},
        ),
    ]
