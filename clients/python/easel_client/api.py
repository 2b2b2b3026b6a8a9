"""Calls of the API, a class per resource. `scripts/client` writes this module."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Iterator
from typing import Unpack

from easel_client import types
from easel_client.transport import Download, Event, Transport, segment


class Resource:
    """Calls of one kind."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport


class Adapters(Resource):
    def list(self, **query: Unpack[types.AdaptersListQuery]) -> types.AdaptersListAnswer:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("GET", "/v1/adapters", query=query)

    def iterate(self, **query: Unpack[types.AdaptersListQuery]) -> Iterator[types.AdaptersListAnswerDataItem]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/adapters", query)

    def upload(self, **form: Unpack[types.AdapterUploadInput]) -> types.AdaptersListAnswerDataItem:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("POST", "/v1/adapters", form=form)

    def get(self, name: str) -> types.AdaptersListAnswerDataItem:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("GET", f"/v1/adapters/{segment(name)}")

    def retire(self, name: str) -> types.AdaptersListAnswerDataItem:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("DELETE", f"/v1/adapters/{segment(name)}")


class Balance(Resource):
    def get(self) -> types.BalanceGetAnswer:
        """Show what you can spend, what is held for unfinished jobs, what you owe, and your credit grants."""
        return self._transport.json("GET", "/v1/balance")


class Budgets(Resource):
    def list(self, **query: Unpack[types.BudgetsListQuery]) -> types.BudgetsListAnswer:
        """List your budgets and what this month has spent of them."""
        return self._transport.json("GET", "/v1/budgets", query=query)

    def iterate(self, **query: Unpack[types.BudgetsListQuery]) -> Iterator[types.BudgetsListAnswerDataItem]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/budgets", query)

    def set(self, **body: Unpack[types.BudgetInput]) -> types.BudgetsListAnswerDataItem:
        """Set the budget of your account, of a project or of a key. It applies at once."""
        return self._transport.json("PUT", "/v1/budgets", body=body)

    def remove(self, budget_id: str) -> types.BudgetsListAnswerDataItem:
        """Remove a budget, with its counters."""
        return self._transport.json("DELETE", f"/v1/budgets/{segment(budget_id)}")


class Costs(Resource):
    def get(self, **query: Unpack[types.CostsGetQuery]) -> types.CostsGetAnswer:
        """Sum what was charged by day, project, label, model and so on, beside the same at list prices."""
        return self._transport.json("GET", "/v1/costs", query=query)

    def outlook(self) -> types.CostsOutlookAnswer:
        """Forecast this month from the weekdays of the last eight weeks, and list its days that stand out."""
        return self._transport.json("GET", "/v1/costs/outlook")


class Errors(Resource):
    def list(self) -> types.ErrorsListAnswer:
        """List the codes of all errors, each with its status, if a retry can help, and what to do. No key is needed."""
        return self._transport.json("GET", "/v1/errors")


class Experiments(Resource):
    def list(self, **query: Unpack[types.ExperimentsListQuery]) -> types.ExperimentsListAnswer:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("GET", "/v1/experiments", query=query)

    def iterate(self, **query: Unpack[types.ExperimentsListQuery]) -> Iterator[types.ExperimentsListAnswerDataItem]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/experiments", query)

    def start(self, **body: Unpack[types.ExperimentInput]) -> types.ExperimentsListAnswerDataItem:
        """Split your requests to a model between the arms, from now on."""
        return self._transport.json("POST", "/v1/experiments", body=body)

    def get(self, name: str) -> types.ExperimentsGetAnswer:
        """Report what each arm did, and which differences are more than chance."""
        return self._transport.json("GET", f"/v1/experiments/{segment(name)}")

    def stop(self, name: str) -> types.ExperimentsListAnswerDataItem:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("POST", f"/v1/experiments/{segment(name)}/stop")


class Exports(Resource):
    def costs(self, **query: Unpack[types.ExportsCostsQuery]) -> Download:
        """Export what was charged by day, project, labels, model and so on, as CSV for a spreadsheet."""
        return self._transport.download("GET", "/v1/exports/costs", query=query)

    def events(self, **query: Unpack[types.ExportsEventsQuery]) -> Download:
        """Export what was measured, one CloudEvent per line; `source` and `id` of an event never change."""
        return self._transport.download("GET", "/v1/exports/events", query=query)

    def focus(self, **query: Unpack[types.ExportsFocusQuery]) -> Download:
        """Export what was charged in the columns of FOCUS 1.2, by days of use or for one invoice."""
        return self._transport.download("GET", "/v1/exports/focus", query=query)


