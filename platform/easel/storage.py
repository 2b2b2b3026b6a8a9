"""Stores adapters and images as objects, in a folder or an S3 bucket, as `EASEL_STORAGE_URL` says.

Workers and tenants reach an object by a signed URL, which allows one method on one key until it expires. They hold no
credentials of the store.
"""

import filecmp
import hashlib
import hmac
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, Protocol
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from django.conf import settings

from core.errors import DomainError
from easel.config import BadSetting

Method = Literal["GET", "PUT"]
S3_DELETES = 1000  # objects per call, the maximum of S3
_KEY = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)+")


class BucketRefused(DomainError, code="bucket_refused"):
    """The bucket did not take its CORS rules.

    Check that the bucket exists, and that the credentials are allowed s3:PutBucketCORS on it.
    """


class StoreIsFolder(DomainError, code="store_is_folder"):
    """Images are in a folder, not in a bucket: Easel serves them itself, to the allowed origins.

    Nothing is to be done. If images should be in a bucket, set `EASEL_STORAGE_URL`.
    """


class Store(Protocol):
    """An object store. Keys are paths; objects are never changed in place, only replaced or deleted."""

    def put(self, key: str, file: IO[bytes], content_type: str) -> None: ...

    def get(self, key: str) -> bytes:
        """Return an object's content. Raises `FileNotFoundError`."""

    def open(self, key: str) -> IO[bytes]:
        """Return an object's content as a file, which the caller closes. Raises `FileNotFoundError`."""

    def size_bytes(self, key: str) -> int:
        """Return an object's size. Raises `FileNotFoundError`."""

    def delete(self, key: str) -> None:
        """Delete an object, if it exists."""

    def delete_all(self, keys: Iterable[str]) -> None:
        """Delete those objects that exist."""

    def clear(self, folder: str) -> int:
        """Delete everything under `folder/`, whatever its name; return the number of objects."""

    def keys(self, folder: str) -> Iterator[str]:
        """Yield the keys of all objects below `folder`, in any order."""

    def signed_url(
        self,
        method: Method,
        key: str,
        *,
        seconds: int,
        content_type: str = "",
        attempt: str = "",
        key_id: str = "",
        base: str,
    ) -> str:
        """Return a URL that is valid for `seconds`. A PUT must send `content_type` and `If-None-Match: *`.

        `base` is the URL at which the caller reaches the API. The API takes a URL that names an `attempt` until the
        attempt ends, and one that names an API key until that loses its access; a bucket knows of neither.
        """


class ObjectTooLarge(ValueError):
    """An object has more bytes than it may have."""


class Readable(Protocol):
    """The source of an object: a file, or the body of a request."""

    def read(self, size: int = -1, /) -> bytes: ...


class _Bounded:
    """A file that has too many bytes if more than `bytes_max` are read of it."""

    def __init__(self, file: Readable, bytes_max: int) -> None:
        self._file, self._left = file, bytes_max

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._left -= len(chunk)
        if self._left < 0:
            raise ObjectTooLarge
        return chunk


class FolderStore:
    """Objects as files under a folder. The API serves them at `/storage/` to holders of a signed URL."""

    def __init__(self, root: Path, *, secret: str) -> None:
        self.root = root
        self._secret = hmac.digest(secret.encode(), b"easel storage url", hashlib.sha256)

    def path(self, key: str) -> Path:
        """Return the path of an object. Raises `ValueError` for a key that could lead out of the folder."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a storage key: {key!r}")
        return self.root / key

    def put(self, key: str, file: IO[bytes], content_type: str) -> None:
        path = self.path(key)
        with _written_beside(path, file) as written:
            os.replace(written, path)

    def put_new(self, key: str, file: Readable, *, bytes_max: int) -> None:
        """Store an object, idempotently. Raises `FileExistsError` if this key has other content, `ObjectTooLarge`."""
        path = self.path(key)
        with _written_beside(path, _Bounded(file, bytes_max)) as written:
            try:
                os.link(written, path)
            except FileExistsError:
                if not filecmp.cmp(written, path, shallow=False):
                    raise

    def get(self, key: str) -> bytes:
        return self.path(key).read_bytes()

    def open(self, key: str) -> IO[bytes]:
        return self.path(key).open("rb")

    def size_bytes(self, key: str) -> int:
        return self.path(key).stat().st_size

    def delete(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def delete_all(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)

    def clear(self, folder: str) -> int:
        root = self.path(f"{folder}/all").parent
        files = sum(len(files) for _, _, files in os.walk(root))
        if root.exists():
            shutil.rmtree(root)
        return files

    def keys(self, folder: str) -> Iterator[str]:
        for path in self.path(folder).rglob("*"):
            if path.is_file():
                yield path.relative_to(self.root).as_posix()

    def signed_url(
        self,
        method: Method,
        key: str,
        *,
        seconds: int,
        content_type: str = "",
        attempt: str = "",
        key_id: str = "",
        base: str,
    ) -> str:
        expires = int(time.time()) + seconds
        signed = {"expires": str(expires), "type": content_type}
        signed |= {name: value for name, value in (("attempt", attempt), ("key", key_id)) if value}
        query = urlencode({**signed, "signature": self._signature(method, key, signed)})
        return f"{base}/storage/{key}?{query}"

    def allows(self, method: str, key: str, query: dict[str, str], *, now: float) -> bool:
        """Return true if a request's query has a valid, unexpired signature for this method and key."""
        expires = query.get("expires", "")
        if not re.fullmatch("[0-9]{1,12}", expires) or int(expires) < now:
            return False
        # A line break in one field could stand for the next field, so that a URL could lose its attempt or its key.
        if any("\n" in query.get(name, "") for name in ("type", "attempt", "key")):
            return False
        wanted = self._signature(method, key, query)
        return hmac.compare_digest(wanted.encode(), query.get("signature", "").encode())

    def _signature(self, method: str, key: str, query: Mapping[str, str]) -> str:
        text = "\n".join((method, key, str(int(query["expires"])), query.get("type", "")))
        for name in ("attempt", "key"):
            if name in query:
                text += f"\n{name} {query[name]}"
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


