"""A worker process with a real Redis and a real storage takes tasks and produces pictures and reports."""

import dataclasses
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import celery
import httpx
import pytest
from PIL import Image
from prometheus_client import REGISTRY
from safetensors.torch import save

from inference import metrics
from inference.contract import (
    PHASES,
    QUEUE,
    TASK_NAME,
    AdapterRef,
    AttemptFinished,
    GenerationTask,
    WorkerBeat,
    cancel_key,
    report_from_json,
    reports_key,
)
from inference.worker import config
from inference.worker.__main__ import main

NAMESPACE = "easel-t-acme"


class WorkerProcess:
    """`easel-worker` as an operator starts it."""

    def __init__(
        self, checkpoint: Path, redis_server, folder: Path, *, concurrency: int = 4, namespace: str = NAMESPACE
    ) -> None:
        self.redis = redis_server
        self.namespace = namespace
        self.name = f"w-{uuid.uuid4().hex[:8]}"
        self._log = folder / f"{self.name}.log"
        env = {
            "PATH": os.environ["PATH"],
            "EASEL_MODEL": str(checkpoint),
            "REDIS_URL": redis_server.url,
            "EASEL_POOL_NAMESPACE": namespace,
            "EASEL_WORKER_NAME": self.name,
            "EASEL_WORKER_CONCURRENCY": str(concurrency),
            "EASEL_ADAPTER_CACHE_DIR": str(folder / "adapters"),
            "EASEL_TORCH_THREADS": "1",
            "EASEL_STOP_GRACE_SECONDS": "2",
            "HF_HUB_OFFLINE": "1",
        }
        root = Path(__file__).resolve().parents[2]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inference.worker"], env=env, cwd=root, stdout=log, stderr=log
            )
        self._app = celery.Celery(broker=redis_server.url, set_as_current=False)
        self._app.conf.broker_transport_options = {"global_keyprefix": f"{namespace}:"}

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and body of a GET on the worker's own port."""
        port = next(line["port"] for line in self.log() if line["event"] == "metrics_served")
        answer = httpx.get(f"http://127.0.0.1:{port}{path}")
        return answer.status_code, answer.text

    def send(self, fields) -> None:
        self._app.send_task(TASK_NAME, args=[fields], queue=QUEUE, ignore_result=True)

    def log(self) -> list[dict]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def reports(self) -> list[WorkerBeat | AttemptFinished]:
        entries = self.redis.client.xrange(reports_key(self.namespace))
        return [report for _, fields in entries if (report := report_from_json(fields[b"report"])).worker == self.name]

    def beats(self) -> list[WorkerBeat]:
        return [report for report in self.reports() if isinstance(report, WorkerBeat)]

    def ends_of(self, task: GenerationTask) -> list[AttemptFinished]:
        return [
            report
            for report in self.reports()
            if isinstance(report, AttemptFinished) and report.attempt_token == task.attempt_token
        ]


@pytest.fixture(scope="module")
def worker(checkpoint, redis_server, tmp_path_factory, eventually):
    worker = WorkerProcess(checkpoint, redis_server, tmp_path_factory.mktemp("worker"))
    eventually(worker.beats, seconds=90)
    yield worker
    worker.process.kill()
    worker.process.wait()


@pytest.fixture
def end_of(worker, eventually):
    """Send a task to the worker and wait for how it ends."""

    def end_of(task: GenerationTask) -> AttemptFinished:
        worker.send(task.to_dict())
        (end,) = eventually(lambda: worker.ends_of(task), seconds=30)
        return end

    return end_of


def test_previews_are_stored_before_the_picture_is(worker, storage, new_task, end_of):
    urls = tuple(storage.url(f"/preview/{number}") for number in range(2))
    task = new_task(steps=6)
    task = dataclasses.replace(task, outputs=(dataclasses.replace(task.outputs[0], preview_urls=urls),))
    end = end_of(task)
    pictures = [Image.open(io.BytesIO(storage.objects[f"/preview/{number}"])) for number in range(2)]
    assert end.outcome == "succeeded"
    assert [picture.size for picture in pictures] == [(64, 64)] * 2
    puts = [line for line in storage.requests if line.startswith("PUT")]
    assert puts == ["PUT /preview/0", "PUT /preview/1", f"PUT /{task.attempt_token}/0"]


