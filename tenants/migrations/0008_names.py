from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0007_file_limits"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="apikey",
            options={"verbose_name": "API key"},
        ),
        migrations.AlterModelOptions(
            name="blocklistentry",
            options={"verbose_name_plural": "block list entries"},
        ),
    ]