@contextmanager
def _written_beside(path: Path, file: Readable) -> Iterator[str]:
    """Write the content to a file beside `path`, for the caller to move there, so that no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is a valid key, so that the orphan of a crash is found among the keys.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix="part-", delete=False) as part:
        try:
            shutil.copyfileobj(file, part, 2**20)
            part.flush()
            os.fsync(part.fileno())
            yield part.name
        finally:
            Path(part.name).unlink(missing_ok=True)


class S3Store:
    """Objects in an S3 bucket; a signed URL leads to the bucket itself.

    Its URL is `s3://bucket/prefix?endpoint=https://…&region=…`. The credentials come from the standard AWS variables.
    """

    def __init__(self, bucket: str, *, prefix: str, endpoint: str | None, region: str | None) -> None:
        import boto3  # slow to import, and a folder needs none of it
        from botocore.config import Config as BotoConfig

        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            config=BotoConfig(signature_version="s3v4", s3={"addressing_style": "path" if endpoint else "auto"}),
        )
        self._bucket = bucket
        self._prefix = prefix

    def _name(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def put(self, key: str, file: IO[bytes], content_type: str) -> None:
        self._client.put_object(**self._name(key), Body=file, ContentType=content_type)

    def get(self, key: str) -> bytes:
        return self.open(key).read()

    def open(self, key: str) -> IO[bytes]:
        try:
            body: IO[bytes] = self._client.get_object(**self._name(key))["Body"]
        except self._client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(key) from error
        return body

    def size_bytes(self, key: str) -> int:
        from botocore.exceptions import ClientError

        try:
            return int(self._client.head_object(**self._name(key))["ContentLength"])
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
                raise FileNotFoundError(key) from error
            raise

    def delete(self, key: str) -> None:
        self._client.delete_object(**self._name(key))

    def delete_all(self, keys: Iterable[str]) -> None:
        self._delete_names([self._prefix + key for key in keys])

    def clear(self, folder: str) -> int:
        return sum(self._delete_names(names) for names in self._pages(folder))

    def _pages(self, folder: str) -> Iterator[list[str]]:
        """Yield the names of all objects below `folder`, page by page."""
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/"):
            yield [found["Key"] for found in page.get("Contents", ())]

    def _delete_names(self, names: list[str]) -> int:
        for start in range(0, len(names), S3_DELETES):
            objects = [{"Key": name} for name in names[start : start + S3_DELETES]]
            answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
            if errors := answer.get("Errors"):
                reason = errors[0].get("Message", errors[0]["Code"])
                raise OSError(f"the bucket did not delete {errors[0]['Key']}: {reason}")
        return len(names)

    def keys(self, folder: str) -> Iterator[str]:
        for names in self._pages(folder):
            yield from (name.removeprefix(self._prefix) for name in names)

    @property
    def bucket(self) -> str:
        return self._bucket

    def cors_set(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Replace all CORS rules of the bucket; without any, pages of no origin may read it. Raises `BucketRefused`."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if rules:
                self._client.put_bucket_cors(Bucket=self._bucket, CORSConfiguration={"CORSRules": list(rules)})
            else:
                self._client.delete_bucket_cors(Bucket=self._bucket)
        except (BotoCoreError, ClientError) as error:
            raise BucketRefused(f"the bucket {self._bucket} did not take its CORS rules: {error}") from error

    def signed_url(
        self,
        method: Method,
        key: str,
        *,
        seconds: int,
        content_type: str = "",
        attempt: str = "",
        key_id: str = "",
        base: str,
    ) -> str:
        params: dict[str, str] = self._name(key)
        if method == "PUT":
            params["ContentType"], params["IfNoneMatch"] = content_type, "*"
        operation = f"{method.lower()}_object"
        return str(self._client.generate_presigned_url(operation, Params=params, ExpiresIn=seconds))


def cors_rules(origins: Collection[str]) -> list[dict[str, Any]]:
    """Return the rules, in the form of S3, by which pages of these origins may read images; none without origins."""
    if not origins:
        return []
    allowed = ["*"] if "*" in origins else sorted(origins)
    return [
        {
            "AllowedOrigins": allowed,
            "AllowedMethods": ["GET", "HEAD"],
            "AllowedHeaders": ["*"],
            "ExposeHeaders": ["ETag", "Content-Length", "Content-Range"],
            "MaxAgeSeconds": 7200,
        }
    ]


@cache
def store() -> Store:
    """Return the store that `EASEL_STORAGE_URL` names. Raises `BadSetting`."""
    parts = urlsplit(settings.EASEL.storage_url)
    if parts.scheme == "file":
        return FolderStore(Path(unquote(parts.path)), secret=settings.EASEL.secret_key)
    if parts.scheme == "s3":
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        prefix = f"{parts.path.strip('/')}/".lstrip("/")
        return S3Store(parts.netloc, prefix=prefix, endpoint=query.get("endpoint"), region=query.get("region"))
    raise BadSetting("EASEL_STORAGE_URL", "must begin with file:/// or s3://")
