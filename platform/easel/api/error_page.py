"""docs/errors.md, which `scripts/error-docs` writes from the errors that the API declares."""

from collections.abc import Iterable, Iterator

from core.errors import DomainError, remedy_of, text_of
from easel.api.error_views import api_errors
from easel.batches.errors import LINE_ERRORS
from easel.jobs.errors import JobFailed

HEAD = """# Errors

<!-- Written by scripts/error-docs from the code; don't edit. -->

An error has OpenAI's body, `{"error": {"message", "type", "param", "code"}}`. The `code` is stable; the message may
change. `param` names the field at fault. `GET /v1/errors` answers with these tables as JSON and needs no key. The
OpenAPI document lists the codes of each call.

A retry helps where the third column says yes: wait for the seconds of `Retry-After` if the answer has it, and send the
same request again. `x-should-retry` says the same for the very answer, and OpenAI's clients obey it. Where it says
later, the request succeeds once credit was added, a limit was raised or a month has begun; a line of a batch waits for
that by itself.
"""
FAILED = """
## Failed jobs

A failed job shows one of these codes as its `error.code` and costs nothing. An images call that waited for the job is
answered with the code and this status. A worker of another version may give a code that is not listed; its status is
500.
"""
LINES = """
## Lines of batches

`errors` of a batch that failed has one of these codes for each line with a fault, or a code of the call that the line
stands for. The last lines of a batch that expired or was canceled have one of them in its error file. `waiting_for`
of a batch has the code of what its next line waits for.
"""
COLUMNS = "\n| code | status | retry | what happened | what to do |\n| --- | --- | --- | --- | --- |\n"


def page() -> str:
    """Return the page in Markdown."""
    found = api_errors()
    of_jobs = [error for error in found if issubclass(error, JobFailed)]
    of_lines = [error for error in found if error in LINE_ERRORS]
    of_calls = [error for error in found if error not in of_jobs and error not in of_lines]
    calls = [HEAD, "\n## Refused calls\n", COLUMNS, *_rows(of_calls)]
    jobs = [FAILED, COLUMNS, *_rows(of_jobs)]
    return "".join([*calls, *jobs, LINES, COLUMNS, *_rows(of_lines)])


def _rows(errors: Iterable[type[DomainError]]) -> Iterator[str]:
    for error in errors:
        retry = "yes" if error.retryable else "later" if error.passes_later else "no"
        yield f"| `{error.code}` | {error.http_status} | {retry} | {text_of(error)} | {remedy_of(error)} |\n"
