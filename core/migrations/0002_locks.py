from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("core", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Lock",
            fields=[("name", models.CharField(max_length=500, primary_key=True, serialize=False))],
        ),
    ]
