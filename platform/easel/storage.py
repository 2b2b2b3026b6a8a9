"""Where adapters and images are kept: a folder or an S3 bucket, by `EASEL_STORAGE_URL`.

Workers and tenants reach an object by a signed URL that allows one method on one key until it expires; neither
holds a credential of the store.
"""

import filecmp
import hashlib
import hmac
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, Protocol
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from django.conf import settings

from easel.config import BadSetting

Method = Literal["GET", "PUT"]
S3_DELETES = 1000  # what a bucket deletes by one call
_KEY = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)+")


class Store(Protocol):
    def put(self, key: str, file: IO[bytes], content_type: str) -> None: ...

    def get(self, key: str) -> bytes:
        """Raises `FileNotFoundError`."""
        ...

    def open(self, key: str) -> IO[bytes]:
        """To be read piece by piece, and closed. Raises `FileNotFoundError`."""
        ...

    def delete(self, key: str) -> None:
        """Does nothing when there is no such object."""
        ...

    def delete_all(self, keys: Iterable[str]) -> None:
        """Deletes those that are there."""
        ...

    def clear(self, folder: str) -> int:
        """Deletes everything under `folder/`, whatever its name; returns how many objects that were."""
        ...

    def keys(self, folder: str) -> Iterator[str]:
        """Of all objects below `folder`, in no order."""
        ...

    def signed_url(self, method: Method, key: str, *, seconds: int, content_type: str = "", base: str) -> str:
        """A URL good for `seconds`; a PUT must send `content_type`. `base` is where the caller reaches the API."""
        ...


class FolderStore:
    """Files under a folder, served by the API's `/storage/` to whoever holds a signed URL."""

    def __init__(self, root: Path, *, secret: str) -> None:
        self.root = root
        self._secret = hmac.digest(secret.encode(), b"easel storage url", hashlib.sha256)

    def path(self, key: str) -> Path:
        """Raises `ValueError` for a key that could leave the folder."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a storage key: {key!r}")
        return self.root / key

    def put(self, key: str, file: IO[bytes], content_type: str) -> None:
        path = self.path(key)
        with _aside(path, file) as written:
            os.replace(written, path)

    def put_new(self, key: str, file: IO[bytes]) -> None:
        """Raises `FileExistsError` when other content has this key; the same again changes nothing."""
        path = self.path(key)
        with _aside(path, file) as written:
            try:
                os.link(written, path)
            except FileExistsError:
                if not filecmp.cmp(written, path, shallow=False):
                    raise

    def get(self, key: str) -> bytes:
        return self.path(key).read_bytes()

    def open(self, key: str) -> IO[bytes]:
        return self.path(key).open("rb")

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

    def signed_url(self, method: Method, key: str, *, seconds: int, content_type: str = "", base: str) -> str:
        expires = int(time.time()) + seconds
        query = urlencode(
            {
                "expires": expires,
                "type": content_type,
                "signature": self._signature(method, key, expires, content_type),
            }
        )
        return f"{base}/storage/{key}?{query}"

    def allows(self, method: str, key: str, query: dict[str, str], *, now: float) -> bool:
        """Whether a request's query is a signature of ours for this method and key, not expired."""
        expires = query.get("expires", "")
        if not re.fullmatch("[0-9]{1,12}", expires) or int(expires) < now:
            return False
        wanted = self._signature(method, key, int(expires), query.get("type", ""))
        return hmac.compare_digest(wanted.encode(), query.get("signature", "").encode())

    def _signature(self, method: str, key: str, expires: int, content_type: str) -> str:
        text = "\n".join((method, key, str(expires), content_type))
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


@contextmanager
def _aside(path: Path, file: IO[bytes]) -> Iterator[str]:
    """The content beside `path`, to be moved there: a reader, or a crash, never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name that is a key, so that what a crash leaves is found among the keys.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix="part-", delete=False) as aside:
        try:
            while chunk := file.read(2**20):
                aside.write(chunk)
            aside.flush()
            os.fsync(aside.fileno())
            yield aside.name
        finally:
            Path(aside.name).unlink(missing_ok=True)


class S3Store:
    """Objects of an S3 bucket; a signed URL goes to the bucket itself.

    `s3://bucket/prefix?endpoint=https://…&region=…`; credentials from the standard AWS variables.
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
        try:
            body: bytes = self._client.get_object(**self._name(key))["Body"].read()
        except self._client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(key) from error
        return body

    def open(self, key: str) -> IO[bytes]:
        try:
            body: IO[bytes] = self._client.get_object(**self._name(key))["Body"]
        except self._client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(key) from error
        return body

    def delete(self, key: str) -> None:
        self._client.delete_object(**self._name(key))

    def delete_all(self, keys: Iterable[str]) -> None:
        self._delete_names([self._prefix + key for key in keys])

    def clear(self, folder: str) -> int:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/"
        )
        return sum(self._delete_names([found["Key"] for found in page.get("Contents", ())]) for page in pages)

    def _delete_names(self, names: list[str]) -> int:
        for start in range(0, len(names), S3_DELETES):
            objects = [{"Key": name} for name in names[start : start + S3_DELETES]]
            answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
            if errors := answer.get("Errors"):
                raise OSError(f"the bucket keeps {errors[0]['Key']}: {errors[0].get('Message', errors[0]['Code'])}")
        return len(names)

    def keys(self, folder: str) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/"):
            for found in page.get("Contents", ()):
                yield found["Key"].removeprefix(self._prefix)

    def signed_url(self, method: Method, key: str, *, seconds: int, content_type: str = "", base: str) -> str:
        params: dict[str, str] = self._name(key)
        if method == "PUT":
            params["ContentType"] = content_type
        url: str = self._client.generate_presigned_url(
            {"GET": "get_object", "PUT": "put_object"}[method], Params=params, ExpiresIn=seconds
        )
        return url


@cache
def store() -> Store:
    """The store that `EASEL_STORAGE_URL` names. Raises `BadSetting`."""
    parts = urlsplit(settings.EASEL.storage_url)
    if parts.scheme == "file":
        return FolderStore(Path(unquote(parts.path)), secret=settings.EASEL.secret_key)
    if parts.scheme == "s3":
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        prefix = f"{parts.path.strip('/')}/".lstrip("/")
        return S3Store(parts.netloc, prefix=prefix, endpoint=query.get("endpoint"), region=query.get("region"))
    raise BadSetting("EASEL_STORAGE_URL", "should begin with file:/// or s3://")
