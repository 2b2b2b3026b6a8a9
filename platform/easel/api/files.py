"""OpenAI's files, as far as batches use them."""

from typing import Annotated

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from pydantic import Field
from typing_extensions import TypedDict

from core import clock
from easel.api.access import access_of
from easel.api.batch_results import blocks_streamed, results_of, stored_blocks
from easel.api.declaration import LEFT_OUT, Input, OneOf, Text, UrlQuery, operation
from easel.api.endpoint import endpoint
from easel.api.expires_after import ExpiresAfterInput, form_fields, seconds_of
from easel.api.forms import FormFile, form_of
from easel.api.intake import FORM_BYTES
from easel.api.resource import Resource, answer_json, caller, links_of
from easel.api.rows import Listed, listed
from easel.batches import queries
from easel.batches.errors import (
    FileBytesExceeded,
    FileInvalid,
    FileNotFound,
    FilesTooMany,
    FileTooLarge,
    UploadsLimited,
)
from easel.batches.file_limits import room_check
from easel.batches.files import file_add, file_delete
from easel.batches.models import File
from tenants.models import Scope

UPLOAD_ERRORS = (FileInvalid, FileTooLarge, FilesTooMany, FileBytesExceeded, UploadsLimited)


class FileUploadInput(Input):
    purpose: Annotated[str, OneOf((File.Purpose.BATCH.value,))]
    file: FormFile = Field(description="JSON Lines: a request on each line.")
    expires_after: ExpiresAfterInput = Field(
        default=LEFT_OUT,
        description="When the file is deleted; without it after 30 days. As JSON, or as the two fields"
        " `expires_after[anchor]` and `expires_after[seconds]`, as OpenAI's clients send it.",
    )


class FilesQuery(UrlQuery):
    limit: int = Field(default=100, ge=1, le=10_000)
    after: Text = Field(default=LEFT_OUT, description="The id that the page begins after.")
    purpose: Annotated[str, OneOf(File.Purpose.values)] = LEFT_OUT
    order: Annotated[str, OneOf(("asc", "desc"))] = "desc"


class FileAnswer(TypedDict):
    """OpenAI's `FileObject`, with times in Unix seconds. `bytes` of an output is 0: it is written when it is read."""

    id: str
    object: str
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Annotated[str, OneOf(File.Purpose.values)]
    status: Annotated[str, OneOf(("processed",))]
    status_details: str | None


class FileDeletedAnswer(TypedDict):
    id: str
    object: str
    deleted: bool


class Files(Resource):
    scope = Scope.GENERATE

    @operation("files_create", FileAnswer, request=FileUploadInput, is_form=True, errors=UPLOAD_ERRORS)
    def post(self, request: HttpRequest) -> HttpResponse:
        """Upload the requests of a batch, as a form with `purpose` and `file`."""
        tenant, length = caller(request).tenant, request.META.get("CONTENT_LENGTH", "")
        # Before the form is read: the file has about as many bytes as the body.
        expected = max(0, int(length) - FORM_BYTES) if length.isdecimal() else 0
        room_check(tenant=tenant, size_bytes=expected, now=clock.now())
        fields = FileUploadInput.read(form_fields(form_of(request)))
        upload = fields.file
        file = file_add(
            tenant=tenant,
            content=upload.file,
            size_bytes=upload.size,
            filename=upload.name,
            expires_after_seconds=seconds_of(fields.expires_after),
            now=clock.now(),
        )
        return answer_json(file_json(file))

    @operation("files_list", Listed[FileAnswer], query=FilesQuery, errors=(FileNotFound,))
    def get(self, request: HttpRequest) -> HttpResponse:
        """List the files that are neither deleted nor expired, the newest first."""
        query = FilesQuery.read(request.GET.dict())
        files, more = queries.files_page(
            tenant=caller(request).tenant,
            limit=query.limit,
            after=query.after,
            purpose=query.purpose,
            order=query.order,
        )
        return answer_json(listed([file_json(file) for file in files], has_more=more))


class FileDetail(Resource):
    scope = Scope.GENERATE

    @operation("files_get", FileAnswer, errors=(FileNotFound,))
    def get(self, request: HttpRequest, file_id: str) -> HttpResponse:
        """Show a file."""
        return answer_json(file_json(_file(request, file_id)))

    @operation("files_delete", FileDeletedAnswer, errors=(FileNotFound,))
    def delete(self, request: HttpRequest, file_id: str) -> HttpResponse:
        """Delete a file. A batch made from it goes on: its lines were read. Images that an output leads to stay."""
        file = _file(request, file_id)
        file_delete(file=file, now=clock.now())
        return answer_json({"id": str(file), "object": "file", "deleted": True})


@endpoint(
    "get",
    "files_content",
    files=("application/jsonl",),
    errors=(FileNotFound,),
    scope=Scope.GENERATE,
)
def file_content(request: HttpRequest, file_id: str) -> StreamingHttpResponse:
    """Give the content of a file. The URLs in an output are signed now, for your key, and valid for minutes."""
    file = _file(request, file_id)
    blocks = stored_blocks(file) if file.storage_key else results_of(file, links_of(request))
    headers = {"Content-Disposition": 'attachment; filename="file.jsonl"', "X-Accel-Buffering": "no"}
    sent = blocks_streamed(blocks, access=access_of(request))
    return StreamingHttpResponse(sent, content_type="application/jsonl", headers=headers)


def file_json(file: File) -> FileAnswer:
    return {
        "id": str(file),
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": int(file.expires_at.timestamp()),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _file(request: HttpRequest, name: str) -> File:
    return queries.file_get(tenant=caller(request).tenant, name=name)