def test_a_task_becomes_stored_pictures_and_a_report(worker, storage, new_task, end_of):
    task = new_task(seeds=(5, 6), output_format="webp")
    end = end_of(task)
    assert (end.outcome, end.error_code, end.gpu_class) == ("succeeded", "", "cpu")
    assert [(output.index, output.seed) for output in end.outputs] == [(0, 5), (1, 6)]
    for output in end.outputs:
        path = f"/{task.attempt_token}/{output.index}"
        data = storage.objects[path]
        assert storage.content_types[path] == "image/webp"
        assert Image.open(io.BytesIO(data)).size == (64, 64)
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (output.sha256, output.size_bytes)
    assert end.prompt_tokens > len(task.prompt)
    assert 0 < end.gpu_seconds <= end.run_seconds
    assert end.wait_seconds >= 0


def test_a_worker_measures_when_it_reached_each_phase(storage, new_task, end_of):
    began = time.monotonic()
    phases = end_of(new_task(seeds=(5, 6))).phases
    assert list(phases) == list(PHASES)
    assert sorted(phases.values()) == list(phases.values())
    assert 0 <= phases["adapters"] < phases["first_step"] < phases["stored"] <= time.monotonic() - began


def test_an_attempt_that_failed_has_only_the_phases_that_it_reached(storage, new_task, end_of):
    assert "stored" not in end_of(new_task(model_version="other@1")).phases


def test_the_same_seed_makes_the_same_file_and_another_seed_another(storage, new_task, end_of):
    first, again, other = (end_of(new_task(seeds=(seed,))).outputs[0] for seed in (5, 5, 6))
    assert first.sha256 == again.sha256 != other.sha256


def adapter_at(storage, tensors) -> AdapterRef:
    data = save(tensors)
    storage.objects["/lora"] = data
    sha256 = hashlib.sha256(data).hexdigest()
    return AdapterRef(name="style", sha256=sha256, size_bytes=len(data), scale=1.0, url=storage.url("/lora"))


def test_an_adapter_is_fetched_by_its_url_and_changes_the_picture(storage, new_task, end_of, lora_tensors):
    adapter = adapter_at(storage, lora_tensors(1))
    plain, styled = end_of(new_task()), end_of(new_task(adapters=(adapter,)))
    assert styled.outcome == "succeeded"
    assert styled.outputs[0].sha256 != plain.outputs[0].sha256


def test_an_adapter_for_another_model_fails_the_attempt_for_good(storage, new_task, end_of, lora_tensors):
    tensors = {key.replace("layers.", "blocks."): tensor for key, tensor in lora_tensors(1).items()}
    adapter = adapter_at(storage, tensors)
    end = end_of(new_task(adapters=(adapter,)))
    assert (end.outcome, end.error_code, end.retryable) == ("failed", "adapter_module_unknown", False)


@pytest.mark.parametrize(
    ("fields", "code", "retryable"),
    [
        ({"prompt": "x" * 600}, "prompt_too_long", False),
        ({"width": 65}, "size_unsupported", False),
        ({"model_version": "another"}, "model_not_loaded", True),
        ({"steps": 0}, "internal_error", True),
        ({"output_format": "gif?"}, "internal_error", True),
    ],
)
def test_an_impossible_task_is_reported_with_its_reason(new_task, end_of, fields, code, retryable):
    end = end_of(new_task(**fields))
    assert (end.outcome, end.error_code, end.retryable) == ("failed", code, retryable)
    assert end.error_message
    assert "secret" not in end.error_message


def test_a_message_that_is_no_task_is_reported_and_survived(worker, new_task, end_of, eventually):
    task = new_task()
    fields = {key: value for key, value in task.to_dict().items() if key != "prompt"}
    worker.send(fields)
    (end,) = eventually(lambda: worker.ends_of(task), seconds=30)
    assert (end.outcome, end.error_code) == ("failed", "task_malformed")
    for nonsense in ("hello", None, {"attempt_token": 3}):
        worker.send(nonsense)
    assert end_of(new_task()).outcome == "succeeded"


