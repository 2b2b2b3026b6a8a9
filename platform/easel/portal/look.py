"""Names, colours and the side bar, as `settings.UNFOLD` wants them."""

from typing import Any

from django.urls import reverse_lazy


def _item(title: str, icon: str, page: str) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": reverse_lazy(f"admin:{page}")}


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Easel",
    "SITE_HEADER": "Easel",
    "SITE_SUBHEADER": "Operations, times in UTC",
    "SITE_SYMBOL": "palette",
    "SITE_URL": None,
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "/admin/static/portal/icon.svg"}],
    "STYLES": ["/admin/static/portal/portal.css"],
    "SIDEBAR": {
        "navigation": [
            {"title": "", "items": [_item("Overview", "monitoring", "index")]},
            {
                "title": "Tenants",
                "items": [
                    _item("Tenants", "apartment", "tenants_tenant_changelist"),
                    _item("API keys", "key", "tenants_apikey_changelist"),
                    _item("Adapters", "layers", "catalog_adapter_changelist"),
                    _item("Experiments", "science", "serving_experiment_changelist"),
                    _item("Webhooks", "webhook", "webhooks_webhookendpoint_changelist"),
                    _item("Block lists", "block", "tenants_blocklistentry_changelist"),
                ],
            },
            {
                "title": "Serving",
                "items": [
                    _item("Jobs", "image", "jobs_job_changelist"),
                    _item("Models", "deployed_code", "catalog_model_changelist"),
                    _item("Versions", "history", "catalog_modelversion_changelist"),
                    _item("Canaries", "alt_route", "serving_rollout_changelist"),
                    _item("Pools", "memory", "catalog_pool_changelist"),
                ],
            },
            {
                "title": "Money",
                "items": [
                    _item("Costs", "payments", "costs"),
                    _item("Statements", "request_quote", "billing_statement_changelist"),
                    _item("Price books", "sell", "billing_pricebook_changelist"),
                    _item("Accounts", "account_balance", "billing_ledgeraccount_changelist"),
                    _item("Transactions", "receipt_long", "billing_transaction_changelist"),
                ],
            },
            {"title": "Records", "items": [_item("Audit log", "policy", "core_auditevent_changelist")]},
        ],
    },
}
