"""What a worker may report: each field's type and range, and what is refused."""

import dataclasses
import json

import pytest

from easel.jobs import reports
from easel.jobs.reports import REPORT_BYTES_MAX, ReportRefused, report_read
from inference.contract import AttemptFinished, AttemptProgress, StoredOutput, WorkerBeat

TOKEN = "7d0c7b4e-2f5c-4c35-9a53-0f7a4d8a2c11"
PROGRESS = {
    "attempt_token": TOKEN,
    "steps_done": 3,
    "steps_total": 8,
    "previews": [[0, 1]],
    "phases": {"adapters": 1.5},
}
BEAT = {
    "kind": "beat",
    "worker": "gpu-7.rack_2:0",
    "gpu_class": "NVIDIA H100 80GB HBM3",
    "concurrency": 4,
    "model_version": "demo@1,demo@2",
    "started_at": 1_772_366_400.25,
    "busy_seconds": 1.5,
    "attributed_seconds": 1,
    "load_seconds": 0.0,
    "attempts": [PROGRESS],
}
OUTPUT = {"index": 0, "seed": 7, "sha256": "0" * 64, "size_bytes": 10}
FINISHED = {
    "kind": "finished",
    "attempt_token": TOKEN,
    "worker": "w1",
    "gpu_class": "cpu",
    "outcome": "succeeded",
    "outputs": [OUTPUT],
    "gpu_seconds": 1.5,
    "steps_done": 8,
    "wait_seconds": 0.1,
    "run_seconds": 2,
    "prompt_tokens": 12,
    "error_code": "",
    "error_message": "",
    "retryable": False,
    "phases": {"stored": 2.5},
}
HUGE = int("9" * 400)
NO_NUMBERS = [None, True, "1", [1], {}, -1, -0.5, float("nan"), float("inf"), float("-inf"), 10**17, HUGE, 1e300]
NO_WHOLES = [*NO_NUMBERS, 1.0, 0.5]
NO_NAMES = [None, True, 7, [], {}, "", "x" * 101, "a\nb", "a\x00", 'a"b', "a\\b", "wörker", "a\u202eb", "\ud800"]
NO_TOKENS = [None, True, 7, [], {}, "", "x" * 36, TOKEN + "0", "{" + TOKEN[:34] + "}"]
NO_LISTS = [None, True, 7, "[]", {}, [None], [7], [[]], ["x"], [{}]]
NO_TEXTS = [None, True, 7, [], {}]
# What each field refuses, by message.
REFUSED = {
    "beat": {
        "worker": NO_NAMES,
        "gpu_class": NO_NAMES,
        "concurrency": [*NO_WHOLES, 10_001],
        "model_version": NO_TEXTS,
        "started_at": NO_NUMBERS,
        "busy_seconds": NO_NUMBERS,
        "attributed_seconds": NO_NUMBERS,
        "load_seconds": [*NO_NUMBERS, 10**7 + 1],
        "attempts": [*NO_LISTS, [PROGRESS] * 257],
    },
    "progress": {
        "attempt_token": NO_TOKENS,
        "steps_done": NO_WHOLES,
        "steps_total": NO_WHOLES,
        "previews": [*NO_LISTS, [[0, 1, 2]], [[0, 10]], [[-1, 0]], [[0.0, 0]], [[True, 0]], [[0, 0]] * 101],
        "phases": [],  # what can't have been measured is left out
    },
    "finished": {
        "attempt_token": NO_TOKENS,
        "worker": NO_NAMES,
        "gpu_class": NO_NAMES,
        "outcome": [*NO_TEXTS, "", "live", "lost", "queued"],
        "outputs": [*NO_LISTS, [OUTPUT] * 11],
        "gpu_seconds": NO_NUMBERS,
        "steps_done": NO_WHOLES,
        "wait_seconds": NO_NUMBERS,
        "run_seconds": NO_NUMBERS,
        "prompt_tokens": NO_WHOLES,
        "error_code": NO_TEXTS,
        "error_message": NO_TEXTS,
        "retryable": [None, 0, 1, "true", []],
        "phases": [],
    },
    "output": {
        "index": [*NO_WHOLES, 10],
        "seed": [*(value for value in NO_WHOLES if value != 10**17), 2**63],
        "sha256": [None, 7, "", "0" * 63, "0" * 65, "A" * 64, "0" * 63 + "\n"],
        "size_bytes": NO_WHOLES,
    },
}


