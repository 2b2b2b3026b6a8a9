"""Texts of the OpenAPI document: its introduction, tags, headers, path parameters and ways to authenticate."""

from typing import Any

from easel.api.declaration import Schema

DESCRIPTION = """\
Easel generates images from text for many tenants. The images calls are OpenAI's: an OpenAI client works with
`base_url` set to this server's `/v1`. The other calls follow jobs, manage adapters, budgets and webhooks, and
account for every image.

## Authentication

Send a key as `Authorization: Bearer easel_sk_…`, or in the header `api-key`. Keys come from the platform's
operator, who makes them in the portal (`/admin/`) or with `easel key create`. A key has scopes; each call names the
one that it needs.

`AzureOpenAI` of OpenAI's libraries works with this server as its `azure_endpoint`. `/openai/v1/…` and `/openai/…` are
other names of every path under `/v1`, and `/openai/deployments/{name}/images/generations` is `/v1/images/generations`
with `{name}` as the `model`, whatever the body says.

## Errors

An error has OpenAI's body, `{"error": {"message", "type", "param", "code"}}`. Each call lists the codes that it may
answer with, in the text of its responses and as `x-error-codes`. `GET /v1/errors` says what each code means and
what to do. `x-should-retry` says if the same request can succeed later, and `Retry-After` when.

## Compatibility

Answers, events and webhook payloads may get new fields at any time: ignore those that you don't know. Unknown
fields of requests are refused. A field that is null counts as left out.

## Requests and retries

Every answer has an `X-Request-Id`. A request that makes something takes an `Idempotency-Key`: repeated with the
same body within 24 hours, it answers with what the first one made.
"""

# By the first part of a path.
TAGS: dict[str, tuple[str, str]] = {
    "images": ("Images", "OpenAI's Images API, and quotes for the same requests."),
    "jobs": ("Jobs", "Generations without a waiting client: their progress, images, cost and feedback."),
    "batches": ("Batches", "Many requests in one file, for less, as far as the platform is idle."),
    "files": ("Batches", "Many requests in one file, for less, as far as the platform is idle."),
    "models": ("Models", "The models that can be called."),
    "adapters": ("Adapters", "LoRA adapters of your account."),
    "experiments": ("Experiments", "A/B tests on your requests, and the rollouts that may touch them."),
    "rollouts": ("Experiments", "A/B tests on your requests, and the rollouts that may touch them."),
    "quota": ("Account", "What you may use and spend, and your budgets."),
    "balance": ("Account", "What you may use and spend, and your budgets."),
    "budgets": ("Account", "What you may use and spend, and your budgets."),
    "costs": ("Costs", "What was used and charged, by the groups that you ask for, and exports of it."),
    "usage": ("Costs", "What was used and charged, by the groups that you ask for, and exports of it."),
    "exports": ("Costs", "What was used and charged, by the groups that you ask for, and exports of it."),
    "statements": ("Statements", "Statements of each month, down to the jobs behind a line."),
    "webhooks": ("Webhooks", "URLs that are notified of events, and the deliveries to them."),
    "": ("Reference", "What this API can answer."),
    "errors": ("Reference", "What this API can answer."),
    "openapi.json": ("Reference", "What this API can answer."),
}

PATH_PARAMETERS = {
    "job_id": "The id of a job.",
    "name": "The name that you gave it, or the name of a model.",
    "batch_id": "The id of a batch, `batch_…`.",
    "file_id": "The id of a file, `file-…`.",
    "budget_id": "The id of a budget.",
    "statement_id": "The id of a statement or credit note.",
    "form": "The format of the document.",
    "position": "The position of a line of the statement.",
    "webhook_id": "The id of a webhook.",
    "delivery_id": "The id of a delivery.",
}

SECURITY: dict[str, Schema] = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, `easel_sk_…`."},
    "apiKeyHeader": {
        "type": "apiKey",
        "in": "header",
        "name": "api-key",
        "description": "The same key, in the header of Azure's clients.",
    },
}


def _header(name: str, text: str, *, is_required: bool = False, **schema: Any) -> Schema:
    found = {"name": name, "in": "header", "required": is_required, "description": text}
    return {**found, "schema": {"type": "string", **schema}}


# Headers of requests, and of the webhook events that this platform sends.
PARAMETERS: dict[str, Schema] = {
    "X-Request-Id": _header(
        "X-Request-Id",
        "Your own id for the request: 8 to 64 letters, digits, dots, hyphens and underscores. Others are replaced.",
    ),
    "Idempotency-Key": _header(
        "Idempotency-Key",
        "1 to 255 printable ASCII characters. Within 24 hours the same key with the same body makes one thing.",
        maxLength=255,
    ),
    "Last-Event-ID": _header("Last-Event-ID", "The `id` of the last event that you saw: the stream goes on after it."),
    "webhook-id": _header("webhook-id", "The id of the message, the same for each repeat.", is_required=True),
    "webhook-timestamp": _header("webhook-timestamp", "Seconds since 1970 when it was signed.", is_required=True),
    "webhook-signature": _header(
        "webhook-signature",
        "`v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64, as Standard Webhooks defines it. After a rotation"
        " of the secret there are two, with a space between.",
        is_required=True,
    ),
}


def _answered(text: str, **schema: Any) -> Schema:
    return {"description": text, "schema": {"type": "string", **schema}}


# Headers of answers.
HEADERS: dict[str, Schema] = {
    "X-Request-Id": _answered("The id of the request, which is in the logs too."),
    "RateLimit": _answered('What is left of each limit: `"account";r=99;t=1`.'),
    "RateLimit-Policy": _answered('The limits of requests per minute: `"account";q=100;w=60`.'),
    "x-ratelimit-limit-requests": _answered("The limit of requests per minute with the least left."),
    "x-ratelimit-remaining-requests": _answered("What is left of that limit."),
    "x-ratelimit-reset-requests": _answered("The time until that limit is whole again: `12s`."),
    "Retry-After": {"description": "Seconds to wait before a retry.", "schema": {"type": "integer", "minimum": 0}},
    "Location": _answered("The URL of the job, which is not done yet.", format="uri"),
    "x-should-retry": _answered("Whether the same request can succeed later.", enum=["true", "false"]),
    "Idempotent-Replayed": _answered(
        "Present if an earlier request with this key, or of the same call, caused the answer.", enum=["true"]
    ),
    "Content-Disposition": _answered("The name of the file."),
    "WWW-Authenticate": _answered("How to authenticate: `Bearer`."),
    "Easel-Cost": _answered(
        "What the images cost, as a decimal number. A stream, or an answer that began before its job had ended, has it"
        " in its body alone."
    ),
    "Easel-Cost-Currency": _answered("The currency of `Easel-Cost`, by ISO 4217."),
}
