from django.urls import path, register_converter
from django.urls.converters import StringConverter
from drf_spectacular.views import SpectacularJSONAPIView

from core.threads import threaded
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
from easel.api.submission import submitting


class NameConverter(StringConverter):
    """Any name that PostgreSQL can look for."""

    regex = r"[^/\x00]+"


class DocumentConverter(StringConverter):
    """What a statement can be had as."""

    regex = "html|pdf|csv"


register_converter(NameConverter, "name")
register_converter(DocumentConverter, "document")
openapi = SpectacularJSONAPIView.as_view(authentication_classes=[], permission_classes=[])

urlpatterns = [
    path("images/generations", image_views.images_generations),
    path("images/quotes", threaded(quote_views.ImagesQuote.as_view())),
    path("jobs", submitting(job_views.Jobs.as_view())),
    path("jobs/<uuid:job_id>", threaded(job_views.JobDetail.as_view())),
    path("jobs/<uuid:job_id>/events", job_views.job_events),
    path("jobs/<uuid:job_id>/cancel", threaded(job_views.JobCancel.as_view())),
    path("jobs/<uuid:job_id>/images", threaded(job_views.JobImages.as_view())),
    path("jobs/<uuid:job_id>/feedback", threaded(experiment_views.JobFeedback.as_view())),
    path("experiments", threaded(experiment_views.Experiments.as_view())),
    path("experiments/<name:name>", threaded(experiment_views.ExperimentDetail.as_view())),
    path("experiments/<name:name>/stop", threaded(experiment_views.ExperimentStop.as_view())),
    path("rollouts", threaded(experiment_views.Rollouts.as_view())),
    path("adapters", threaded(adapter_views.Adapters.as_view())),
    path("adapters/<name:name>", threaded(adapter_views.AdapterDetail.as_view())),
    path("models", threaded(model_views.Models.as_view())),
    path("models/<name:name>", threaded(model_views.ModelDetail.as_view())),
    path("quota", threaded(credit_views.QuotaView.as_view())),
    path("usage", threaded(cost_views.Usage.as_view())),
    path("costs", threaded(cost_views.Costs.as_view())),
    path("costs/outlook", threaded(cost_views.Outlook.as_view())),
    path("exports/focus", threaded(export_views.FocusExport.as_view())),
    path("exports/costs", threaded(export_views.CostsExport.as_view())),
    path("exports/events", threaded(export_views.EventsExport.as_view())),
    path("balance", threaded(credit_views.Balance.as_view())),
    path("budgets", threaded(credit_views.Budgets.as_view())),
    path("budgets/<uuid:budget_id>", threaded(credit_views.BudgetDetail.as_view())),
    path("statements", threaded(statement_views.Statements.as_view())),
    path("statements/current", threaded(statement_views.StatementCurrent.as_view())),
    path("statements/<uuid:statement_id>", threaded(statement_views.StatementDetail.as_view())),
    path("statements/<uuid:statement_id>/<document:form>", threaded(statement_views.StatementDocument.as_view())),
    path(
        "statements/<uuid:statement_id>/lines/<int:position>/charges",
        threaded(statement_views.StatementLineCharges.as_view()),
    ),
    path("webhooks", threaded(webhook_views.Webhooks.as_view())),
    path("webhooks/<uuid:webhook_id>", threaded(webhook_views.WebhookDetail.as_view())),
    path("webhooks/<uuid:webhook_id>/rotate", threaded(webhook_views.WebhookRotate.as_view())),
    path("webhooks/<uuid:webhook_id>/test", threaded(webhook_views.WebhookTest.as_view())),
    path("webhooks/<uuid:webhook_id>/deliveries", threaded(webhook_views.WebhookDeliveries.as_view())),
    path(
        "webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>/replay",
        threaded(webhook_views.WebhookReplay.as_view()),
    ),
    path("openapi.json", threaded(openapi)),
]
