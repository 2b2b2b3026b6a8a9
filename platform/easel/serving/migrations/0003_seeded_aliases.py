"""Gives an older installation the aliases that a new one begins with (`easel.seed`, as of this migration).

It happens once, so that an alias that an operator removes afterwards stays removed. What an operator has set stays.
"""

from pathlib import PurePath
from typing import Any

from django.db import migrations
from django.utils import timezone

FORMATS = {"gpt-image-1": "", "gpt-image-1-mini": "", "dall-e-2": "url", "dall-e-3": "url"}
IGNORED = ["background", "moderation", "style"]
HUB_ID = "Tongyi-MAI/Z-Image-Turbo"  # for a model with these weights alone


def aliases_add(apps: Any, schema_editor: Any) -> None:
    """Let the names stand for the default model; a new installation has none yet, and `easel.seed` sets them."""
    models, aliases = apps.get_model("catalog", "Model").objects, apps.get_model("serving", "Alias").objects
    model = models.filter(is_default=True).first()
    if model is None:
        return
    formats = FORMATS if model.name != PurePath(HUB_ID).name.lower() else {**FORMATS, HUB_ID: ""}
    taken = {*models.values_list("name", flat=True), *aliases.filter(tenant=None).values_list("name", flat=True)}
    for name in formats.keys() - taken:
        aliases.create(
            name=name,
            model=model,
            tenant=None,
            response_format=formats[name],
            ignored=IGNORED,
            is_lenient=False,
            created_at=timezone.now(),
        )


class Migration(migrations.Migration):
    dependencies = [("serving", "0002_aliases"), ("catalog", "0001_initial")]

    operations = [migrations.RunPython(aliases_add, migrations.RunPython.noop)]
