"""The paths under /v1, each with its resource."""

import json
from functools import cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path, register_converter
from django.urls.converters import StringConverter

from easel.api import (
    adapters,
    batches,
    budgets,
    costs,
    edits,
    error_views,
    experiments,
    exports,
    files,
    images,
    jobs,
    pages,
    quota,
    quotes,
    served_models,
    statements,
    webhooks,
)
from easel.api.document import document
from easel.api.endpoint import endpoint
from easel.api.resource import serve


class NameConverter(StringConverter):
    """Any name without NUL, which PostgreSQL can't store."""

    regex = r"[^/\x00]+"  # published in the OpenAPI document; a path holds no lone surrogate


class ModelNameConverter(StringConverter):
    """A model's name, which may be a hub id with a slash, sent as such or percent-encoded."""

    regex = r"[^\x00]+"


class DocumentConverter(StringConverter):
    """A format of a statement's document."""

    regex = "html|pdf|csv"


register_converter(NameConverter, "name")
register_converter(ModelNameConverter, "model")
register_converter(DocumentConverter, "document")


@cache
def _document() -> str:
    return json.dumps(document(urlpatterns, server_url=settings.EASEL.public_url), ensure_ascii=False)


@endpoint("get", "openapi_get", dict[str, Any], is_public=True)
def openapi(request: HttpRequest) -> HttpResponse:
    """Answer with this OpenAPI document."""
    return HttpResponse(_document(), content_type="application/json")


urlpatterns = [
    path("", serve(pages.api_index)),  # of `/v1`, which `easel.urls` routes too
    path("images/generations", images.images_generations),
    path("images/edits", serve(edits.images_edits)),
    path("images/variations", serve(edits.images_variations)),
    path("images/quotes", serve(quotes.images_quote)),
    path("files", serve(files.Files)),
    path("files/<name:file_id>", serve(files.FileDetail)),
    path("files/<name:file_id>/content", serve(files.file_content)),
    path("batches", serve(batches.Batches)),
    path("batches/<name:batch_id>", serve(batches.batch_detail)),
    path("batches/<name:batch_id>/cancel", serve(batches.batch_cancel)),
    path("jobs", serve(jobs.Jobs, submits=True)),
    path("jobs/<uuid:job_id>", serve(jobs.JobDetail)),
    path("jobs/<uuid:job_id>/events", jobs.job_events),
    path("jobs/<uuid:job_id>/cancel", serve(jobs.job_cancel)),
    path("jobs/<uuid:job_id>/images", serve(jobs.job_images)),
    path("jobs/<uuid:job_id>/feedback", serve(jobs.job_feedback)),
    path("experiments", serve(experiments.Experiments)),
    path("experiments/<name:name>", serve(experiments.experiment_detail)),
    path("experiments/<name:name>/stop", serve(experiments.ExperimentStop)),
    path("rollouts", serve(experiments.rollouts)),
    path("adapters", serve(adapters.Adapters)),
    path("adapters/<name:name>", serve(adapters.AdapterDetail)),
    path("models", serve(served_models.models)),
    path("models/<model:name>", serve(served_models.model_detail)),
    path("quota", serve(quota.quota)),
    path("usage", serve(costs.usage)),
    path("costs", serve(costs.costs)),
    path("costs/outlook", serve(costs.outlook)),
    path("exports/focus", serve(exports.focus_export)),
    path("exports/costs", serve(exports.costs_export)),
    path("exports/events", serve(exports.events_export)),
    path("balance", serve(budgets.balance_detail)),
    path("budgets", serve(budgets.Budgets)),
    path("budgets/<uuid:budget_id>", serve(budgets.budget_detail)),
    path("statements", serve(statements.statements)),
    path("statements/current", serve(statements.statement_current)),
    path("statements/<uuid:statement_id>", serve(statements.statement_detail)),
    path("statements/<uuid:statement_id>/<document:form>", serve(statements.statement_document)),
    path("statements/<uuid:statement_id>/lines/<int:position>/charges", serve(statements.statement_line_charges)),
    path("webhooks", serve(webhooks.Webhooks)),
    path("webhooks/<uuid:webhook_id>", serve(webhooks.WebhookDetail)),
    path("webhooks/<uuid:webhook_id>/rotate", serve(webhooks.webhook_rotate)),
    path("webhooks/<uuid:webhook_id>/test", serve(webhooks.webhook_test)),
    path("webhooks/<uuid:webhook_id>/deliveries", serve(webhooks.webhook_deliveries)),
    path("webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>/replay", serve(webhooks.webhook_replay)),
    path("errors", serve(error_views.error_codes)),
    path("openapi.json", serve(openapi)),
]