def test_a_beat_reports_live_attempts_and_device_time(worker, new_task, end_of, eventually):
    task = new_task(seeds=(1, 2), steps=2000)
    worker.send(task.to_dict())

    def in_hand():
        progress = [attempt for beat in worker.beats() for attempt in beat.attempts]
        return [a for a in progress if a.attempt_token == task.attempt_token and a.steps_done > 0]

    attempt = eventually(in_hand, seconds=30)[0]
    assert attempt.steps_total == 4000
    worker.redis.client.set(cancel_key(NAMESPACE, task.attempt_token), 1, ex=60)
    (end,) = eventually(lambda: worker.ends_of(task), seconds=30)
    assert (end.outcome, end.outputs, end.error_code) == ("canceled", (), "")
    assert end.gpu_seconds > 0

    beat = worker.beats()[-1]
    assert (beat.concurrency, beat.gpu_class, beat.model_version) == (4, "cpu", "tiny")
    assert beat.load_seconds > 0
    assert beat.attributed_seconds == pytest.approx(beat.busy_seconds, rel=1e-3)


def test_an_expired_task_is_dropped(worker, storage, new_task, end_of):
    late = new_task(expires_at=time.time() - 1)
    worker.send(late.to_dict())
    assert end_of(new_task()).outcome == "succeeded"
    assert worker.ends_of(late) == []
    assert not any(late.attempt_token in path for path in storage.objects)


def test_a_task_delivered_twice_is_done_once(worker, storage, new_task, end_of):
    task = new_task()
    worker.send(task.to_dict())
    end_of(task)
    worker.send(task.to_dict())
    assert end_of(new_task()).outcome == "succeeded"
    assert len(worker.ends_of(task)) == 1
    assert storage.requests.count(f"PUT /{task.attempt_token}/0") == 1


def test_a_storage_that_refuses_fails_the_attempt_for_now(storage, new_task, end_of):
    storage.failures = [403]
    end = end_of(new_task())
    assert (end.outcome, end.error_code, end.retryable) == ("failed", "storage_refused", True)


def test_the_worker_outlives_redis_and_reports_attempts_that_ended_meanwhile(
    worker, redis_server, storage, new_task, eventually
):
    running = new_task()
    storage.gate.clear()
    worker.send(running.to_dict())
    assert storage.reached.wait(30)
    redis_server.kill()
    storage.gate.set()
    eventually(lambda: [line for line in worker.log() if line["event"] == "report_repeated"], seconds=60)
    redis_server.start()
    (end,) = eventually(lambda: worker.ends_of(running), seconds=30)
    assert end.outcome == "succeeded"

    after = new_task()
    worker.send(after.to_dict())
    (end,) = eventually(lambda: worker.ends_of(after), seconds=30)
    assert end.outcome == "succeeded"
    assert worker.process.poll() is None


def test_the_log_is_json_names_the_request_and_omits_prompts_and_urls(worker, new_task, end_of):
    task = new_task()
    end_of(task)
    lines = worker.log()
    assert all({"ts", "level", "service", "event"} <= line.keys() for line in lines)
    mine = [line["event"] for line in lines if line.get("request_id") == task.request_id]
    assert mine[:1] == ["attempt_began"]
    loaded = next(line for line in lines if line["event"] == "model_loaded")
    assert loaded["model_name"] == "tiny"
    assert loaded["duration_seconds"] > 0
    text = json.dumps(lines)
    assert "secret" not in text
    assert "http://" not in text


