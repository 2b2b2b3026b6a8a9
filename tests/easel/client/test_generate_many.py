"""`generate_many`: every prompt is generated and charged once, whatever interrupts the run."""

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal

import httpx
import pytest

from billing.ledger.accounts import balances_by_kind
from billing.money import to_micros
from easel.jobs.deletion import job_delete
from easel.jobs.models import Job
from easel_client.errors import JobFailed
from easel_client.images import RunStopped, generate_many
from easel_client.journal import FILE, FolderInUse, Journal, JournalUnreadable
from easel_client.pacing import Pace
from tests.conftest import NOW
from tests.easel.api.conftest import PNG

COUNT = 3
PROGRAM = """
import json, signal, sys
from easel_client import Easel
from easel_client.images import generate_many

# A shell ignores Ctrl-C for what it runs in the background, these tests for example, and that is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
url, key, folder, requests = sys.argv[1:]
generate_many(json.loads(requests), folder=folder, client=Easel(url, key), concurrency=2, progress=False)
"""


@pytest.fixture
def requests(version):
    return [{"prompt": f"circle {number}", "model": version.model.name} for number in range(COUNT)]


@pytest.fixture
def run(client, requests, tmp_path):
    def start(**options):
        given = {"client": client, "folder": tmp_path, "progress": False, **options}
        return generate_many(given.pop("requests", requests), **given)

    return start


def jobs_of(customer):
    return list(Job.objects.filter(tenant=customer.tenant).order_by("prompt"))


def credit_of(customer):
    return balances_by_kind(customer.tenant)["credit"]


def cost_micros(results):
    return sum(to_micros(Decimal(str(result.usage["cost"]))) for result in results)


def signaled(served, customer, folder, requests, *, asks, times, by):
    """Runs `generate_many` in a process that gets a signal when the API has done its request number `times` for
    `asks`, before it hears of that. Returns how the process ended, and its last words."""
    # The client needs nothing of the server, not even its environment.
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", PROGRAM, served.url, customer.secret, str(folder), json.dumps(requests)]
    program = subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)
    numbers = itertools.count(1)

    def send_signal(asked):
        if asked.startswith(asks) and next(numbers) == times:
            program.send_signal(by)
            if by == signal.SIGKILL:
                program.wait()

    served.before_answer = send_signal
    _, said = program.communicate()
    served.before_answer = lambda asked: None
    return program.returncode, said


def test_results_come_in_order_with_files_seeds_and_cost(alice, run, requests):
    credit = credit_of(alice)
    results = run()
    assert [result.request["prompt"] for result in results] == [request["prompt"] for request in requests]
    assert [result.files[0].read_bytes() for result in results] == [PNG] * COUNT
    assert [result.files[0].name.startswith(f"circle-{n}-") for n, result in enumerate(results)] == [True] * COUNT
    assert [result.seeds for result in results] == [(job.seed,) for job in jobs_of(alice)]
    assert cost_micros(results) == credit - credit_of(alice) > 0


def test_a_second_run_makes_nothing_and_gives_the_same_results(alice, run, served):
    first, credit = run(), credit_of(alice)
    served.asked.clear()
    again = run()
    assert (served.asked, credit_of(alice)) == ([], credit)
    assert [(one.files, one.seeds, one.usage, one.job_id) for one in again] == [
        (one.files, one.seeds, one.usage, one.job_id) for one in first
    ]
    assert all(one.resumed for one in again)


def test_a_prompt_that_is_added_is_generated_alone(alice, run, requests):
    run(requests=requests[:2])
    results = run(requests=[requests[2], *requests[:2]])
    assert [result.resumed for result in results] == [False, True, True]
    assert len(jobs_of(alice)) == COUNT


def test_a_prompt_that_is_listed_twice_is_two_images(alice, run, requests):
    results = run(requests=[requests[0], requests[0]])
    assert len({result.job_id for result in results}) == len({result.files for result in results}) == 2
    run(requests=[requests[0], requests[0]])
    assert len(jobs_of(alice)) == 2


