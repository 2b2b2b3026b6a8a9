"""The client's calls against the real API: what they return, refuse, repeat and never do twice."""

import io
import threading
from datetime import timedelta

import httpx
import pytest

from easel.jobs.models import Job
from easel_client import Easel, EaselError, JobFailed, Refused, Unreachable
from easel_client.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidRequest,
    LimitReached,
    NotEasel,
    NotFound,
    PermissionDenied,
    QuotaExhausted,
    ServerError,
)
from tests.easel.api.conftest import PNG, without_links
from tests.easel.api.test_adapters import weights


@pytest.fixture
def make(client, version):
    def job(**fields):
        return client.jobs.create(**{"prompt": "a red circle", "model": version.model.name, **fields})

    return job


def test_a_job_is_made_waited_for_and_its_image_fetched(client, make):
    job = client.jobs.wait(make(seed=7))
    assert (job["status"], job["seed"]) == ("succeeded", 7)
    assert client.fetch(job["images"][0]["url"]) == PNG
    assert without_links(client.jobs.get(job["id"])) == without_links(client.jobs.wait(job["id"]))


def test_a_job_that_fails_raises_its_code(client, make, served):
    served.outcome = lambda job_id: {"outcome": "failed", "error_code": "out_of_memory", "retryable": False}
    with pytest.raises(JobFailed) as failed:
        client.jobs.wait(make())
    assert (failed.value.code, failed.value.job["status"]) == ("out_of_memory", "failed")


def test_a_canceled_job_raises_too(client, make):
    job = make()
    client.jobs.cancel(job["id"])
    with pytest.raises(JobFailed) as failed:
        client.jobs.wait(job)
    assert failed.value.code == "job_canceled"


def test_a_list_is_read_page_by_page(client, make, served):
    made = [make()["id"] for _ in range(5)]
    served.asked.clear()
    assert [job["id"] for job in client.jobs.iterate(limit=2)] == made[::-1]
    assert served.asked == ["GET /v1/jobs"] * 3


def test_the_events_of_a_job_end_with_it(client, make, served):
    job = make()
    client.jobs.get(job["id"])
    [event] = client.jobs.events(job["id"])
    assert (event.name, event.data["id"]) == ("job.succeeded", job["id"])


@pytest.mark.parametrize("form", ["bytes", "path", "file"])
def test_an_adapter_is_uploaded_from_bytes_a_path_or_a_file(client, version, tmp_path, form):
    (tmp_path / "a.safetensors").write_bytes(weights())
    with (tmp_path / "a.safetensors").open("rb") as file:
        given = {"bytes": weights(), "path": tmp_path / "a.safetensors", "file": file}[form]
        made = client.adapters.upload(name="outline", file=given, model=version.model.name)
    assert made["name"] == "outline"
    assert [adapter["name"] for adapter in client.adapters.list()["data"]] == ["outline"]
    client.adapters.retire("outline")


def test_an_export_is_saved_whole_under_its_name(client, make, tmp_path, alice, one_day):
    client.jobs.wait(make())
    folder = tmp_path / "exports"
    folder.mkdir()
    saved = client.exports.costs(start=one_day - timedelta(days=1), end=one_day).save(folder)
    assert saved.name == f"costs-{alice.tenant.slug}-{one_day - timedelta(days=1)}-to-{one_day}.csv"
    assert list(folder.iterdir()) == [saved]
    assert b"image_unit" in saved.read_bytes()


def test_a_file_that_breaks_off_is_not_saved(tmp_path):
    def half(request):
        raise httpx.RemoteProtocolError("peer closed connection")

    class Half(httpx.SyncByteStream):
        def __iter__(self):
            yield b"date,amount\n"
            half(None)

    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Half()))
    client = Easel("http://easel.test", "k", http=httpx.Client(transport=transport))
    with pytest.raises(Unreachable):
        client.exports.costs().save(tmp_path / "costs.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "kind", "code"),
    [
        (lambda client: client.jobs.create(prompt="a", steps=1.5), InvalidRequest, "invalid_value"),
        (lambda client: client.jobs.get("00000000-0000-4000-8000-000000000000"), NotFound, "job_not_found"),
        (lambda client: client.adapters.get("no such?"), NotFound, "adapter_not_found"),
        (lambda client: client.experiments.stop("nothing"), NotFound, None),
    ],
)
def test_a_refusal_is_typed_and_has_the_code_and_the_request(client, version, call, kind, code):
    with pytest.raises(kind) as refused:
        call(client)
    assert code in (None, refused.value.code)
    assert (refused.value.retryable, len(refused.value.request_id) >= 32) == (False, True)


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, "invalid_request_error", InvalidRequest),
        (401, "invalid_request_error", AuthenticationFailed),
        (403, "permission_error", PermissionDenied),
        (404, "invalid_request_error", NotFound),
        (409, "invalid_request_error", Conflict),
        (410, "invalid_request_error", NotFound),
        (422, "invalid_request_error", InvalidRequest),
        (429, "insufficient_quota", QuotaExhausted),
        (500, "server_error", ServerError),
        (504, "server_error", ServerError),
    ],
)
def test_a_status_has_its_error(client, served, status, kind, error):
    served.refuse("GET /v1/quota", status, "c", kind=kind, x_should_retry="false")
    with pytest.raises(error) as refused:
        client.quota.get()
    assert (refused.value.code, refused.value.status, refused.value.request_id) == ("c", status, "scripted-1")
    assert isinstance(refused.value, Refused)


