"""When files expire: by OpenAI's `expires_after` and `output_expires_after`, or after 30 days."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import openai
import pytest

from easel.batches.files import files_expire
from easel.batches.models import Batch, File
from easel.storage import store
from tests.easel.api.conftest import call
from tests.easel.batches.conftest import jsonl, read, retrieve, sdk, turn, work

HOUR, MONTH = 3600, 30 * 24 * 3600


def upload(customer, lines, **fields):
    given = {"file": ("a.jsonl", jsonl(lines)), "purpose": "batch", **fields}
    return sdk(customer, lambda client: client.files.create(**given))


def make(customer, file, **fields):
    given = {"completion_window": "24h", "endpoint": "/v1/images/generations", **fields}
    return sdk(customer, lambda client: client.batches.create(input_file_id=file.id, **given))


def row(file):
    return File.objects.get(pk=uuid.UUID(file.id.removeprefix("file-")))


def sweep(now):
    """Delete all that has expired, files of other tests too."""
    while files_expire(now=now):
        pass


@pytest.mark.parametrize("seconds", [HOUR, 86_400, MONTH])
def test_a_file_expires_after_the_seconds_that_were_asked_for(alice, line, seconds):
    file = upload(alice, [line("a")], expires_after={"anchor": "created_at", "seconds": seconds})
    assert file.expires_at - file.created_at == seconds


@pytest.mark.parametrize("unset", ["", "null"])
def test_without_expires_after_a_file_expires_after_30_days(alice, unset):
    files = {"file": ("a.jsonl", b"{}")}
    answer = call("POST", "/v1/files", alice, data={"purpose": "batch", "expires_after": unset}, files=files).json()
    assert answer["expires_at"] - answer["created_at"] == MONTH


def test_a_form_may_have_expires_after_as_json(alice):
    data = {"purpose": "batch", "expires_after": json.dumps({"anchor": "created_at", "seconds": 7200})}
    answer = call("POST", "/v1/files", alice, data=data, files={"file": ("a.jsonl", b"{}")}).json()
    assert answer["expires_at"] - answer["created_at"] == 7200


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"expires_after[anchor]": "created_at"}, "expires_after.seconds"),
        ({"expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ({"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "-3600"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600.5"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "٣٦٠٠"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "9" * 5000}, "expires_after.seconds"),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600", "expires_after[x]": "1"},
            "expires_after.x",
        ),
        ({"expires_after": "3600"}, "expires_after"),
        ({"expires_after": "tomorrow"}, "expires_after"),
        ({"expires_after": "[" * 100_000}, "expires_after"),
        ({"expires_after": '{"anchor": "created_at", "seconds": "3600"}'}, "expires_after.seconds"),
        ({"expires_after": "null", "expires_after[seconds]": "3600"}, "expires_after[seconds]"),
    ],
)
def test_what_no_time_can_be_read_from_is_refused_by_its_name(alice, given, param):
    answer = call("POST", "/v1/files", alice, data={"purpose": "batch", **given}, files={"file": ("a.jsonl", b"{}")})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert not File.objects.filter(tenant=alice.tenant).exists()


def test_an_expired_file_is_deleted_once_and_not_before(alice, line):
    file = upload(alice, [line("a")], expires_after={"anchor": "created_at", "seconds": HOUR})
    stored = row(file)
    sweep(stored.expires_at - timedelta(seconds=1))
    assert row(file).deleted_at is None
    sweep(stored.expires_at)
    sweep(stored.expires_at + timedelta(seconds=1))
    assert row(file).deleted_at == stored.expires_at
    with pytest.raises(openai.NotFoundError):
        sdk(alice, lambda client: client.files.retrieve(file.id))
    with pytest.raises(FileNotFoundError):
        store().get(stored.storage_key)


def test_the_input_of_an_unfinished_batch_outlives_its_time(alice, live, line):
    file = upload(alice, [line("a")], expires_after={"anchor": "created_at", "seconds": HOUR})
    made = make(alice, file)
    later = row(file).expires_at + timedelta(minutes=1)
    sweep(later)
    assert read(alice, file.id) == [line("a")]
    turn()
    work(live)
    turn()
    assert retrieve(alice, made.id).status == "completed"
    sweep(later)
    assert row(file).deleted_at == later


def test_an_expired_file_that_is_not_deleted_yet_begins_no_batch(alice, line):
    file = upload(alice, [line("a")])
    File.objects.filter(tenant=alice.tenant).update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(openai.NotFoundError) as refused:
        make(alice, file)
    assert (refused.value.code, refused.value.param) == ("file_not_found", "input_file_id")
    assert not Batch.objects.filter(tenant=alice.tenant).exists()


def test_the_outputs_of_a_batch_expire_after_its_output_expires_after(alice, live, line):
    terms = {"output_expires_after": {"anchor": "created_at", "seconds": HOUR}}
    made = make(alice, upload(alice, [line("a")]), **terms)
    turn()
    work(live)
    turn()
    output_id = retrieve(alice, made.id).output_file_id
    output = sdk(alice, lambda client: client.files.retrieve(output_id))
    assert output.expires_at - output.created_at == HOUR
    sweep(row(output).expires_at)
    with pytest.raises(openai.NotFoundError):
        sdk(alice, lambda client: client.files.content(output_id))
    assert retrieve(alice, made.id).request_counts.completed == 1


@pytest.mark.parametrize("given", [{}, {"output_expires_after": None}])
def test_without_output_expires_after_outputs_expire_after_30_days(alice, live, line, given):
    made = make(alice, upload(alice, [line("a")]), **given)
    turn()
    work(live)
    turn()
    output_id = retrieve(alice, made.id).output_file_id
    output = sdk(alice, lambda client: client.files.retrieve(output_id))
    assert output.expires_at - output.created_at == MONTH


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"anchor": "created_at", "seconds": 3599}, "output_expires_after.seconds"),
        ({"anchor": "created_at", "seconds": "3600"}, "output_expires_after.seconds"),
        ({"anchor": "created_at", "seconds": True}, "output_expires_after.seconds"),
        ({"anchor": "created_at"}, "output_expires_after.seconds"),
        ({"seconds": 3600}, "output_expires_after.anchor"),
        ([], "output_expires_after"),
    ],
)
def test_a_batch_whose_output_expires_after_is_invalid_is_refused(alice, line, given, param):
    file = upload(alice, [line("a")])
    with pytest.raises(openai.BadRequestError) as refused:
        make(alice, file, output_expires_after=given)
    assert refused.value.param == param
    assert not Batch.objects.filter(tenant=alice.tenant).exists()


def test_a_batch_goes_on_though_its_input_is_deleted(alice, live, line):
    file = upload(alice, [line("a"), line("b")])
    made = make(alice, file)
    deleted = sdk(alice, lambda client: client.files.delete(file.id))
    assert (deleted.id, deleted.deleted) == (file.id, True)
    turn()
    work(live)
    turn()
    work(live)
    turn()
    done = retrieve(alice, made.id)
    assert (done.status, done.input_file_id, done.request_counts.completed) == ("completed", file.id, 2)
    assert [one["custom_id"] for one in read(alice, done.output_file_id)] == ["a", "b"]
    with pytest.raises(openai.NotFoundError):
        make(alice, file)