def test_every_image_of_a_request_is_written(run, requests):
    [result] = run(requests=[{**requests[0], "n": 3}])
    assert [file.read_bytes() for file in result.files] == [PNG] * 3
    assert len(set(result.files)) == len(result.seeds) == 3


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_run_that_is_killed_before_it_hears_of_a_job_pays_once_for_it(
    alice, run, requests, served, tmp_path, killed_after
):
    credit = credit_of(alice)
    ended, _ = signaled(served, alice, tmp_path, requests, asks="POST /v1/jobs", times=killed_after, by=signal.SIGKILL)
    assert ended == -signal.SIGKILL
    results = run()
    assert [result.files[0].read_bytes() for result in results] == [PNG] * COUNT
    assert len(jobs_of(alice)) == COUNT
    assert cost_micros(results) == credit - credit_of(alice)


def test_a_run_that_is_killed_while_it_fetches_an_image_has_it_once(alice, run, requests, served, tmp_path):
    ended, _ = signaled(served, alice, tmp_path, requests, asks="GET /storage/", times=1, by=signal.SIGKILL)
    assert ended == -signal.SIGKILL
    run()
    assert sorted(file.read_bytes() for file in tmp_path.glob("*.png")) == [PNG] * COUNT
    assert len(jobs_of(alice)) == COUNT


def test_ctrl_c_ends_a_run_and_the_next_one_goes_on(alice, run, requests, served, tmp_path):
    served.works = False  # so that the run waits for its jobs
    ended, said = signaled(served, alice, tmp_path, requests, asks="POST /v1/jobs", times=2, by=signal.SIGINT)
    assert (ended, "KeyboardInterrupt" in said) == (-signal.SIGINT, True)
    served.works = True
    run()
    assert len(jobs_of(alice)) == COUNT


def test_spent_credit_stops_the_run_with_what_is_done_and_more_credit_continues_it(
    customer, client_of, run, requests, served
):
    poor = customer(name="poor")
    mine = client_of(poor)
    [first] = run(client=mine, requests=requests[:1])
    served.refuse("POST /v1/jobs$", 429, "insufficient_quota", kind="insufficient_quota", x_should_retry="false")
    with pytest.raises(RunStopped) as stopped:
        run(client=mine, concurrency=1)
    assert (stopped.value.code, stopped.value.request_id) == ("insufficient_quota", "scripted-1")
    assert "stopped after 1 of 3 requests: scripted insufficient_quota. The run is saved in" in str(stopped.value)
    assert [result and result.job_id for result in stopped.value.results] == [first.job_id, None, None]
    assert len(run(client=mine)) == len(jobs_of(poor)) == COUNT


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "budget_exceeded", "insufficient_quota"),
        (429, "image_quota_exceeded", "insufficient_quota"),
        (401, "invalid_api_key", "invalid_request_error"),
        (403, "account_suspended", "permission_error"),
    ],
)
def test_what_no_waiting_mends_stops_the_run(run, served, status, code, kind):
    served.refuse("POST /v1/jobs$", status, code, kind=kind, x_should_retry="false")
    with pytest.raises(RunStopped) as stopped:
        run(concurrency=1)
    assert (stopped.value.code, served.asked) == (code, ["POST /v1/jobs"])


def test_a_limit_is_waited_for_and_the_reason_is_shown(alice, run, served):
    seen = []
    served.refuse("POST /v1/jobs$", 429, "queue_full", x_should_retry="true", Retry_After="0")
    served.refuse("POST /v1/jobs$", 429, "rate_limit_exceeded", x_should_retry="true", Retry_After="0")
    results = run(progress=seen.append, concurrency=1)
    assert [result.error for result in results] == [None] * COUNT
    assert [one.waiting for one in seen if one.waiting] == [
        "scripted queue_full. (queue_full)",
        "scripted rate_limit_exceeded. (rate_limit_exceeded)",
    ]
    assert served.asked.count("POST /v1/jobs") == COUNT + 2


