"""`easel my …`: what a tenant may do, by HTTP with a key."""

import inspect
import json
import sys
from importlib.resources import files

import click
import pytest
import structlog

from easel.cli import main as program
from easel.cli.headings import heading, is_shown
from easel.cli.my import my
from easel.cli.tenant_calls import LEFT_OUT, show
from easel.jobs.models import Job
from easel_client import api
from tenants.keys import key_issue
from tests.conftest import NOW, PEPPER
from tests.easel.api.conftest import PNG
from tests.easel.api.test_adapters import weights

# Real ones of every call, as the OpenAPI document shows them.
ANSWERS = json.loads(files("easel.api").joinpath("answers.json").read_text())


@pytest.fixture
def quiet_server():
    """The server logs to the streams of this process, which are the command's."""
    before = structlog.get_config()
    structlog.configure(**{**before, "logger_factory": structlog.ReturnLoggerFactory()})
    yield
    structlog.configure(**before)


@pytest.fixture
def easel(served, alice, monkeypatch, capsys, quiet_server):
    """Runs a command as a shell does, with Alice's key: its exit code, and what it printed on both streams."""
    monkeypatch.setenv("EASEL_URL", served.url)
    monkeypatch.setenv("EASEL_API_KEY", alice.secret)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["easel", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            program.main()
        return end.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def shown(easel):
    """The JSON that a command prints which succeeds."""

    def run(*arguments):
        code, out, err = easel(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


@pytest.fixture
def job(shown, version):
    return shown("my", "jobs", "create", "a red circle", "--model", version.model.name, "--seed", 7)


def leaves(group, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name)


def test_every_call_of_the_api_has_a_command():
    commands = {" ".join(path) for path in leaves(my)}
    for kind in vars(api).values():
        if not (inspect.isclass(kind) and issubclass(kind, api.Resource) and kind is not api.Resource):
            continue
        resource = kind.__name__.lower()
        for name in vars(kind):
            if name.startswith("_") or name.endswith("iterate"):
                continue
            path = f"{resource} {'show' if name == 'get' else name.replace('_', '-')}"
            assert commands & {path, resource} or {path, resource} & LEFT_OUT.keys(), path


def test_a_job_is_made_shown_listed_and_deleted(easel, shown, job, served):
    shown("my", "jobs", "show", job["id"])  # a worker ends it
    code, out, _ = easel("my", "jobs", "list")
    assert (code, job["id"] in out, "succeeded" in out, "a red circle" in out) == (0, True, True, True)
    deleted = shown("my", "jobs", "delete", job["id"])
    assert (deleted["prompt"], deleted["images"]) == (None, [])


def test_a_job_is_followed_to_its_end(easel, job):
    code, out, _ = easel("my", "jobs", "follow", job["id"])
    assert (code, "succeeded" in out) == (0, True)


def test_following_a_job_that_fails_exits_1_with_its_code(easel, job, served):
    served.outcome = lambda job_id: {"outcome": "failed", "error_code": "out_of_memory", "retryable": False}
    code, _, err = easel("my", "jobs", "follow", job["id"])
    assert (code, "(out_of_memory)" in err) == (1, True)


def test_a_job_is_canceled(shown, job):
    assert shown("my", "jobs", "cancel", job["id"])["status"] == "canceled"


def test_more_than_a_page_says_how_to_read_on(easel, shown, version):
    for _ in range(3):
        shown("my", "jobs", "create", "a", "--model", version.model.name)
    _, _, err = easel("my", "jobs", "list", "--limit", 2)
    after = err.split()[-1]
    assert err.startswith("there are more: --after")
    assert [one["prompt"] for one in shown("my", "jobs", "list", "--after", after)["data"]] == ["a"]


def test_an_adapter_is_uploaded_listed_and_retired(shown, tmp_path, version):
    (tmp_path / "outline.safetensors").write_bytes(weights())
    upload = ("my", "adapters", "upload", "outline", tmp_path / "outline.safetensors")
    assert shown(*upload, "--model", version.model.name)["name"] == "outline"
    assert [one["name"] for one in shown("my", "adapters", "list")["data"]] == ["outline"]
    shown("my", "adapters", "retire", "outline")


def test_an_object_is_given_as_json_or_by_a_file(shown, version, tmp_path):
    arms = [{"name": "eight", "weight": 50}, {"name": "one", "weight": 50, "steps": 1}]
    (tmp_path / "arms.json").write_text(json.dumps(arms))
    model = ("--model", version.model.name)
    assert shown("my", "experiments", "start", "first", json.dumps(arms), *model)["status"] == "running"
    shown("my", "experiments", "stop", "first")
    assert shown("my", "experiments", "start", "second", f"@{tmp_path / 'arms.json'}", *model)["status"] == "running"


def test_what_is_no_json_is_a_mistake_of_use(easel):
    code, _, err = easel("my", "experiments", "start", "a", "{nope")
    assert (code, "is not JSON" in err) == (2, True)


def test_a_budget_is_set_shown_and_removed(easel, shown):
    made = shown("my", "budgets", "set", 5000000, "--project", "default", "--hard-stop")
    assert (made["hard_stop"], "5.000000 USD" in easel("my", "budgets", "list")[1]) == (True, True)
    shown("my", "budgets", "remove", made["id"])
    assert "none" in easel("my", "budgets", "list")[1]


def test_a_list_of_texts_is_an_option_that_is_repeated(shown):
    made = shown(
        "my", "webhooks", "create", "https://8.8.8.8/hook", "--events", "job.failed", "--events", "job.expired"
    )
    assert sorted(made["events"]) == ["job.expired", "job.failed"]


@pytest.mark.usefixtures("one_day")
def test_balance_and_costs_are_shown_as_amounts(easel, shown, job):
    shown("my", "jobs", "show", job["id"])
    _, balance, _ = easel("my", "balance")
    assert "available" in balance
    _, costs, _ = easel("my", "costs", "show", "--group-by", "model")
    cost = shown("my", "jobs", "show", job["id"])["usage"]["cost_details"]["amount"]
    assert f"{cost} USD" in costs


def test_the_command_says_why_there_is_no_forecast_and_what_to_do_about_an_error(easel):
    assert "a forecast needs 7 whole days" in easel("my", "costs", "outlook")[1]
    _, errors, _ = easel("my", "errors", "list")
    assert "Wait for one of your jobs to end, then repeat the request." in errors


def test_numbers_are_printed_without_a_needless_fraction_or_exponent(capsys):
    show({"whole": 6.0, "round": 100.0, "part": 0.25, "small": 0.00001, "count": 7}, as_json=False)
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert printed == {"whole": "6", "round": "100", "part": "0.25", "small": "0.00001", "count": "7"}


def test_the_openapi_document_is_printed_as_json(easel):
    assert json.loads(easel("my", "openapi")[1])["openapi"] == "3.1.0"


def test_a_thing_is_printed_as_fields_and_the_lists_in_it_as_tables(capsys):
    cost = {"amount": "0.5", "currency": "USD", "lines": [{"meter": "request", "labels": {}}, {"labels": {"a": "b"}}]}
    usage = {"cached": False, "cost": 0.5, "cost_details": cost}
    show({"object": "job", "id": "7", "error": None, "usage": usage}, as_json=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["id", "7"],
        ["cached", "false"],
        ["cost", "0.5", "USD"],
        [],
        ["cost", "by", "meter"],
        ["meter", "labels", "labels", "a"],
        ["request"],
        ["b"],
    ]


def test_unix_seconds_are_shown_as_a_time(capsys):
    show({"id": "file-7", "created_at": 1772366400, "expires_at": None, "bytes": 1772366400}, as_json=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["id", "file-7"],
        ["created", "at", "2026-03-01T12:00:00Z"],
        ["bytes", "1772366400"],
    ]


def test_a_model_shows_when_it_was_made(capsys):
    show({"data": [{"id": "z", "created": 0}]}, as_json=False)
    assert capsys.readouterr().out.split() == ["id", "created", "z", "1970-01-01T00:00:00Z"]


def things(answer, path=()):
    """The paths of the fields of an answer, and of each thing in its lists."""
    fields = []
    for name, value in answer.items():
        for one in value if isinstance(value, list) else ():
            yield from things(one) if isinstance(one, dict) else ()
        inner = list(things(value, (*path, name))) if isinstance(value, dict) else []
        fields += inner.pop() if inner else [".".join((*path, name))]
        yield from inner
    yield fields


@pytest.mark.parametrize("name", ANSWERS)
def test_the_fields_of_every_answer_are_headed_by_words_of_their_own(name):
    answer = next(iter(ANSWERS[name].values()))  # of the statuses of success the first; none has fields of its own
    for fields in things(answer.get("application/json", {})):
        headings = {path: heading(path) for path in fields if is_shown(path)}
        assert len(headings) == len(set(headings.values()))
        own = ("metadata.", "group.", "labels.")  # what the tenant named
        assert not [words for path, words in headings.items() if not path.startswith(own) and set("_.") & set(words)]


def test_what_a_tenant_named_itself_is_a_heading_as_it_is(capsys):
    show({"metadata": {"order_id": "7"}}, as_json=False)
    show({"data": [{"group": {"label:cost_center": "a"}}]}, as_json=False)
    assert capsys.readouterr().out.splitlines()[:2] == ["metadata order_id 7", "label:cost_center"]


def test_a_quantity_that_is_whole_is_printed_as_a_whole_number(capsys):
    show({"data": [{"image_units": 4.0, "gpu_seconds": 1.25}]}, as_json=False)
    assert capsys.readouterr().out.splitlines()[1].split() == ["4", "1.25"]


def test_an_id_in_a_table_is_never_cut_and_a_long_text_is(capsys):
    show({"data": [{"id": "1" * 80, "text": "a word " * 20}]}, as_json=False)
    assert capsys.readouterr().out.splitlines()[1] == "1" * 80 + "  " + ("a word " * 20)[:59] + "…"


@pytest.mark.usefixtures("one_day")
def test_a_statement_and_an_export_are_written_to_files(easel, shown, job, tmp_path):
    shown("my", "jobs", "show", job["id"])
    code, out, _ = easel("my", "exports", "costs", "-o", tmp_path)
    [file] = [path for path in tmp_path.iterdir() if path.suffix == ".csv"]
    assert (code, out) == (0, f"{file} is written\n")
    _, printed, _ = easel("my", "exports", "costs")
    assert printed.splitlines() == file.read_text().splitlines()


def test_a_refusal_has_its_code_and_the_id_of_the_request_and_exits_1(easel):
    code, out, err = easel("my", "jobs", "show", "00000000-0000-4000-8000-000000000000")
    assert (code, out) == (1, "")
    assert err.startswith("easel: ")
    assert "(job_not_found, request " in err


def test_a_server_that_does_not_answer_exits_2(easel):
    code, _, err = easel("my", "quota", "--server", "http://127.0.0.1:1")
    assert (code, "(unreachable)" in err) == (2, True)


def test_without_a_key_the_command_says_where_to_get_one(easel, monkeypatch):
    monkeypatch.delenv("EASEL_API_KEY")
    code, _, err = easel("my", "balance")
    assert (code, "--key or EASEL_API_KEY" in err) == (1, True)


def test_the_options_name_server_and_key(easel, served, alice, monkeypatch):
    monkeypatch.delenv("EASEL_API_KEY")
    monkeypatch.delenv("EASEL_URL")
    assert easel("my", "quota", "--server", served.url, "--key", alice.secret)[0] == 0


@pytest.mark.filterwarnings("error")
def test_no_option_has_two_meanings(easel):
    for path in leaves(my):
        assert easel("my", *path, "--help")[0] == 0


def test_a_key_without_the_scope_is_refused_by_name(easel, alice):
    _, secret = key_issue(project=alice.project, pepper=PEPPER, now=NOW, scopes=("generate",))
    code, _, err = easel("my", "balance", "--key", secret)
    assert (code, "insufficient_scope" in err) == (1, True)


def test_a_file_of_prompts_is_generated_once_though_the_command_runs_twice(easel, alice, version, tmp_path):
    lines = ["a red circle", "", json.dumps({"prompt": "a blue square", "seed": 5, "model": version.model.name})]
    (tmp_path / "prompts.txt").write_text("\n".join(lines))
    command = ("my", "generate-many", tmp_path / "prompts.txt", "-o", tmp_path / "out", "--model", version.model.name)
    first, again = easel(*command, "--quiet"), easel(*command)
    assert (first[0], again[0], first[1]) == (0, 0, again[1])
    assert [file.read_bytes() for file in (tmp_path / "out").glob("*.png")] == [PNG] * 2
    assert Job.objects.filter(tenant=alice.tenant).count() == 2


@pytest.mark.parametrize("key_option", ["--key", "--api-key"])
def test_an_image_is_generated_with_server_and_key(easel, tmp_path, version, served, alice, monkeypatch, key_option):
    file = tmp_path / "out.png"
    monkeypatch.delenv("EASEL_API_KEY")
    options = ("-o", file, "--model", version.model.name, "--seed", 7)
    code, out, _ = easel("generate", "a red circle", *options, "--url", served.url, key_option, alice.secret)
    assert (code, file.read_bytes(), out.startswith(f"{file}  seed 7")) == (0, PNG, True)
