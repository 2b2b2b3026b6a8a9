"""Encoding of finished pictures, and their upload to the storage."""

import hashlib
import io

import httpx
from PIL import Image

from inference.contract import GenerationTask, StoredOutput, UploadTarget
from inference.worker.transfer import upload


def encode_image(image: Image.Image, output_format: str, output_compression: int) -> bytes:
    """Encode a picture as png, jpeg or webp; `output_compression` (0 to 100) is the quality of the latter two."""
    # Level 1 of PNG is three times faster than the default, for a few per cent more bytes.
    options = {"compress_level": 1} if output_format == "png" else {"quality": output_compression}
    buffer = io.BytesIO()
    image.save(buffer, output_format, **options)
    return buffer.getvalue()


def store_output(
    client: httpx.Client, task: GenerationTask, target: UploadTarget, url: str, image: Image.Image
) -> StoredOutput:
    """Upload a picture to `url`, one of its target's. Raises `TransferError`, also if another is stored there."""
    data = encode_image(image, task.output_format, task.output_compression)
    upload(client, url, data, content_type=f"image/{task.output_format}")
    sha256 = hashlib.sha256(data).hexdigest()
    return StoredOutput(index=target.index, seed=target.seed, sha256=sha256, size_bytes=len(data))