def report_with(message, **change):
    """A whole report of which one message has these fields."""
    if message == "progress":
        return {**BEAT, "attempts": [{**PROGRESS, **change}]}
    if message == "output":
        return {**FINISHED, "outputs": [{**OUTPUT, **change}]}
    return {**{"beat": BEAT, "finished": FINISHED}[message], **change}


def read(report):
    return report_read(json.dumps(report).encode())


def is_refused(report):
    try:
        read(report)
    except ReportRefused as error:
        return len(str(error)) < 100  # it doesn't repeat what was sent
    return False


def test_an_honest_report_is_taken_as_it_is():
    beat, finished = read(BEAT), read(FINISHED)
    assert beat == WorkerBeat(
        **{**BEAT, "attempts": (AttemptProgress(**{**PROGRESS, "previews": ((0, 1),)}),)}  # type: ignore[arg-type]
    )
    assert finished == AttemptFinished(**{**FINISHED, "outputs": (StoredOutput(**OUTPUT),)})


def test_an_older_workers_report_without_newer_fields_and_a_newer_ones_with_unknown_fields_are_taken():
    older = {name: BEAT[name] for name in BEAT if name != "attempts"}
    assert read({**older, "temperature": {"core": 80}}).attempts == ()
    bare = read({name: FINISHED[name] for name in ("kind", "attempt_token", "worker", "gpu_class", "outcome")})
    assert (bare.gpu_seconds, bare.outputs, bare.phases) == (0.0, (), {})


@pytest.mark.parametrize("message", REFUSED)
def test_every_field_has_a_type_and_a_range(message):
    taken = [
        (name, value)
        for name, values in REFUSED[message].items()
        for value in values
        if not is_refused(report_with(message, **{name: value}))
    ]
    assert taken == []


def test_the_tables_name_every_field_of_every_message():
    kinds = {"beat": WorkerBeat, "progress": AttemptProgress, "finished": AttemptFinished, "output": StoredOutput}
    tables = {
        "beat": reports.BEAT, "progress": reports.PROGRESS, "finished": reports.FINISHED, "output": reports.OUTPUT
    }  # fmt: skip
    for message, kind in kinds.items():
        fields = {field.name for field in dataclasses.fields(kind)} - {"kind"}
        assert fields == set(tables[message]) == set(REFUSED[message])
        required = {name for name, (_, is_required) in tables[message].items() if is_required}
        for name in required:
            report = report_with(message)
            part = {"progress": "attempts", "output": "outputs"}.get(message)
            del (report[part][0] if part else report)[name]
            assert is_refused(report), name


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"beat"',
        b"{}",
        b'{"kind": ["beat"]}',
        b'{"kind": "beat"}',
        b'{"kind": "beat2"}',
        b"[" * 100_000,
        b'{"kind": "beat", "worker": ' + b'{"a":' * 50_000,
        b'{"kind": "beat", "started_at": ' + b"9" * 10_000 + b"}",
        b" " * REPORT_BYTES_MAX + json.dumps(BEAT).encode(),
    ],
    ids=lambda raw: raw[:12],
)
def test_what_is_no_report_is_refused(raw):
    with pytest.raises(ReportRefused):
        report_read(raw)


def test_phases_that_nobody_can_have_measured_are_left_out():
    sent = {"adapters": -1, "prepared": "1", "first_step": 1e8, "steps": float("nan"), "stored": 2, "\x00": 1}
    assert read({**FINISHED, "phases": sent}).phases == {"stored": 2.0}
    assert read({**FINISHED, "phases": [1, 2]}).phases == {}


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("out of memory", "out of memory"),
        ("a\nb\x00c\x1b[31m", "a b c [31m"),
        ("a\u202eb \u200bx", "a b  x"),
        ("PUT https://store/acme/0.png?signature=abc refused", "PUT [address] refused"),
        ("redis://user:secret@host:6379/0: no answer", "[address] no answer"),
        ("x" * 100_000, "x" * 2000),
        ("\ud800", ""),
    ],
)
def test_a_message_is_one_bounded_line_without_addresses(sent, shown):
    assert read({**FINISHED, "error_message": sent}).error_message == shown
