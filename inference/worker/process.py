"""The worker process: a Celery consumer in front of one engine.

The queue is not the record of work: a task is acknowledged as soon as it is received. The control plane, whose database
holds the lease, repeats the tasks of a worker that died.
"""

import signal
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import celery
import celery.signals
import celery.worker.state
import redis
import structlog
import torch
from celery.apps.worker import Worker as CeleryWorker

from inference import metrics
from inference.adapters import load_adapter
from inference.calibration import warm_up
from inference.contract import QUEUE, TASK_NAME, AttemptFinished, GenerationTask, WorkerBeat
from inference.engine import Engine
from inference.model import AdapterLimits, LoadedModel, load_model
from inference.openmp import run_in_fresh_thread
from inference.scheduler import Scheduler
from inference.worker.adapter_store import AdapterStore
from inference.worker.attempts import Attempts
from inference.worker.config import WorkerConfig
from inference.worker.logs import configure_logs
from inference.worker.reports import Reporter
from inference.worker.transfer import new_client

_FLUSH_SECONDS = 10.0  # for queued reports, after the last attempt has ended

log = structlog.get_logger()


class Worker:
    """The engine, the attempts and the reporter of one process."""

    def __init__(
        self, config: WorkerConfig, model: LoadedModel, *, load_seconds: float, ready: threading.Event
    ) -> None:
        """`ready` is set while the worker accepts tasks."""
        self._config = config
        self._ready = ready
        self._started_at = time.time() - load_seconds  # loading counts as part of its life
        self._stopping = threading.Event()
        self._gpu_class = config.gpu_class or model.device_name
        self._engine = Engine(
            model,
            clock=time.monotonic,
            scheduler=Scheduler(tokens_max=model.tokens_max),
            step_seconds_max=config.step_ms_max / 1000,
        )
        self._engine.meter.charge_pool(load_seconds)
        # Attempts that yield run in threads of their own: in Celery's they would keep the next other task waiting.
        self._yielding = ThreadPoolExecutor(config.concurrency, thread_name_prefix="yielding")
        client = new_client()
        self._reporter = Reporter(
            redis.Redis.from_url(config.redis_url, socket_timeout=5, socket_connect_timeout=5),
            config.namespace,
            beat=self._beat,
            cancel=lambda token: self._attempts.cancel(token),
        )
        self._attempts = Attempts(
            engine=self._engine,
            adapters=AdapterStore(
                folder=config.adapter_cache_dir,
                disk_bytes_max=config.adapter_cache_bytes,
                memory_bytes_max=config.adapter_memory_bytes,
                client=client,
                parse=lambda path, sha256: run_in_fresh_thread(
                    lambda: load_adapter(path, model.targets, sha256=sha256)
                ),
            ),
            client=client,
            clock=time.monotonic,
            worker=config.worker_name,
            gpu_class=self._gpu_class,
            model_versions=config.model_versions,
            on_begin=self._reporter.send_beat,
            on_preview_stored=self._reporter.request_beat,
            on_finish=self._reporter.queue_end,
        )

    def serve(self) -> int:
        """Accept tasks until SIGTERM or SIGINT; return the exit status of the process."""
        self._engine.start()
        consumer = _Consumer(
            app=celery_app(self._config, self._receive),
            hostname=f"easel@{self._config.worker_name}",
            queues=[QUEUE],
            pool="threads",
            concurrency=self._config.concurrency,
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        consumer.on_stop_signal = self._stop
        self._reporter.start()
        threading.Thread(target=self._watch_stop, name="stop", daemon=True).start()
        self._ready.set()
        log.info("worker_ready", worker=self._config.worker_name, concurrency=self._config.concurrency)
        consumer.start()  # returns when the last attempt in Celery's threads has ended
        self._yielding.shutdown()
        self._stop()
        self._engine.close()
        unsent = self._reporter.stop(timeout_seconds=_FLUSH_SECONDS)
        log.info("worker_stopped", reports_unsent=unsent)
        return int(consumer.exitcode or 0)

    def _receive(self, fields: Mapping[str, Any]) -> None:
        """Run one task, or begin it if it yields. Any error is reported or logged, never raised."""
        try:
            task = GenerationTask.from_dict(fields)
        except (KeyError, TypeError, AttributeError) as error:
            log.error("task_malformed", reason=repr(error))
            token = fields.get("attempt_token") if isinstance(fields, Mapping) else None
            if isinstance(token, str):
                end = AttemptFinished(
                    attempt_token=token,
                    worker=self._config.worker_name,
                    gpu_class=self._gpu_class,
                    outcome="failed",
                    error_code="task_malformed",
                    error_message="the worker does not understand the task",
                )
                self._reporter.queue_end(end)
            return
        if task.yields:
            self._yielding.submit(self._run, task)
        else:
            self._run(task)

    def _run(self, task: GenerationTask) -> None:
        if task.yields and self._stopping.is_set():
            return  # its lease ends unused, and another worker gets it
        try:
            self._attempts.run(task, now=time.time())
        except Exception:
            log.exception("task_failed", job=task.job_id)

    def _beat(self) -> WorkerBeat:
        attempts = self._attempts.progress()  # before the totals, so that these include attempts that end in between
        meter = self._engine.meter
        return WorkerBeat(
            worker=self._config.worker_name,
            gpu_class=self._gpu_class,
            # A worker that is stopping renews its leases but accepts no more work.
            concurrency=0 if self._stopping.is_set() else self._config.concurrency,
            model_version=",".join(self._config.model_versions),
            started_at=self._started_at,
            busy_seconds=meter.busy_seconds,
            attributed_seconds=meter.attributed_seconds,
            load_seconds=meter.load_seconds,
            attempts=attempts,
        )

    def _stop(self) -> None:
        self._ready.clear()
        self._stopping.set()

    def _watch_stop(self) -> None:
        self._stopping.wait()
        self._reporter.request_beat()
        log.info("worker_stopping", attempts=len(self._attempts.progress()))
        # Nobody waits for them, and other attempts wait for the worker that comes after this one.
        self._attempts.stop(only_yielding=True)
        time.sleep(self._config.stop_grace_seconds)
        self._attempts.stop()


class _Consumer(CeleryWorker):  # type: ignore[misc]
    """Celery's worker with our signal handlers: Celery's own print, and restart on SIGHUP."""

    on_stop_signal = staticmethod(lambda: None)

    def install_platform_tweaks(self, worker: CeleryWorker) -> None:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)

    def _stop(self, *_: Any) -> None:
        self.on_stop_signal()
        # Celery's consumer reads this flag between messages, then takes no more and waits for its threads.
        celery.worker.state.should_stop = 0


