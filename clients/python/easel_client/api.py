"""Calls of the API, a class per resource. `scripts/client` writes this module."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Iterator
from typing import Any, Literal, Unpack

from easel_client import types
from easel_client.transport import Download, Event, Transport, new_key, segment


class Resource:
    """Calls of one kind."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport


class Adapters(Resource):
    def list(self, **query: Unpack[types.AdaptersListQuery]) -> types.AdapterList:
        """List your adapters by name, each with its versions.

        The key needs the scope `adapters` or `read`.
        """
        return self._transport.json("GET", "/v1/adapters", query=query)

    def iterate(self, **query: Unpack[types.AdaptersListQuery]) -> Iterator[types.Adapter]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/adapters", query)

    def upload(self, **form: Unpack[types.AdapterUploadInput]) -> types.Adapter:
        """Upload a LoRA adapter as safetensors. Under a name that you have it is the next version.

        The key needs the scope `adapters`.
        """
        return self._transport.json("POST", "/v1/adapters", form=form)

    def get(self, name: str) -> types.Adapter:
        """Show an adapter with its versions.

        The key needs the scope `adapters` or `read`.
        """
        return self._transport.json("GET", f"/v1/adapters/{segment(name)}")

    def retire(self, name: str) -> types.Adapter:
        """Retire an adapter. New requests can't use it; an upload under its name brings it back.

        The key needs the scope `adapters`.
        """
        return self._transport.json("DELETE", f"/v1/adapters/{segment(name)}")


class Balance(Resource):
    def get(self) -> types.Balance:
        """Show what you can spend, what is held for unfinished jobs, what you owe, and your credit grants.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.json("GET", "/v1/balance")


class Batches(Resource):
    def list(self, **query: Unpack[types.BatchesListQuery]) -> types.BatchList:
        """List batches, the newest first.

        The key needs the scope `generate` or `read`.
        """
        return self._transport.json("GET", "/v1/batches", query=query)

    def iterate(self, **query: Unpack[types.BatchesListQuery]) -> Iterator[types.Batch]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/batches", query)

    def create(self, *, idempotency_key: str | None = None, **body: Unpack[types.BatchInput]) -> types.Batch:
        """Begin a batch: its file is read now. A fault in any line makes the batch `failed`, with the faults of all.

        The key needs the scope `generate`.
        """
        return self._transport.json(
            "POST", "/v1/batches", headers={"Idempotency-Key": new_key(idempotency_key)}, body=body
        )

    def get(self, batch_id: str) -> types.Batch:
        """Show a batch.

        The key needs the scope `generate` or `read`.
        """
        return self._transport.json("GET", f"/v1/batches/{segment(batch_id)}")

    def cancel(self, batch_id: str) -> types.Batch:
        """Cancel what workers have not begun. Images that they are generating are finished, and are in the output
        file.

        The key needs the scope `generate`.
        """
        return self._transport.json("POST", f"/v1/batches/{segment(batch_id)}/cancel")


class Budgets(Resource):
    def list(self, **query: Unpack[types.BudgetsListQuery]) -> types.BudgetList:
        """List your budgets and what this month has spent of them.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.json("GET", "/v1/budgets", query=query)

    def iterate(self, **query: Unpack[types.BudgetsListQuery]) -> Iterator[types.Budget]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/budgets", query)

    def set(self, **body: Unpack[types.BudgetInput]) -> types.Budget:
        """Set the budget of your account, of a project or of a key. It applies at once.

        The key needs the scope `billing`.
        """
        return self._transport.json("PUT", "/v1/budgets", body=body)

    def remove(self, budget_id: str) -> types.Budget:
        """Remove a budget, with its counters.

        The key needs the scope `billing`.
        """
        return self._transport.json("DELETE", f"/v1/budgets/{segment(budget_id)}")


class Costs(Resource):
    def get(self, **query: Unpack[types.CostsGetQuery]) -> types.CostRowList:
        """Sum what was charged by day, project, label, model and so on, beside the same at list prices.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.json("GET", "/v1/costs", query=query)

    def outlook(self) -> types.Outlook:
        """Forecast this month from the weekdays of the last eight weeks, and list its days that stand out.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.json("GET", "/v1/costs/outlook")


class Errors(Resource):
    def list(self) -> types.ErrorCodeList:
        """List the codes of all errors, each with its status, if a retry can help, and what to do.

        No key is needed.
        """
        return self._transport.json("GET", "/v1/errors")