def test_a_server_that_is_away_for_a_moment_is_waited_for(run, served):
    served.refuse("POST /v1/jobs$", 503, "unavailable", x_should_retry="true", Retry_After="0")
    served.refuse("GET /v1/jobs/", 503, "unavailable", x_should_retry="true", Retry_After="0")
    assert [result.error for result in run()] == [None] * COUNT


def test_a_server_that_stays_away_stops_the_run(run, served):
    served.refuse("POST /v1/jobs$", 503, "unavailable", x_should_retry="true", Retry_After="1")
    with pytest.raises(RunStopped) as stopped:
        run(patience_seconds=0.5, concurrency=1)
    assert stopped.value.code == "unavailable"


def test_a_request_that_is_refused_has_its_error_and_the_others_their_images(alice, run, requests):
    results = run(requests=[requests[0], {**requests[1], "size": "17x17"}, requests[2]])
    assert [result.error and result.error.code for result in results] == [None, "size_invalid", None]
    assert len(jobs_of(alice)) == 2


def test_a_job_that_fails_costs_nothing_and_is_made_anew_by_the_next_run(alice, run, served, requests):
    served.outcome = lambda job_id: {"outcome": "failed", "error_code": "out_of_memory", "retryable": False}
    [failed] = run(requests=requests[:1])
    assert isinstance(failed.error, JobFailed)
    assert failed.error.code == "out_of_memory"
    served.outcome = lambda job_id: {}
    [result] = run(requests=requests[:1])
    assert (result.error, result.files[0].read_bytes(), len(jobs_of(alice))) == (None, PNG, 2)


def test_an_image_whose_address_does_not_answer_is_fetched_by_a_new_one(run, served, requests):
    served.refuse("GET /storage/", 403, "expired", Retry_After="0")
    [result] = run(requests=requests[:1])
    assert result.files[0].read_bytes() == PNG
    assert len([asked for asked in served.asked if asked.startswith("GET /storage/")]) == 2


def test_an_image_that_can_not_be_fetched_is_fetched_by_the_next_run_and_not_charged_again(
    alice, run, served, requests
):
    for _ in range(6):
        served.refuse("GET /storage/", 403, "expired", Retry_After="0")
    [failed] = run(requests=requests[:1])
    credit = credit_of(alice)
    assert (failed.error.code, failed.files) == ("image_unavailable", ())
    [result] = run(requests=requests[:1])
    assert result.files[0].read_bytes() == PNG
    assert (credit_of(alice), len(jobs_of(alice))) == (credit, 1)


def test_an_image_that_was_deleted_before_it_was_fetched_is_not_charged_again(alice, run, served, requests):
    def delete(asked):
        if asked.startswith("GET /v1/jobs/"):
            served.before_answer = lambda asked: None
            job_delete(job=jobs_of(alice)[0], actor="test", now=NOW)

    served.before_answer = delete
    for _ in range(2):
        [result] = run(requests=requests[:1])
    assert (result.error.code, len(jobs_of(alice))) == ("images_deleted", 1)


def test_an_image_that_was_lost_on_disk_is_fetched_again_and_not_charged(alice, run, requests):
    [result] = run(requests=requests[:1])
    credit = credit_of(alice)
    result.files[0].unlink()
    [again] = run(requests=requests[:1])
    assert (again.files, again.files[0].read_bytes()) == (result.files, PNG)
    assert (credit_of(alice), len(jobs_of(alice))) == (credit, 1)


def test_an_image_that_is_lost_here_and_there_is_not_generated_anew_unasked(alice, run, requests):
    [result] = run(requests=requests[:1])
    result.files[0].unlink()
    job_delete(job=jobs_of(alice)[0], actor="test", now=NOW)
    for _ in range(2):
        [again] = run(requests=requests[:1])
        assert again.error.code == "images_deleted"
    assert len(jobs_of(alice)) == 1


