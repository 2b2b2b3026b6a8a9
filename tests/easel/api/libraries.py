"""OpenAI's libraries for Python and Node, as programs use them, but for how long each request of a call may take.

The libraries have one time-out for all requests of a call. Here each request has its own, so that a test decides which
of them end, however slow its machine is.
"""

import base64
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai

from easel_client import Easel
from tests.clients.programs import run_node

NODE_PROGRAM = """
import OpenAI from "openai";

const { content, seconds } = JSON.parse(process.env.CALL);
let requests = 0;

function patient(url, init) {
  requests += 1;
  // Not by AbortSignal.any: Node 20 may collect the signal that it makes, and then the time-out never comes.
  const patience = new AbortController();
  const late = new DOMException("The request took too long: timeout", "TimeoutError");
  const milliseconds = 1000 * seconds[new Headers(init.headers).get("x-stainless-retry-count")];
  setTimeout(() => patience.abort(late), milliseconds).unref();
  init.signal.addEventListener("abort", () => patience.abort(init.signal.reason));
  return fetch(url, { ...init, signal: patience.signal });
}

const client = new OpenAI({ fetch: patient, maxRetries: seconds.length - 1 });
try {
  const answer = await client.images.generate(content);
  console.log(JSON.stringify({ picture: answer.data[0].b64_json, refused: null, requests }));
} catch (error) {
  console.log(JSON.stringify({ picture: null, refused: error.code ?? error.constructor.name, requests }));
}
"""
TIMED_OUT = ("APITimeoutError", "APIConnectionTimeoutError")


class Generated(NamedTuple):
    """The image of a call, or what its library raised: the error's code, or its class; and how often it asked."""

    picture: bytes | None
    refused: str | None
    requests: int


class Patience(httpx.HTTPTransport):
    """Ends each request of a call after its own time."""

    def __init__(self, seconds: tuple[float, ...]) -> None:
        super().__init__()
        self.seconds, self.requests = seconds, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        seconds = self.seconds[int(request.headers["x-stainless-retry-count"])]
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
        return super().handle_request(request)


def python_generate(port: int, secret: str, content: dict[str, Any], *, seconds: tuple[float, ...]) -> Generated:
    patience = Patience(seconds)
    with httpx.Client(transport=patience) as http:
        url = f"http://127.0.0.1:{port}/v1"
        client = openai.OpenAI(base_url=url, api_key=secret, http_client=http, max_retries=len(seconds) - 1)
        try:
            answer = client.images.generate(**content)
        except openai.APIError as error:
            return Generated(None, error.code or type(error).__name__, patience.requests)
    return Generated(base64.b64decode(answer.data[0].b64_json), None, patience.requests)


def node_generate(port: int, secret: str, content: dict[str, Any], *, seconds: tuple[float, ...]) -> Generated:
    caller = Easel(f"http://127.0.0.1:{port}", secret)
    called = json.dumps({"content": content, "seconds": seconds})
    with tempfile.TemporaryDirectory() as folder:
        ran = run_node(NODE_PROGRAM, caller, Path(folder), CALL=called)
    assert ran.code == 0, ran.err
    found = Generated(**json.loads(ran.out))
    return found._replace(picture=base64.b64decode(found.picture) if found.picture else None)
