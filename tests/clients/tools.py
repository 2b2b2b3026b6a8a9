"""Requests as tools send them: each file of `bodies` is one, with where it was read.

They meet the demo with the aliases that every installation begins with. Most tools ask for 1024x1024, which the demo's
small model refuses: they ask for 256x256 here. docs/openai.md shows that a model with Z-Image-Turbo's limits takes it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from easel_client import Easel

MODEL = "z-image-demo"
TOOLS = {file.stem: json.loads(file.read_text()) for file in sorted((Path(__file__).parent / "bodies").glob("*.json"))}
AS_IT_IS, LENIENT = "works as it is", "a key or alias that is lenient"


@dataclass
class Installation:
    """Two keys of a tenant, one of them lenient, and that of a tenant without credit."""

    caller: Easel
    lenient: Easel
    poor: Easel
    first: dict[str, tuple[str, httpx.Response]] = field(default_factory=dict)

    def generated_by(self, name: str) -> tuple[str, httpx.Response]:
        """The first setting with which a tool's request gets an image, and the answer."""
        if name not in self.first:
            setting, answer = AS_IT_IS, ask(TOOLS[name], self.caller)
            if answer.status_code != 200:
                setting, answer = LENIENT, ask(TOOLS[name], self.lenient)
            self.first[name] = setting, answer
        return self.first[name]


def ask(tool: dict[str, Any], caller: Easel, **fields: Any) -> httpx.Response:
    """Send a tool's request, with other fields in place of its own."""
    own = {"$model": MODEL, "1024x1024": "256x256"}
    body = {name: own.get(value, value) if isinstance(value, str) else value for name, value in tool["body"].items()}
    headers = {"Authorization": f"Bearer {caller.api_key}"}
    return httpx.post(f"{caller.url}/v1/images/generations", json=body | fields, headers=headers, timeout=120)


def size_of(body: dict[str, Any]) -> tuple[int, int]:
    """The size that a body asks for, see above; the model's own where it asks for none."""
    if "width" in body:
        return body["width"], body["height"]
    size = body.get("size") or "auto"
    width, _, height = ("256x256" if size in ("auto", "1024x1024") else size.lower()).partition("x")
    return int(width), int(height)
