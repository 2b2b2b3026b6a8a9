"""The schema `reporting`: views for Grafana and other tools, and the role that may read them and nothing else.

The views are no history but follow from the code, as the SQL files here say today. So they are no migration: PostgreSQL
changes no column that a view reads, and a migration of long ago can't make the views of today. They go before
migrations run, and come back when the last of them has.
"""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections, transaction
from django.db.migrations.executor import MigrationExecutor
from psycopg import sql

FILES = ("schema", "costs", "views", "focus", "allocation", "access")
VIEWS = (
    "charges",
    "costs",
    "unpriced",
    "usage_events",
    "jobs",
    "job_days",
    "storage",
    "pool_days",
    "balances",
    "focus",
    "cost_allocation",
)
# What somebody built on a view would go with it unasked: instead PostgreSQL refuses, and names it.
DROP = "DROP VIEW IF EXISTS " + ", ".join(f"reporting.{view}" for view in VIEWS)


def views_drop(*, using: str, plan: list[Any], **_: Any) -> None:
    """Before a migration (`pre_migrate`): the views go, so that the columns under them can change."""
    if plan:
        with connections[using].cursor() as cursor:
            cursor.execute(DROP)


def views_make(*, using: str, **_: Any) -> None:
    """After a migration (`post_migrate`): the views anew; not while tables are on the way to an older version."""
    executor = MigrationExecutor(connections[using])
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        # Two that migrate at once take turns.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('easel reporting'))")
        cursor.execute(DROP)
        provider = sql.Literal(settings.EASEL.provider_name).as_string(cursor.connection)
        for name in FILES:
            text = Path(__file__).with_name(f"{name}.sql").read_text()
            cursor.execute(text.replace("{provider}", provider))
