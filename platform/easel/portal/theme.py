"""Names, colours and the side bar, as `settings.UNFOLD` wants them."""

from typing import Any

from django.urls import reverse_lazy

# The side bar: groups of (title, icon, name of the page).
_NAVIGATION = {
    "": [("Overview", "monitoring", "index")],
    "Tenants": [
        ("Tenants", "apartment", "tenants_tenant_changelist"),
        ("API keys", "key", "tenants_apikey_changelist"),
        ("Adapters", "layers", "catalog_adapter_changelist"),
        ("Experiments", "science", "serving_experiment_changelist"),
        ("Webhooks", "webhook", "webhooks_webhookendpoint_changelist"),
        ("Block lists", "block", "tenants_blocklistentry_changelist"),
    ],
    "Serving": [
        ("Jobs", "image", "jobs_job_changelist"),
        ("Batches", "stacks", "batches_batch_changelist"),
        ("Models", "deployed_code", "catalog_model_changelist"),
        ("Aliases", "label", "serving_alias_changelist"),
        ("Versions", "history", "catalog_modelversion_changelist"),
        ("Canaries", "alt_route", "serving_rollout_changelist"),
        ("Pools", "memory", "catalog_pool_changelist"),
    ],
    "Money": [
        ("Costs", "payments", "costs"),
        ("Statements", "request_quote", "billing_statement_changelist"),
        ("Price books", "sell", "billing_pricebook_changelist"),
        ("Accounts", "account_balance", "billing_ledgeraccount_changelist"),
        ("Transactions", "receipt_long", "billing_transaction_changelist"),
    ],
    "Records": [("Audit log", "policy", "core_auditevent_changelist")],
    "You": [("Second factor", "passkey", "second_factor")],
}


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
    "STYLES": ["/admin/static/portal/colors.css", "/admin/static/portal/portal.css"],
    "SCRIPTS": ["/admin/static/portal/portal.js"],
    "SIDEBAR": {
        "navigation": [
            {"title": group, "items": [_item(*item) for item in items]} for group, items in _NAVIGATION.items()
        ]
    },
}