class Experiments(Resource):
    def list(self, **query: Unpack[types.ExperimentsListQuery]) -> types.ExperimentList:
        """List your experiments, the latest first.

        The key needs the scope `generate` or `read`.
        """
        return self._transport.json("GET", "/v1/experiments", query=query)

    def iterate(self, **query: Unpack[types.ExperimentsListQuery]) -> Iterator[types.Experiment]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/experiments", query)

    def start(self, **body: Unpack[types.ExperimentInput]) -> types.Experiment:
        """Split your requests to a model between the arms, from now on.

        The key needs the scope `generate`.
        """
        return self._transport.json("POST", "/v1/experiments", body=body)

    def get(self, name: str) -> types.ExperimentReport:
        """Report what each arm did, and which differences are more than chance.

        The key needs the scope `generate` or `read`.
        """
        return self._transport.json("GET", f"/v1/experiments/{segment(name)}")

    def stop(self, name: str) -> types.Experiment:
        """Stop an experiment. Its report stays.

        The key needs the scope `generate`.
        """
        return self._transport.json("POST", f"/v1/experiments/{segment(name)}/stop")


class Exports(Resource):
    def focus(self, **query: Unpack[types.ExportsFocusQuery]) -> Download:
        """Export what was charged in the columns of FOCUS 1.2, by days of use or for one invoice.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.download("GET", "/v1/exports/focus", query=query)

    def costs(self, **query: Unpack[types.ExportsCostsQuery]) -> Download:
        """Export what was charged by day, project, labels, model and so on, as CSV for a spreadsheet.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.download("GET", "/v1/exports/costs", query=query)

    def events(self, **query: Unpack[types.ExportsEventsQuery]) -> Download:
        """Export what was measured, one CloudEvent per line; `source` and `id` of an event never change.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.download("GET", "/v1/exports/events", query=query)


class Files(Resource):
    def list(self, **query: Unpack[types.FilesListQuery]) -> types.FileList:
        """List the files that are neither deleted nor expired, the newest first.

        The key needs the scope `generate` or `read`.
        """
        return self._transport.json("GET", "/v1/files", query=query)

    def iterate(self, **query: Unpack[types.FilesListQuery]) -> Iterator[types.File]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/files", query)

    def create(self, **form: Unpack[types.FileUploadInput]) -> types.File:
        """Upload the requests of a batch, as a form with `purpose` and `file`.

        The key needs the scope `generate`.
        """
        return self._transport.json("POST", "/v1/files", form=form)

    def get(self, file_id: str) -> types.File:
        """Show a file.

        The key needs the scope `generate` or `read`.
        """
        return self._transport.json("GET", f"/v1/files/{segment(file_id)}")

    def delete(self, file_id: str) -> types.FileDeleted:
        """Delete a file. A batch made from it goes on: its lines were read. Images that an output leads to stay.

        The key needs the scope `generate`.
        """
        return self._transport.json("DELETE", f"/v1/files/{segment(file_id)}")

    def content(self, file_id: str) -> Download:
        """Give the content of a file. The URLs in an output are signed now, for your key, and valid for minutes.

        The key needs the scope `generate` or `read`.
        """
        return self._transport.download("GET", f"/v1/files/{segment(file_id)}/content")


class Images(Resource):
    def generations(self, *, idempotency_key: str | None = None, **body: Unpack[types.ImagesInput]) -> types.Images:
        """Generate images and answer with them, as OpenAI's Images API does. With `stream` they come as events.

        The key needs the scope `generate`.
        """
        return self._transport.json(
            "POST", "/v1/images/generations", headers={"Idempotency-Key": new_key(idempotency_key)}, body=body
        )

    def quotes(self, **body: Unpack[types.QuoteInput]) -> types.Quote:
        """Price the same body as a generation, line by line; nothing is made, held or written.

        What would refuse its admission now, a full queue or a spent budget, is its `refusal`, beside the price.

        The key needs the scope `generate`.
        """
        return self._transport.json("POST", "/v1/images/quotes", body=body)


class Index(Resource):
    def get(self) -> types.ApiIndex:
        """Say what this server is, and where its reference, its document and its portal are.

        No key is needed.
        """
        return self._transport.json("GET", "/v1")


class Jobs(Resource):
    def list(self, **query: Unpack[types.JobsListQuery]) -> types.JobList:
        """List your jobs, the latest first.

        The key needs the scope `generate` or `read`.
        """
        return self._transport.json("GET", "/v1/jobs", query=query)

    def iterate(self, **query: Unpack[types.JobsListQuery]) -> Iterator[types.Job]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/jobs", query)

    def create(self, *, idempotency_key: str | None = None, **body: Unpack[types.JobInput]) -> types.Job:
        """Accept a generation, without waiting for it.

        The key needs the scope `generate`.
        """
        return self._transport.json(
            "POST", "/v1/jobs", headers={"Idempotency-Key": new_key(idempotency_key)}, body=body
        )

    def get(self, job_id: str) -> types.Job:
        """Show a job with its progress, its images and its cost.

        The key needs the scope `generate` or `read`.
        """
        return self._transport.json("GET", f"/v1/jobs/{segment(job_id)}")

    def delete(self, job_id: str) -> types.Job:
        """Delete the images, prompt, metadata and user of a finished job. Its usage and its cost stay.

        The key needs the scope `generate`.
        """
        return self._transport.json("DELETE", f"/v1/jobs/{segment(job_id)}")

    def events(self, job_id: str, *, last_event_id: str | None = None) -> Iterator[Event]:
        """Send the job at each change until it has ended; `Last-Event-ID` leaves out what the client has seen.

        The key needs the scope `generate` or `read`.
        """
        return self._transport.events(
            "GET", f"/v1/jobs/{segment(job_id)}/events", headers={"Last-Event-ID": last_event_id}
        )

    def cancel(self, job_id: str) -> types.Job:
        """Cancel a job. One that waits ends at once; of one that runs the worker is asked to stop.

        The key needs the scope `generate`.
        """
        return self._transport.json("POST", f"/v1/jobs/{segment(job_id)}/cancel")

    def images_delete(self, job_id: str) -> types.Job:
        """Delete the images, and end the charge for storing them.

        The key needs the scope `generate`.
        """
        return self._transport.json("DELETE", f"/v1/jobs/{segment(job_id)}/images")

    def feedback(self, job_id: str, **body: Unpack[types.FeedbackInput]) -> types.Feedback:
        """Record your end user's opinion of a job's images, once per job.

        The key needs the scope `generate`.
        """
        return self._transport.json("POST", f"/v1/jobs/{segment(job_id)}/feedback", body=body)


class Models(Resource):
    def list(self) -> types.ModelList:
        """List the models and aliases that your requests may name, each with its sizes, steps and qualities."""
        return self._transport.json("GET", "/v1/models")

    def get(self, name: str) -> types.Model:
        """Show a model, or the model that an alias stands for, with its sizes, steps and qualities."""
        return self._transport.json("GET", f"/v1/models/{segment(name)}")


class Openapi(Resource):
    def get(self) -> dict[str, Any]:
        """Answer with this OpenAPI document.

        No key is needed.
        """
        return self._transport.json("GET", "/v1/openapi.json")


class Quota(Resource):
    def get(self) -> types.Quota:
        """List each limit of your account and of this key, and how much of it is used."""
        return self._transport.json("GET", "/v1/quota")


class Rollouts(Resource):
    def list(self, **query: Unpack[types.RolloutsListQuery]) -> types.RolloutList:
        """List canaries, the latest first: another version may be serving a share of your requests."""
        return self._transport.json("GET", "/v1/rollouts", query=query)

    def iterate(self, **query: Unpack[types.RolloutsListQuery]) -> Iterator[types.Rollout]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/rollouts", query)


class Statements(Resource):
    def list(self, **query: Unpack[types.StatementsListQuery]) -> types.StatementSummaryList:
        """List statements and credit notes, the latest first.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.json("GET", "/v1/statements", query=query)

    def iterate(self, **query: Unpack[types.StatementsListQuery]) -> Iterator[types.StatementSummary]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/statements", query)

    def current(self) -> types.CurrentStatement:
        """Draft this month's statement as if the month ended now.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.json("GET", "/v1/statements/current")

    def get(self, statement_id: str) -> types.Statement:
        """Show a statement or credit note with its lines.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.json("GET", f"/v1/statements/{segment(statement_id)}")

    def document(
        self, statement_id: str, form: Literal["html", "pdf", "csv"], **query: Unpack[types.StatementsDocumentQuery]
    ) -> Download:
        """Download the statement as `html` (a page that prints well), `pdf` or `csv`.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.download("GET", f"/v1/statements/{segment(statement_id)}/{segment(form)}", query=query)

    def line_charges(
        self, statement_id: str, position: int, **query: Unpack[types.StatementsLineChargesQuery]
    ) -> types.ChargeList:
        """List the charges of a line, each with its price, its job and the attempts at that.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.json(
            "GET", f"/v1/statements/{segment(statement_id)}/lines/{segment(position)}/charges", query=query
        )

    def line_charges_iterate(
        self, statement_id: str, position: int, **query: Unpack[types.StatementsLineChargesQuery]
    ) -> Iterator[types.Charge]:
        """Yield what `line_charges` lists, page by page."""
        return self._transport.pages(f"/v1/statements/{segment(statement_id)}/lines/{segment(position)}/charges", query)