class Images(Resource):
    def generations(self, **body: Unpack[types.ImagesInput]) -> types.ImagesGenerationsAnswer:
        """OpenAI's Images API: generates the images and answers with them."""
        return self._transport.json("POST", "/v1/images/generations", body=body)

    def quotes(self, **body: Unpack[types.QuoteInput]) -> types.ImagesQuotesAnswer:
        """Price the same body as a generation, line by line; nothing is made, held or written.

        What would refuse its admission now, a full queue or a spent budget, is its `refusal`, beside the price.
        """
        return self._transport.json("POST", "/v1/images/quotes", body=body)


class Jobs(Resource):
    def list(self, **query: Unpack[types.JobsListQuery]) -> types.JobsListAnswer:
        """Generations without a waiting client."""
        return self._transport.json("GET", "/v1/jobs", query=query)

    def iterate(self, **query: Unpack[types.JobsListQuery]) -> Iterator[types.JobsListAnswerDataItem]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/jobs", query)

    def create(self, **body: Unpack[types.JobInput]) -> types.JobsListAnswerDataItem:
        """Generations without a waiting client."""
        return self._transport.json("POST", "/v1/jobs", body=body)

    def get(self, job_id: str) -> types.JobsListAnswerDataItem:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("GET", f"/v1/jobs/{segment(job_id)}")

    def delete(self, job_id: str) -> types.JobsListAnswerDataItem:
        """Delete the images, prompt, metadata and user of a finished job. Its usage and its cost stay."""
        return self._transport.json("DELETE", f"/v1/jobs/{segment(job_id)}")

    def cancel(self, job_id: str) -> types.JobsListAnswerDataItem:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("POST", f"/v1/jobs/{segment(job_id)}/cancel")

    def events(self, job_id: str) -> Iterator[Event]:
        """Send the job at each change until it has ended; `Last-Event-ID` leaves out what the client has seen."""
        return self._transport.events("GET", f"/v1/jobs/{segment(job_id)}/events")

    def feedback(self, job_id: str, **body: Unpack[types.FeedbackInput]) -> types.JobsFeedbackAnswer:
        """Record your end user's opinion of a job's images, once per job."""
        return self._transport.json("POST", f"/v1/jobs/{segment(job_id)}/feedback", body=body)

    def images_delete(self, job_id: str) -> types.JobsListAnswerDataItem:
        """Delete the images, and end the charge for storing them."""
        return self._transport.json("DELETE", f"/v1/jobs/{segment(job_id)}/images")


class Models(Resource):
    def list(self) -> types.ModelsListAnswer:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("GET", "/v1/models")

    def get(self, name: str) -> types.ModelsListAnswerDataItem:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("GET", f"/v1/models/{segment(name)}")


class Quota(Resource):
    def get(self) -> types.QuotaGetAnswer:
        """List each limit of your account and of this key, and how much of it is used."""
        return self._transport.json("GET", "/v1/quota")


class Rollouts(Resource):
    def list(self, **query: Unpack[types.RolloutsListQuery]) -> types.RolloutsListAnswer:
        """List canaries, the latest first: another version may be serving a share of your requests."""
        return self._transport.json("GET", "/v1/rollouts", query=query)

    def iterate(self, **query: Unpack[types.RolloutsListQuery]) -> Iterator[types.RolloutsListAnswerDataItem]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/rollouts", query)


class Statements(Resource):
    def list(self, **query: Unpack[types.StatementsListQuery]) -> types.StatementsListAnswer:
        """List statements and credit notes, the latest first."""
        return self._transport.json("GET", "/v1/statements", query=query)

    def iterate(self, **query: Unpack[types.StatementsListQuery]) -> Iterator[types.StatementsListAnswerDataItem]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/statements", query)

    def get(self, statement_id: str) -> types.StatementsGetAnswer:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("GET", f"/v1/statements/{segment(statement_id)}")

    def document(self, statement_id: str, form: str, **query: Unpack[types.StatementsDocumentQuery]) -> Download:
        """Download the statement as `html` (a page that prints well), `pdf` or `csv`."""
        return self._transport.download("GET", f"/v1/statements/{segment(statement_id)}/{segment(form)}", query=query)

    def line_charges(
        self, statement_id: str, position: int, **query: Unpack[types.StatementsLineChargesQuery]
    ) -> types.StatementsLineChargesAnswer:
        """List the charges of a line, each with its price, its job and the attempts at that."""
        return self._transport.json(
            "GET", f"/v1/statements/{segment(statement_id)}/lines/{segment(position)}/charges", query=query
        )

    def line_charges_iterate(
        self, statement_id: str, position: int, **query: Unpack[types.StatementsLineChargesQuery]
    ) -> Iterator[types.StatementsLineChargesAnswerDataItem]:
        """Yield what `line_charges` lists, page by page."""
        return self._transport.pages(f"/v1/statements/{segment(statement_id)}/lines/{segment(position)}/charges", query)

    def current(self) -> types.StatementsGetAnswer:
        """Draft this month's statement as if the month ended now."""
        return self._transport.json("GET", "/v1/statements/current")