def test_a_limit_is_waited_for_as_long_as_the_server_says(client_of, alice, served):
    slept = []
    for _ in range(2):
        served.refuse("POST /v1/images/quotes", 429, "rate_limit_exceeded", x_should_retry="true", Retry_After="7")
    served.refuse("POST /v1/images/quotes", 400, "invalid_value")
    with pytest.raises(InvalidRequest):
        client_of(alice, sleep=slept.append).images.quotes(prompt="a")
    assert slept == [7.0, 7.0]


def test_a_long_wait_is_left_to_the_caller(client, served):
    served.refuse("GET /v1/quota", 429, "rate_limit_exceeded", x_should_retry="true", Retry_After="3600")
    with pytest.raises(LimitReached) as refused:
        client.quota.get()
    assert refused.value.retry_after_seconds == 3600


def test_the_number_of_retries_is_the_callers(client_of, alice, served):
    for _ in range(3):
        served.refuse("GET /v1/quota", 503, "unavailable", x_should_retry="true", Retry_After="0")
    with pytest.raises(ServerError):
        client_of(alice, retries=2).quota.get()
    assert served.asked == ["GET /v1/quota"] * 3


def test_a_proxys_error_page_is_repeated_only_where_nothing_can_happen_twice(client, served):
    for _ in range(2):
        served.scripted.append(type(served).page(502))
    with pytest.raises(ServerError) as refused:
        client.experiments.start(name="a", arms=[])
    assert (refused.value.code, served.asked) == ("http_502", ["POST /v1/experiments"])
    assert client.quota.get()["object"] == "list"


def test_what_is_no_easel_is_named(served, alice):
    served.scripted.append(type(served).page(404))
    with pytest.raises(NotEasel, match="/v1/quota answered with HTTP 404"):
        Easel(served.url, alice.secret).quota.get()


def test_nothing_that_listens_is_unreachable():
    with pytest.raises(Unreachable, match="/v1/quota does not answer"):
        Easel("http://127.0.0.1:1", "k", sleep=lambda seconds: None).quota.get()


def test_a_job_whose_answer_is_lost_is_made_once(client, make, served, alice):
    lost = iter([True, False])

    def lose(request):
        if request.method == "POST" and next(lost):
            httpx.Client().send(request)
            raise httpx.ReadError("the answer is lost")

    client.transport.http.event_hooks["request"].append(lose)
    make()
    assert Job.objects.filter(tenant=alice.tenant).count() == 1


@pytest.mark.parametrize("url", ["{}", "{}/", "{}/v1", "{}/v1/"])
def test_the_url_may_be_openais_base_url(served, alice, url):
    assert Easel(url.format(served.url), alice.secret).quota.get()["object"] == "list"


def test_the_environment_gives_url_and_key(served, alice, monkeypatch):
    monkeypatch.setenv("EASEL_URL", served.url)
    monkeypatch.setenv("EASEL_API_KEY", alice.secret)
    assert Easel().quota.get()["object"] == "list"


@pytest.mark.parametrize(("given", "missing"), [({}, "EASEL_URL"), ({"url": "http://a"}, "EASEL_API_KEY")])
def test_a_client_without_url_or_key_says_what_is_missing(monkeypatch, given, missing):
    monkeypatch.delenv("EASEL_URL", raising=False)
    monkeypatch.delenv("EASEL_API_KEY", raising=False)
    with pytest.raises(EaselError, match=missing):
        Easel(**given)


def test_one_client_serves_many_threads(client, make):
    jobs = []
    threads = [threading.Thread(target=lambda: jobs.append(make()["id"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(jobs)) == 8


def test_a_field_that_is_none_is_left_out(make):
    assert make(seed=None, steps=None, metadata=None)["status"] == "queued"


def test_a_form_takes_an_open_file_again_after_a_refusal(client, served, version):
    served.refuse("POST /v1/adapters", 429, "rate_limit_exceeded", x_should_retry="true", Retry_After="0")
    file = io.BytesIO(weights())
    assert client.adapters.upload(name="outline", file=file, model=version.model.name)["name"] == "outline"
