"""The files of batches, and the faults that are found in them."""

import io
import json
import uuid
from datetime import UTC, datetime, timedelta

import openai
import pytest

from easel.batches import reading
from easel.batches.files import files_expire, lines_of
from easel.batches.models import Batch, File, Line
from easel.storage import store
from tests.easel.api.conftest import call
from tests.easel.batches.conftest import jsonl, retrieve, sdk, turn, work


def faults(batch):
    assert batch.status == "failed"
    assert not Line.objects.filter(batch=uuid.UUID(batch.id.removeprefix("batch_"))).exists()
    return [(fault.line, fault.code, fault.param) for fault in batch.errors.data]


def test_a_file_is_given_back_as_it_came(alice):
    content = jsonl([{"custom_id": "a"}])

    async def use(client):
        file = await client.files.create(file=("my requests.jsonl", content), purpose="batch")
        return file, await client.files.retrieve(file.id), (await client.files.content(file.id)).content

    file, again, given = sdk(alice, use)
    assert (file.object, file.filename, file.bytes, file.purpose, file.status) == (
        "file",
        "my requests.jsonl",
        len(content),
        "batch",
        "processed",
    )
    assert file.expires_at - file.created_at == 30 * 24 * 3600
    assert (again, given) == (file, content)


@pytest.mark.parametrize(
    ("content", "name", "purpose", "status"),
    [
        (b"", "a.jsonl", "batch", 400),
        (b"{}", "a.jsonl", "fine-tune", 400),
        (b"x" * (64 * 2**20 + 1), "a.jsonl", "batch", 413),
        (b"x" * (65 * 2**20), "a.jsonl", "batch", 413),
    ],
)
def test_a_file_that_no_batch_can_read_is_refused(alice, content, name, purpose, status):
    answer = call("POST", "/v1/files", alice, data={"purpose": purpose}, files={"file": (name, content)})
    assert answer.status_code == status, answer.text
    assert not File.objects.filter(tenant=alice.tenant).exists()


def test_an_upload_without_a_body_is_refused(alice):
    answer = call("POST", "/v1/files", alice)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "purpose")


def test_the_faults_of_all_lines_are_named_by_their_numbers(alice, version, line, batch):
    made = batch(
        alice,
        [
            line("fine"),
            b"{not json",
            b"[]",
            line(...),
            line(7),
            line(""),
            line("fine"),
            line("get", method="GET"),
            line("chat", url="/v1/chat/completions"),
            line("more", more=1),
            line("null", more=None),
            b"",
            line("prompt", body={"prompt": ""}),
            line("typo", body={"promt": "x"}),
            line("size", body={"size": "17x17"}),
            line("model", body={"model": "no-such"}),
            line("stream", body={"stream": True}),
            {**line("list"), "body": []},
            b"\xff\xfe",
            line("long", body={"prompt": "x" * 200_000}),
        ],
    )
    assert faults(made) == [
        (2, "invalid_json_line", None),
        (3, "invalid_json_line", None),
        (4, "invalid_line", "custom_id"),
        (5, "invalid_custom_id", "custom_id"),
        (6, "invalid_custom_id", "custom_id"),
        (7, "duplicate_custom_id", "custom_id"),
        (8, "invalid_method", "method"),
        (9, "mismatched_url", "url"),
        (10, "invalid_line", "more"),
        (13, "prompt_invalid", "prompt"),
        (14, "unknown_field", "promt"),
        (15, "size_invalid", "size"),
        (16, "model_not_found", "model"),
        (17, "unsupported_parameter", "stream"),
        (18, "invalid_value", None),
        (19, "invalid_json_line", None),
        (20, "line_too_long", None),
    ]
    assert made.failed_at is not None
    assert made.request_counts.total == 0


def test_a_line_in_another_encoding_is_named_with_what_to_do(alice, line, batch):
    made = batch(alice, [json.dumps(line("wide")).encode("utf-16-le"), '{"custom_id": "café"}'.encode("latin-1")])
    assert [fault.message for fault in made.errors.data] == [
        "the line is not JSON: it seems to be in UTF-16: send it in UTF-8",
        "the line is not JSON: the byte at position 18 is not UTF-8: send it in UTF-8",
    ]


def test_each_line_is_checked_though_lines_alike_are_planned_once(alice, line, batch):
    made = batch(alice, [line("fine"), line("empty", body={"prompt": " "}), line("size", body={"size": "17x17"})])
    assert faults(made) == [(2, "prompt_invalid", "prompt"), (3, "size_invalid", "size")]
    seeded = [line(str(i), body={"seed": i, "metadata": {"i": str(i)}}) for i in range(3)]
    rows = Line.objects.filter(batch=uuid.UUID(batch(alice, seeded).id.removeprefix("batch_"))).order_by("number")
    stored = [(row.request["prompt"], row.request["seed"], row.request["metadata"]) for row in rows]
    assert stored == [(f"a red circle {i}", i, {"i": str(i)}) for i in range(3)]