class Usage(Resource):
    def get(self, **query: Unpack[types.UsageGetQuery]) -> types.UsageRowList:
        """Deprecated. Sum usage by project, day and so on. Use `/v1/costs` instead, unless you need what was not
        charged.

        The key needs the scope `usage` or `read`.
        """
        return self._transport.json("GET", "/v1/usage", query=query)


class Webhooks(Resource):
    def list(self, **query: Unpack[types.WebhooksListQuery]) -> types.WebhookList:
        """List your webhooks, the latest first.

        The key needs the scope `webhooks` or `read`.
        """
        return self._transport.json("GET", "/v1/webhooks", query=query)

    def iterate(self, **query: Unpack[types.WebhooksListQuery]) -> Iterator[types.Webhook]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/webhooks", query)

    def create(
        self, *, idempotency_key: str | None = None, **body: Unpack[types.WebhookInput]
    ) -> types.WebhookWithSecret:
        """Create a webhook. Only this answer has its secret. Without `events` it is notified of all.

        The key needs the scope `webhooks`.
        """
        return self._transport.json(
            "POST", "/v1/webhooks", headers={"Idempotency-Key": new_key(idempotency_key)}, body=body
        )

    def get(self, webhook_id: str) -> types.Webhook:
        """Show a webhook, and if it is enabled.

        The key needs the scope `webhooks` or `read`.
        """
        return self._transport.json("GET", f"/v1/webhooks/{segment(webhook_id)}")

    def change(self, webhook_id: str, **body: Unpack[types.WebhookChangeInput]) -> types.Webhook:
        """Change the URL, the events or `enabled`. Deliveries that waited are sent when it is enabled again.

        The key needs the scope `webhooks`.
        """
        return self._transport.json("PATCH", f"/v1/webhooks/{segment(webhook_id)}", body=body)

    def delete(self, webhook_id: str) -> None:
        """Delete a webhook with its deliveries.

        The key needs the scope `webhooks`.
        """
        self._transport.json("DELETE", f"/v1/webhooks/{segment(webhook_id)}")

    def rotate(self, webhook_id: str) -> types.WebhookWithSecret:
        """Issue a new secret, which only this answer has. For a day the old one signs beside it.

        The key needs the scope `webhooks`.
        """
        return self._transport.json("POST", f"/v1/webhooks/{segment(webhook_id)}/rotate")

    def test(self, webhook_id: str) -> types.Delivery:
        """Send `webhook.test`; the delivery records the result.

        The key needs the scope `webhooks`.
        """
        return self._transport.json("POST", f"/v1/webhooks/{segment(webhook_id)}/test")

    def deliveries(self, webhook_id: str, **query: Unpack[types.WebhooksDeliveriesQuery]) -> types.DeliveryList:
        """List deliveries, the latest first, with every attempt.

        The key needs the scope `webhooks` or `read`.
        """
        return self._transport.json("GET", f"/v1/webhooks/{segment(webhook_id)}/deliveries", query=query)

    def deliveries_iterate(
        self, webhook_id: str, **query: Unpack[types.WebhooksDeliveriesQuery]
    ) -> Iterator[types.Delivery]:
        """Yield what `deliveries` lists, page by page."""
        return self._transport.pages(f"/v1/webhooks/{segment(webhook_id)}/deliveries", query)

    def replay(self, webhook_id: str, delivery_id: str) -> types.Delivery:
        """Send a delivery once more, under the same `webhook-id`.

        The key needs the scope `webhooks`.
        """
        return self._transport.json(
            "POST", f"/v1/webhooks/{segment(webhook_id)}/deliveries/{segment(delivery_id)}/replay"
        )


class Api:
    """All calls."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.adapters = Adapters(transport)
        self.balance = Balance(transport)
        self.batches = Batches(transport)
        self.budgets = Budgets(transport)
        self.costs = Costs(transport)
        self.errors = Errors(transport)
        self.experiments = Experiments(transport)
        self.exports = Exports(transport)
        self.files = Files(transport)
        self.images = Images(transport)
        self.index = Index(transport)
        self.jobs = Jobs(transport)
        self.models = Models(transport)
        self.openapi = Openapi(transport)
        self.quota = Quota(transport)
        self.rollouts = Rollouts(transport)
        self.statements = Statements(transport)
        self.usage = Usage(transport)
        self.webhooks = Webhooks(transport)