def test_a_job_whose_id_was_lost_longer_ago_than_keys_are_remembered_is_found(alice, run, requests, tmp_path):
    run(requests=requests[:1])
    path = tmp_path / FILE
    head, begun, *_ = path.read_text().splitlines()
    a_day_ago = {**json.loads(begun), "sent_at": json.loads(begun)["sent_at"] - 25 * 3600}
    path.write_text(f"{head}\n{json.dumps(a_day_ago)}\n")
    [result] = run(requests=requests[:1])
    assert result.job_id == str(jobs_of(alice)[0].id)
    assert len(jobs_of(alice)) == 1


@pytest.mark.parametrize("cut", [b"", b'{"item": "12', b'{"item":'])
def test_a_line_that_a_crash_cut_is_forgotten(alice, run, tmp_path, cut):
    run()
    with (tmp_path / FILE).open("ab") as file:
        file.write(cut)
    assert all(result.resumed for result in run())


def test_a_line_is_cut_at_every_byte_and_nothing_is_generated_twice(tmp_path):
    with Journal(tmp_path, server="s", now=0) as journal:
        journal.write("a", attempt=1, sent_at=1.0)
        journal.write("a", job="1")
        run = journal.run
    whole = (tmp_path / FILE).read_bytes()
    head = whole.index(b"\n") + 1
    for length in range(head, len(whole) + 1):
        (tmp_path / FILE).write_bytes(whole[:length])
        with Journal(tmp_path, server="s", now=0) as journal:
            lines = whole[:length].count(b"\n")
            assert (journal.run, journal["a"].attempt, journal["a"].job) == (
                run,
                int(lines > 1),
                "1" if lines > 2 else None,
            )


def test_two_processes_do_not_write_one_run(tmp_path, run):
    with Journal(tmp_path, server="s", now=0), pytest.raises(FolderInUse):
        run()


@pytest.mark.parametrize("content", ["nonsense\n", "{}\n", "[]\n", '{"easel_run":"1","version":9,"server":"s"}\n'])
def test_a_file_that_is_no_run_is_refused_and_left_alone(tmp_path, run, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(JournalUnreadable):
        run()
    assert (tmp_path / FILE).read_text() == content


def test_a_run_of_another_server_is_refused(tmp_path, run):
    Journal(tmp_path, server="https://elsewhere", now=0).close()
    with pytest.raises(JournalUnreadable, match="elsewhere"):
        run()


def test_no_more_jobs_are_unfinished_than_concurrency_says(alice, run, served):
    unfinished = []

    def count(asked):
        if asked == "POST /v1/jobs":
            unfinished.append(Job.objects.filter(tenant=alice.tenant, finished_at=None).count())

    served.before_answer = count
    run(concurrency=2)
    assert max(unfinished) <= 2


def test_a_limit_of_requests_that_is_used_up_is_waited_for_before_the_refusal():
    pace = Pace()
    headers = {
        "RateLimit-Policy": '"account";q=600;w=60, "key";q=60;w=60',
        "RateLimit": '"account";r=3;t=1, "key";r=0;t=60',
    }
    before = time.monotonic()
    pace.observe(httpx.Response(200, headers=headers))
    assert pace.open_at >= before + 1


def test_progress_counts_up_to_the_whole(run):
    seen = []
    run(progress=seen.append)
    assert [one.done for one in seen if not one.waiting] == [1, 2, 3]
    assert (seen[-1].total, seen[-1].running, seen[-1].failed) == (COUNT, 0, 0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_a_bar_shows_how_far_the_run_is(run, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    run(progress=True)
    assert f"{COUNT}/{COUNT}" in sys.stderr.getvalue()


def test_on_a_terminal_without_rich_a_line_is_printed_for_each_request(run, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "rich.console", None)
    run(progress=True)
    assert [line.partition(" ")[0] for line in sys.stderr.getvalue().splitlines()] == ["[1/3]", "[2/3]", "[3/3]"]


def test_without_a_terminal_a_line_is_printed_for_each_request(run, capsys):
    run(progress=True, concurrency=1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[0] for line in lines] == [f"[{n}/3]" for n in range(1, 4)]
    assert lines[0].startswith("[1/3] circle-0-")