@pytest.mark.parametrize("character", ["\0", "\ud800"])
@pytest.mark.parametrize(
    "fields",
    [
        lambda name: {name: 1},
        lambda name: {"body": {"prompt": "x", name: 1}},
        lambda name: {"body": {"prompt": "x", "metadata": {name: 1}}},
        lambda name: {"body": {"prompt": "x", "adapters": [{"name": "x", name: 1}]}},
    ],
    ids=["of the line", "of the body", "of the metadata", "of an adapter"],
)
def test_a_fault_can_name_a_field_that_no_column_can_store(alice, line, batch, character, fields):
    made = batch(alice, [{**line("a"), **fields(f"a{character}b")}])
    ((number, _, param),) = faults(made)
    assert number == 1
    assert param.endswith("a\\0b" if character == "\0" else "a\\ud800b")


@pytest.mark.parametrize("lines", [[b"", b"  "], [b"\xef\xbb\xbf"], [b"\xef\xbb\xbf  ", b""]])
def test_a_file_of_blank_lines_fails(alice, batch, lines):
    assert faults(batch(alice, lines)) == [(None, "empty_file", None)]


def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it(alice, line, batch):
    first = b"\xef\xbb\xbf" + jsonl([line("a")]).strip()
    assert batch(alice, [first, line("b")]).request_counts.total == 2


def test_a_file_with_too_many_lines_fails(alice, line, batch, monkeypatch):
    monkeypatch.setattr(reading, "LINES_MAX", 2)
    assert batch(alice, [line("a"), line("b")]).status == "in_progress"
    assert faults(batch(alice, [line("a"), line("b"), line("c")])) == [(None, "too_many_lines", None)]


@pytest.mark.parametrize(
    "window", ["24", "0h", "169h", "1d", "h", "-1h", "1.5h", "\u0662h", "9999999999999h", "00001680h", "0000199999999h"]
)
def test_a_window_is_a_number_of_hours(alice, line, batch, window):
    with pytest.raises(openai.BadRequestError, match="completion_window"):
        batch(alice, [line("a")], completion_window=window)


def test_an_output_is_no_input(alice, live, line, batch):
    made = batch(alice, [line("a")])
    turn()
    work(live)
    turn()
    output = retrieve(alice, made.id).output_file_id
    terms = {"input_file_id": output, "endpoint": "/v1/images/generations", "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError, match="is the output of a batch"):
        sdk(alice, lambda client: client.batches.create(**terms))


def test_files_expire_with_what_only_they_show(alice, live, line, batch):
    made = batch(alice, [line("a")])
    turn()
    work(live)
    turn()
    stored = File.objects.get(tenant=alice.tenant, purpose="batch")
    while files_expire(now=datetime.now(UTC) + timedelta(days=31)):
        pass
    assert not File.objects.filter(tenant=alice.tenant, deleted_at=None).exists()
    assert not Line.objects.filter(batch__tenant=alice.tenant).exists()
    with pytest.raises(FileNotFoundError):
        store().get(stored.storage_key)
    assert retrieve(alice, made.id).request_counts.completed == 1


def test_what_a_line_asked_for_is_forgotten_once_it_has_begun(alice, live, line, batch):
    batch(alice, [line("a")])
    waiting = Line.objects.get(batch__tenant=alice.tenant)
    assert "red circle" in json.dumps(waiting.request)
    turn()
    assert Line.objects.get(pk=waiting.pk).request == {}


def test_lines_are_read_without_holding_the_file():
    long = b"x" * 100
    found = list(lines_of(io.BytesIO(b"a\n\n" + long * 3000 + b"\nb"), bytes_max=50))
    assert [(number, len(text)) for number, text in found] == [(1, 1), (3, 51), (4, 1)]


def test_the_webhook_of_a_batch_names_its_files(alice, live, line, batch):
    hook = call("POST", "/v1/webhooks", alice, json={"url": "https://example.com/hook", "events": ["batch.completed"]})
    assert hook.status_code == 201, hook.text
    made = batch(alice, [line("a")])
    turn()
    work(live)
    turn()
    (message,) = alice.tenant.webhooks.get().deliveries.all()
    data = message.message.data
    assert (message.message.event, data["id"], data["status"]) == ("batch.completed", made.id, "completed")
    assert data["output_file_id"] == retrieve(alice, made.id).output_file_id
    assert Batch.objects.get(tenant=alice.tenant).ended_at is not None


def test_a_file_that_is_deleted_while_its_batch_is_made_is_not_found(alice, line):
    async def use(client):
        file = await client.files.create(file=("a.jsonl", jsonl([line("a")])), purpose="batch")
        # Its content goes after the look-up found its row.
        store().delete((await File.objects.aget(tenant=alice.tenant)).storage_key)
        terms = {"endpoint": "/v1/images/generations", "completion_window": "24h"}
        return await client.batches.create(input_file_id=file.id, **terms)

    with pytest.raises(openai.NotFoundError) as refused:
        sdk(alice, use)
    assert (refused.value.code, refused.value.param) == ("file_not_found", "input_file_id")
    assert not Batch.objects.filter(tenant=alice.tenant).exists()
