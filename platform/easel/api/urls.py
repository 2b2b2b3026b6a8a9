from django.http import HttpRequest, HttpResponse
from django.urls import path, register_converter
from django.urls.converters import StringConverter
from drf_spectacular.views import SpectacularJSONAPIView

from core.threads import in_thread
from easel.api import (
    adapter_views,
    cost_views,
    credit_views,
    experiment_views,
    export_views,
    image_views,
    job_views,
    model_views,
    quote_views,
    statement_views,
    webhook_views,
)
from easel.api.resource import serve


class NameConverter(StringConverter):
    """Any name that PostgreSQL can look for."""

    regex = r"[^/\x00]+"


class DocumentConverter(StringConverter):
    """What a statement can be had as."""

    regex = "html|pdf|csv"


register_converter(NameConverter, "name")
register_converter(DocumentConverter, "document")
_openapi = SpectacularJSONAPIView.as_view(authentication_classes=[], permission_classes=[])


async def openapi(request: HttpRequest) -> HttpResponse:
    """Render the document on a thread: Django would start one to do it."""
    answer = await in_thread(lambda: _openapi(request).render())
    return HttpResponse(answer.content, status=answer.status_code, headers=dict(answer.headers))


urlpatterns = [
    path("images/generations", image_views.images_generations),
    path("images/quotes", serve(quote_views.ImagesQuote)),
    path("jobs", serve(job_views.Jobs, submits=True)),
    path("jobs/<uuid:job_id>", serve(job_views.JobDetail)),
    path("jobs/<uuid:job_id>/events", job_views.job_events),
    path("jobs/<uuid:job_id>/cancel", serve(job_views.JobCancel)),
    path("jobs/<uuid:job_id>/images", serve(job_views.JobImages)),
    path("jobs/<uuid:job_id>/feedback", serve(experiment_views.JobFeedback)),
    path("experiments", serve(experiment_views.Experiments)),
    path("experiments/<name:name>", serve(experiment_views.ExperimentDetail)),
    path("experiments/<name:name>/stop", serve(experiment_views.ExperimentStop)),
    path("rollouts", serve(experiment_views.Rollouts)),
    path("adapters", serve(adapter_views.Adapters)),
    path("adapters/<name:name>", serve(adapter_views.AdapterDetail)),
    path("models", serve(model_views.Models)),
    path("models/<name:name>", serve(model_views.ModelDetail)),
    path("quota", serve(credit_views.QuotaView)),
    path("usage", serve(cost_views.Usage)),
    path("costs", serve(cost_views.Costs)),
    path("costs/outlook", serve(cost_views.Outlook)),
    path("exports/focus", serve(export_views.FocusExport)),
    path("exports/costs", serve(export_views.CostsExport)),
    path("exports/events", serve(export_views.EventsExport)),
    path("balance", serve(credit_views.Balance)),
    path("budgets", serve(credit_views.Budgets)),
    path("budgets/<uuid:budget_id>", serve(credit_views.BudgetDetail)),
    path("statements", serve(statement_views.Statements)),
    path("statements/current", serve(statement_views.StatementCurrent)),
    path("statements/<uuid:statement_id>", serve(statement_views.StatementDetail)),
    path("statements/<uuid:statement_id>/<document:form>", serve(statement_views.StatementDocument)),
    path(
        "statements/<uuid:statement_id>/lines/<int:position>/charges",
        serve(statement_views.StatementLineCharges),
    ),
    path("webhooks", serve(webhook_views.Webhooks)),
    path("webhooks/<uuid:webhook_id>", serve(webhook_views.WebhookDetail)),
    path("webhooks/<uuid:webhook_id>/rotate", serve(webhook_views.WebhookRotate)),
    path("webhooks/<uuid:webhook_id>/test", serve(webhook_views.WebhookTest)),
    path("webhooks/<uuid:webhook_id>/deliveries", serve(webhook_views.WebhookDeliveries)),
    path(
        "webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>/replay",
        serve(webhook_views.WebhookReplay),
    ),
    path("openapi.json", openapi),
]