def celery_app(config: WorkerConfig, receive: Any) -> celery.Celery:
    """Make the application with its one task, which calls `receive` with its argument."""
    app = celery.Celery("easel-worker", broker=config.redis_url, set_as_current=False)
    app.conf.update(
        # Tasks are acknowledged as they are received, so that Celery needs no notes of those that are not. Redis would
        # run a script for these, and the user of a pool may run none (`easel.catalog.redis_users`).
        broker_transport_options={"global_keyprefix": f"{config.namespace}:", "ack_emulation": False},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # reconnect however long Redis is unavailable
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        # A prefetched task would wait here while another worker is idle.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_prefetch_count_reduction=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    # Celery configures logging unless this signal has a receiver.
    celery.signals.setup_logging.connect(lambda **_: None, weak=False)

    app.task(receive, name=TASK_NAME)
    return app


def _load_warm(config: WorkerConfig) -> LoadedModel:
    limits = AdapterLimits(
        adapter_slots=config.adapter_slots, rank_max=config.adapter_rank_max, merged_bytes=config.merged_bytes
    )
    model = load_model(config.model, name=config.model_name, precision=config.precision, limits=limits)
    warm_up(model)
    return model


def run(config: WorkerConfig) -> int:
    """Load the model and work until SIGTERM or SIGINT; return the exit status of the process."""
    configure_logs(config.log_format)
    ready = threading.Event()
    log.info("metrics_served", port=metrics.serve(config.metrics_port, ready=ready.is_set))
    started = time.monotonic()
    torch.set_num_threads(config.torch_threads)
    model = run_in_fresh_thread(lambda: _load_warm(config))
    if model.device.type == "cuda":
        metrics.watch_device(str(torch.cuda.get_device_properties(model.device).uuid))
    worker = Worker(config, model, load_seconds=time.monotonic() - started, ready=ready)
    return worker.serve()
