"""Refusals of batches and files, and the faults of a batch's lines, each with its machine code."""

from core.errors import DomainError, NotFound, declared_errors


class FileNotFound(NotFound, code="file_not_found"):
    """No such file.

    `GET /v1/files` lists the account's files. A file that was deleted or has expired is not found either.
    """


class BatchNotFound(NotFound, code="batch_not_found"):
    """No such batch.

    `GET /v1/batches` lists the account's batches.
    """


class FileInvalid(DomainError, code="file_invalid"):
    """The file can't be the input of a batch.

    Upload a JSON Lines file with the purpose `batch`.
    """


class FileTooLarge(DomainError, code="file_too_large", http_status=413):
    """The file is over the limit.

    Divide it into several files, with a batch for each.
    """


class FilesTooMany(
    DomainError, code="file_count_exceeded", type="insufficient_quota", http_status=429, passes_later=True
):
    """The account has as many uploaded files as it may store.

    Delete files that you no longer need, give the next ones a shorter `expires_after`, or have the operator raise the
    limit. `GET /v1/quota` shows it.
    """


class FileBytesExceeded(
    DomainError, code="file_bytes_exceeded", type="insufficient_quota", http_status=429, passes_later=True
):
    """With this file the account's uploaded files would have more bytes than it may store.

    Delete files that you no longer need, give the next ones a shorter `expires_after`, or have the operator raise the
    limit. `GET /v1/quota` shows it.
    """


class UploadsLimited(
    DomainError, code="upload_rate_exceeded", type="rate_limit_error", http_status=429, retryable=True
):
    """The account has uploaded as many files in a minute as it may.

    Wait for the seconds of `Retry-After`, and then repeat the upload. A file may have many lines: put more of them into
    one. `GET /v1/quota` shows the limit.
    """

    def __init__(self, message: str, *, retry_after_seconds: int | None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.retryable = retry_after_seconds is not None


class WindowInvalid(DomainError, code="completion_window_invalid"):
    """The completion window is invalid.

    Send `24h`, or another whole number of hours up to the limit that the message names.
    """


class LineInvalid(DomainError):
    """A line of a batch's file has a fault."""


class LineTooLong(LineInvalid, code="line_too_long"):
    """The line is too long.

    Shorten the prompt and the metadata of this request.
    """


class LineNotJson(LineInvalid, code="invalid_json_line"):
    """The line is not a JSON object.

    Write each request as one JSON object on one line, in UTF-8.
    """


class LineFieldsInvalid(LineInvalid, code="invalid_line"):
    """The line lacks a field, or has one that is not known.

    A line has the fields `custom_id`, `method`, `url` and `body`, and no other.
    """


class CustomIdInvalid(LineInvalid, code="invalid_custom_id"):
    """The custom_id must be a text of 1 to 512 printable characters.

    Give each line a custom_id, by which you find its result.
    """


class CustomIdRepeated(LineInvalid, code="duplicate_custom_id"):
    """Another line of the file has the same custom_id.

    Give each line a custom_id of its own.
    """


class MethodInvalid(LineInvalid, code="invalid_method"):
    """The method of a line must be POST.

    Send `"method": "POST"`.
    """


class UrlMismatched(LineInvalid, code="mismatched_url"):
    """The url of a line must be the endpoint of its batch.

    Send the same `url` in every line as the batch's `endpoint`.
    """


class LinesTooMany(LineInvalid, code="too_many_lines"):
    """The file has too many lines, or too many faults to show them all.

    Divide it into several files, with a batch for each.
    """


class LinesMissing(LineInvalid, code="empty_file"):
    """The file has no line.

    Upload a file with a line for each request.
    """


class BatchExpired(DomainError, code="batch_expired"):
    """This request could not be executed before the completion window expired.

    It is not charged. Send it in another batch, or by itself.
    """


class BatchCancelled(DomainError, code="batch_cancelled"):
    """This request was not begun when the batch was canceled.

    It is not charged. Send it in another batch if you need it.
    """


class LineDelayed(DomainError, code="line_delayed", type="server_error", http_status=503, retryable=True):
    """The batch's next line could not be begun because something of the platform failed. It is tried again.

    There is nothing to do: the batch goes on by itself. Tell the operator if it lasts.
    """


class WorkerMissing(DomainError, code="no_live_worker", type="server_error", http_status=503, retryable=True):
    """No worker runs that could generate lines of this batch. They begin once one does.

    There is nothing to do: the batch goes on by itself. Tell the operator if it lasts.
    """


# What can be wrong with a line: the batch shows it, and no call is refused with it.
LINE_ERRORS: tuple[type[DomainError], ...] = (
    *declared_errors(LineInvalid),
    BatchExpired,
    BatchCancelled,
    LineDelayed,
    WorkerMissing,
)