class Usage(Resource):
    def get(self, **query: Unpack[types.UsageGetQuery]) -> types.UsageGetAnswer:
        """Deprecated. Use `/v1/costs` instead. This alias also has quantities that were not charged, under its own
        field names.
        """
        return self._transport.json("GET", "/v1/usage", query=query)


class Webhooks(Resource):
    def list(self, **query: Unpack[types.WebhooksListQuery]) -> types.WebhooksListAnswer:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("GET", "/v1/webhooks", query=query)

    def iterate(self, **query: Unpack[types.WebhooksListQuery]) -> Iterator[types.WebhooksListAnswerDataItem]:
        """Yield what `list` lists, page by page."""
        return self._transport.pages("/v1/webhooks", query)

    def create(self, **body: Unpack[types.WebhookInput]) -> types.WebhooksCreateAnswer:
        """Create a webhook. Only this answer has its secret. Without `events` it is notified of all."""
        return self._transport.json("POST", "/v1/webhooks", body=body)

    def get(self, webhook_id: str) -> types.WebhooksListAnswerDataItem:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        return self._transport.json("GET", f"/v1/webhooks/{segment(webhook_id)}")

    def change(
        self, webhook_id: str, **body: Unpack[types.PatchedWebhookChangeInput]
    ) -> types.WebhooksListAnswerDataItem:
        """Change the URL, the events or `enabled`. Deliveries that waited are sent when it is enabled again."""
        return self._transport.json("PATCH", f"/v1/webhooks/{segment(webhook_id)}", body=body)

    def delete(self, webhook_id: str) -> None:
        """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""
        self._transport.json("DELETE", f"/v1/webhooks/{segment(webhook_id)}")

    def deliveries(
        self, webhook_id: str, **query: Unpack[types.WebhooksDeliveriesQuery]
    ) -> types.WebhooksDeliveriesAnswer:
        """List deliveries, the latest first, with every attempt."""
        return self._transport.json("GET", f"/v1/webhooks/{segment(webhook_id)}/deliveries", query=query)

    def deliveries_iterate(
        self, webhook_id: str, **query: Unpack[types.WebhooksDeliveriesQuery]
    ) -> Iterator[types.WebhooksDeliveriesAnswerDataItem]:
        """Yield what `deliveries` lists, page by page."""
        return self._transport.pages(f"/v1/webhooks/{segment(webhook_id)}/deliveries", query)

    def replay(self, webhook_id: str, delivery_id: str) -> types.WebhooksDeliveriesAnswerDataItem:
        """Send a delivery once more, under the same `webhook-id`."""
        return self._transport.json(
            "POST", f"/v1/webhooks/{segment(webhook_id)}/deliveries/{segment(delivery_id)}/replay"
        )

    def rotate(self, webhook_id: str) -> types.WebhooksCreateAnswer:
        """Issue a new secret, which only this answer has. For a day the old one signs beside it."""
        return self._transport.json("POST", f"/v1/webhooks/{segment(webhook_id)}/rotate")

    def test(self, webhook_id: str) -> types.WebhooksDeliveriesAnswerDataItem:
        """Send `webhook.test`; the delivery records the result."""
        return self._transport.json("POST", f"/v1/webhooks/{segment(webhook_id)}/test")


class Api:
    """All calls."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.adapters = Adapters(transport)
        self.balance = Balance(transport)
        self.budgets = Budgets(transport)
        self.costs = Costs(transport)
        self.errors = Errors(transport)
        self.experiments = Experiments(transport)
        self.exports = Exports(transport)
        self.images = Images(transport)
        self.jobs = Jobs(transport)
        self.models = Models(transport)
        self.quota = Quota(transport)
        self.rollouts = Rollouts(transport)
        self.statements = Statements(transport)
        self.usage = Usage(transport)
        self.webhooks = Webhooks(transport)
