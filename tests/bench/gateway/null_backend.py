"""The image model behind the peer: an ASGI application that answers every request with an OpenAI image body at once."""

from typing import Any

_BODY = b'{"created":1,"data":[{"b64_json":"aGk="}]}'
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())],
}


async def application(_scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send(_START)
    await send({"type": "http.response.body", "body": _BODY})