def test_the_metrics_attribute_device_time_to_tenants(worker, storage, new_task, end_of, lora_tensors):
    end_of(new_task(tenant="globex", adapters=(adapter_at(storage, lora_tensors(8)),)))
    _, text = worker.get("/metrics")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['easel_gpu_busy_seconds_total{tenant="globex"}']) > 0
    assert float(values['easel_worker_images_total{outcome="succeeded"}']) > 0
    assert float(values["easel_gpu_load_seconds_total"]) > 0
    assert {name.split("{")[0] for name, value in values.items() if float(value) > 0} >= {
        *(f"easel_worker_step_{what}_count" for what in ("rows", "tokens", "adapters", "seconds")),
        *(f"easel_worker_{what}_seconds_count" for what in ("queue", "first_step", "image", "adapter_slot_load")),
        *("easel_worker_adapter_slots_total", "easel_worker_row_steps_total", "easel_worker_adapter_loads_total"),
    }
    assert abs(float(values["easel_gpu_attribution_drift_ratio"])) < 1e-3


def test_tasks_that_yield_keep_no_other_task_waiting(worker, new_task, end_of, eventually):
    endless = [new_task(steps=50_000, yields=True) for _ in range(4)]  # as many as the worker has places
    for task in endless:
        worker.send(task.to_dict())
    eventually(lambda: len(worker.beats()[-1].attempts) == 4, seconds=30)
    assert end_of(new_task()).outcome == "succeeded"
    assert not any(worker.ends_of(task) for task in endless)
    for task in endless:
        worker.redis.client.set(cancel_key(NAMESPACE, task.attempt_token), "now")
    ends = eventually(
        lambda: all(map(worker.ends_of, endless)) and [worker.ends_of(task) for task in endless], seconds=30
    )
    assert [[end.outcome] for [end] in ends] == [["canceled"]] * 4


def test_a_device_that_nvml_does_not_know_has_no_gauges_and_stops_nothing():
    metrics.watch_device("00000000-0000-0000-0000-000000000000")
    assert REGISTRY.get_sample_value("easel_gpu_memory_bytes", {"state": "used"}) is None


def test_sigterm_lets_running_work_end_gives_up_the_rest_and_exits_cleanly(
    checkpoint, redis_server, tmp_path, new_task, eventually
):
    # A namespace of its own: the other tests' worker must not take these tasks.
    worker = WorkerProcess(checkpoint, redis_server, tmp_path, concurrency=2, namespace="easel-t-globex")
    eventually(worker.beats, seconds=90)
    short, endless, queued = new_task(steps=3), new_task(steps=50_000), new_task()
    yielding = new_task(steps=50_000, yields=True)
    for task in (yielding, short, endless):
        worker.send(task.to_dict())
    left = {yielding.attempt_token, endless.attempt_token}
    eventually(lambda: {one.attempt_token for one in worker.beats()[-1].attempts} == left, seconds=30)
    assert worker.get("/readyz") == (200, "ready\n")
    worker.process.send_signal(signal.SIGTERM)
    eventually(lambda: worker.get("/readyz") == (503, "not ready\n"), seconds=30)
    [given_up] = eventually(lambda: worker.ends_of(yielding), seconds=30)  # at once: nobody waits for it
    assert (given_up.error_code, given_up.retryable) == ("worker_stopped", True)
    assert worker.ends_of(endless) == []
    worker.send(queued.to_dict())
    eventually(lambda: worker.beats()[-1].concurrency == 0, seconds=30)
    assert worker.process.wait(30) == 0
    assert [end.outcome for end in worker.ends_of(short)] == ["succeeded"]
    (end,) = worker.ends_of(endless)
    assert (end.outcome, end.error_code, end.retryable) == ("failed", "worker_stopped", True)
    assert worker.ends_of(queued) == []
    assert redis_server.client.llen(f"{worker.namespace}:{QUEUE}") == 1


def test_a_bad_variable_stops_the_start_with_its_name(monkeypatch):
    monkeypatch.setattr(os, "environ", {"REDIS_URL": "redis://x", "EASEL_WORKER_CONCURRENCY": "many"})
    # A text as its argument is printed to stderr, and makes the exit status 1.
    with pytest.raises(SystemExit, match="EASEL_WORKER_CONCURRENCY='many'"):
        main()


def test_a_worker_without_the_demo_model_asks_for_a_model(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "_DEMO_CHECKPOINT", tmp_path / "not-installed")
    with pytest.raises(config.ConfigError, match="EASEL_MODEL is required"):
        config.WorkerConfig.from_env({"REDIS_URL": "redis://x"})
