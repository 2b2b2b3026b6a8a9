"""URLs of images, for pages that show them."""

from easel.jobs.models import Output
from easel.storage import store

URL_SECONDS = 3600


def image_url(output: Output) -> str:
    """A signed URL, valid for an hour: of the API itself if images are in a folder, else of the bucket."""
    return store().signed_url("GET", output.storage_key, seconds=URL_SECONDS, base="")
