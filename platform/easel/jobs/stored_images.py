"""Looks at the images that a dedicated pool's worker says it has stored, before its success is believed.

Size and SHA-256 are those of the object in the store. The object must be under the key of this attempt, no larger than
its pixels uncompressed, and a whole file of the promised format with the promised width and height. It isn't decoded:
that would let a worker attack the decoder, and what the pixels show is between the tenant and its worker.

A success without such objects is a failure of the attempt. Reading an object is slow and needs no database, so the
completion consumer lets a thread do it (`easel.processes.image_checks`), outside any transaction.
"""

import hashlib
from dataclasses import dataclass, replace
from uuid import UUID

from django.db.models import QuerySet

from easel.catalog.models import Pool
from easel.jobs.errors import ImageRefused
from easel.jobs.evidence import is_believed
from easel.jobs.image_files import NotAnImage, image_size
from easel.jobs.models import Attempt
from easel.jobs.storage_keys import attempt_keys, attempt_of_key, output_key
from easel.storage import Store
from inference.contract import AttemptFinished, StoredOutput

_BYTES_PER_PIXEL = 4
_BYTES_AROUND = 2**16  # headers, colour profiles, and what compression adds to noise
_CHUNK_BYTES = 2**18


def image_bytes_max(*, width: int, height: int) -> int:
    """Return the size of the largest object that an image of these pixels may be."""
    return _BYTES_PER_PIXEL * width * height + _BYTES_AROUND


def attempt_is_live(token: str) -> bool:
    """Return true while the signed URLs of an attempt are good: until its end, or until its job is to be canceled."""
    return _live(token).exists()


def upload_bytes_max(key: str) -> int | None:
    """Return how large an object may be uploaded to a key; None if no live attempt has to store anything there."""
    token = attempt_of_key(key)
    attempt = token and _live(token).select_related("job__tenant").first()
    if not attempt or key not in attempt_keys(attempt.job, attempt.token):
        return None
    return image_bytes_max(width=attempt.job.width, height=attempt.job.height)


def _live(token: UUID | str) -> QuerySet[Attempt]:
    return Attempt.objects.filter(token=token, state=Attempt.State.LIVE, job__cancel_requested_at=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromisedImage:
    """An image that an attempt has to store."""

    index: int
    seed: int
    key: str
    output_format: str
    width: int
    height: int


def images_promised(pool: Pool, report: AttemptFinished) -> list[PromisedImage]:
    """Return what must be looked at before a report is believed; nothing if it is believed, or changes nothing."""
    if is_believed(pool) or report.outcome != "succeeded":
        return []
    token = UUID(report.attempt_token)
    live = Attempt.objects.filter(token=token, state=Attempt.State.LIVE, job__pool=pool)
    attempt = live.select_related("job__tenant").first()
    if attempt is None:
        return []
    job = attempt.job
    return [
        PromisedImage(
            index=index,
            seed=job.seed + index,
            key=output_key(job, token, index),
            output_format=job.output_format,
            width=job.width,
            height=job.height,
        )
        for index in range(job.n)
    ]


def images_confirmed(store: Store, images: list[PromisedImage], report: AttemptFinished) -> AttemptFinished:
    """Return the report with the images as they are stored, or as a failure. Raises what an unavailable store does."""
    try:
        if sorted(output.index for output in report.outputs) != [image.index for image in images]:
            raise NotAnImage(f"the report has {len(report.outputs)} outputs, and the job has {len(images)} images")
        return replace(report, outputs=tuple(_stored(store, image) for image in images))
    except (NotAnImage, FileNotFoundError) as error:
        why = "it isn't stored" if isinstance(error, FileNotFoundError) else str(error)
        message = f"an image was refused: {why}"
        failed = replace(report, outcome="failed", outputs=(), retryable=True)
        return replace(failed, error_code=ImageRefused.code, error_message=message)


def _stored(store: Store, image: PromisedImage) -> StoredOutput:
    bytes_max = image_bytes_max(width=image.width, height=image.height)
    size_bytes = store.size_bytes(image.key)
    if size_bytes > bytes_max:
        store.delete(image.key)  # nobody reads so much
        raise NotAnImage(f"it has {size_bytes} bytes, of {bytes_max} at most")
    content, digest = bytearray(), hashlib.sha256()
    with store.open(image.key) as file:
        while chunk := file.read(_CHUNK_BYTES):
            content += chunk
            digest.update(chunk)
            if len(content) > bytes_max:
                raise NotAnImage(f"it has over {bytes_max} bytes")
    found = image_size(bytes(content), image.output_format)
    if found != (image.width, image.height):
        raise NotAnImage(f"it has {found[0]}x{found[1]} pixels, not {image.width}x{image.height}")
    return StoredOutput(index=image.index, seed=image.seed, sha256=digest.hexdigest(), size_bytes=len(content))
