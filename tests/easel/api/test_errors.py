"""The registry of error codes: what the code can answer is declared, once, with what to do."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from core.errors import DomainError, declared_errors, remedy_of, text_of
from easel.api.error_page import page
from easel.api.error_views import api_errors
from easel.api.urls import urlpatterns
from easel.cli.main import cli
from easel.jobs.errors import JobFailed
from inference.errors import Canceled, DeadlinePassed, GenerationError
from tests.easel.api.conftest import call, end_job

ROOT = Path(__file__).parents[3]
NOT_FAILURES = {Canceled.code, DeadlinePassed.code}  # the job is canceled or expires


def literals(path: Path, keyword: str) -> Iterator[str]:
    """Each text that a call of the module passes as `keyword`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call | ast.ClassDef):
            values = {word.arg: word.value for word in node.keywords}
            if isinstance(value := values.get(keyword), ast.Constant) and value.value:
                yield value.value


def worker_codes() -> set[str]:
    files = [*ROOT.glob("inference/*.py"), *ROOT.glob("inference/worker/*.py")]
    given = {code for file in files for keyword in ("code", "error_code") for code in literals(file, keyword)}
    return (given | {GenerationError.code}) - NOT_FAILURES


def test_every_code_is_declared_by_one_class():
    counted = Counter(error.code for error in declared_errors())
    assert len(counted) > 80
    assert [code for code, times in counted.items() if times > 1] == []


@pytest.mark.parametrize("error", declared_errors(), ids=lambda error: error.code)
def test_an_error_says_what_happened_and_what_to_do(error):
    assert 400 <= error.http_status <= 599
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code)
    assert re.fullmatch(r"[A-Z`].*\.", text_of(error)), text_of(error)
    assert re.fullmatch(r"[A-Z`].*\.", remedy_of(error)), f"{error.__name__} has no second paragraph"


def test_an_error_without_a_code_of_its_own_is_only_a_family():
    def families(kind: type[DomainError]) -> Iterator[str]:
        for error in kind.__subclasses__():
            yield from families(error)
            if "code" not in vars(error) and not error.__subclasses__():
                yield error.__name__

    assert set(families(DomainError)) <= {"Refused"}  # of the command, with the API's own codes


def test_every_code_of_a_worker_is_a_declared_failure_of_a_job():
    codes = worker_codes()
    assert {"out_of_memory", "task_malformed", "adapter_scale_bad", "storage_refused"} <= codes
    assert codes - {error.code for error in declared_errors(JobFailed)} == {"internal_error"}


def test_every_code_that_the_control_plane_gives_a_job_is_declared():
    text = (ROOT / "platform/easel/jobs/lifecycle.py").read_text()
    found = set(re.findall(r'"((?:job|worker)_[a-z]+)", "', text))  # with a message
    assert {"job_expired", "job_quarantined", "worker_lost"} <= found
    assert found <= {error.code for error in declared_errors(JobFailed)}


@pytest.mark.parametrize(("code", "status"), [("prompt_too_long", 400), ("out_of_memory", 500), ("job_expired", 503)])
def test_a_failed_job_has_the_status_of_its_code(code, status):
    assert JobFailed.of(code, "it failed").http_status == status


def test_a_code_that_this_version_does_not_know_still_reaches_the_caller(alice, create):
    failure = JobFailed.of("from_tomorrow", "a worker of a later version says this")
    assert (failure.code, failure.http_status, str(failure)) == (
        "from_tomorrow",
        500,
        "a worker of a later version says this",
    )
    job = create(alice)["id"]
    end_job(job, outcome="failed", error_code="from_tomorrow")
    assert call("GET", f"/v1/jobs/{job}", alice).json()["error"]["code"] == "from_tomorrow"


def test_the_registry_is_public_and_lists_what_the_api_declares():
    answer = call("GET", "/v1/errors")
    assert answer.status_code == 200
    listed = {row["code"]: row for row in answer.json()["data"]}
    assert set(listed) == {error.code for error in api_errors()}
    assert listed["queue_full"] == {
        "code": "queue_full",
        "status": 429,
        "type": "rate_limit_error",
        "retryable": True,
        "passes_later": False,
        "text": "The limit of waiting jobs is reached: try again later.",
        "remedy": "Wait for the seconds of `Retry-After`, then repeat the request.",
    }
    assert (listed["insufficient_quota"]["retryable"], listed["insufficient_quota"]["passes_later"]) == (False, True)
    assert "price_book_backdated" not in listed  # an operator's


def test_errors_of_the_http_layer_are_in_it(alice):
    listed = {row["code"]: row["status"] for row in call("GET", "/v1/errors").json()["data"]}
    plain, yaml = {"Content-Type": "text/plain"}, {"Accept": "application/yaml"}
    answers = [
        call("GET", "/v1/nothing"),
        call("PUT", "/v1/jobs", alice),
        call("GET", "/v1/jobs", alice, headers=yaml),
        call("POST", "/v1/jobs", alice, content="{}", headers=plain),
        call("POST", "/v1/jobs", alice, content="{", headers={"Content-Type": "application/json"}),
        call("GET", "/v1/jobs"),
    ]
    found = {answer.json()["error"]["code"]: answer.status_code for answer in answers}
    assert found == {
        "not_found": 404,
        "method_not_allowed": 405,
        "not_acceptable": 406,
        "unsupported_media_type": 415,
        "invalid_json": 400,
        "invalid_api_key": 401,
    }
    assert found.items() <= listed.items()


def test_a_refusal_of_the_key_says_where_keys_come_from():
    message = call("GET", "/v1/jobs").json()["error"]["message"]
    assert "easel key create" in message
    assert "/admin/" in message


def test_the_commands_and_calls_that_a_remedy_names_exist():
    routes = {"/v1/" + re.sub(r"<\w+:\w+>", "{}", str(route.pattern)) for route in urlpatterns}
    for error in declared_errors():
        remedy = f"{text_of(error)} {remedy_of(error)}"
        for path in re.findall(r"`[A-Z]+ (/v1/[^`?]*)`", remedy):
            assert re.sub(r"{\w+}", "{}", path) in routes, f"{error.code}: {path}"
        for words in re.findall(r"`easel ([a-z][a-z -]*)", remedy):
            command: click.Command = cli
            for word in words.split():
                assert isinstance(command, click.Group), f"{error.code}: easel {words}"
                found = command.get_command(click.Context(command), word)
                assert found is not None, f"{error.code}: easel {words}"
                command = found


def test_the_page_of_errors_is_up_to_date():
    assert (ROOT / "docs/errors.md").read_text() == page(), "run scripts/error-docs"
