"""Ends sessions of logins for reports that a report has no need of: PostgreSQL lets every role do more than it should.

A login may lift its own time limits, keep a transaction open, take advisory locks until none are left, notify until the
queue is full, and write large objects; in the databases that every server has it may do even more. None of that can be
forbidden by everyone who owns a database, so that the scheduler looks each second. A session that is only too slow is
ended. A login that writes, locks or fills the queue is in the wrong hands: it loses its right to log in, until `easel
reporting-login` gives it a new password.
"""

from datetime import datetime

import structlog
from django.db import ProgrammingError, connection, transaction
from psycopg import errors, sql

from core.audit import audit_record

log = structlog.get_logger()
QUERY_SECONDS_MAX, IDLE_SECONDS_MAX = 65, 15  # some seconds more than the limits that a login begins with
QUEUE_USE_MAX = 0.01  # of the 8 GB of notifications that PostgreSQL stores for slow listeners

# Sessions of logins that `easel reporting-login` has made, in all databases, as far as we may see and end them.
_SESSIONS = """
WITH login AS (
    SELECT role.oid, role.rolname FROM pg_roles AS role
      JOIN pg_auth_members ON member = role.oid AND roleid = to_regrole('easel_reporting')
     WHERE shobj_description(role.oid, 'pg_authid') = 'a login of easel reporting-login'
       AND NOT role.rolsuper AND pg_has_role(role.oid, 'USAGE')
), session AS (
    SELECT activity.pid, login.rolname, CASE
            WHEN backend_xid IS NOT NULL THEN 'writes'
            WHEN activity.pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory') THEN 'locks'
            WHEN pg_notification_queue_usage() > %(queue_use_max)s THEN 'notifies'
            WHEN activity.datname <> current_database() AND activity.datname IN ('postgres', 'template1')
                THEN 'is in another database'
            WHEN %(have_replica)s THEN 'has a replica'
            WHEN state LIKE 'idle in transaction%%' AND clock_timestamp() - state_change > %(idle_max)s THEN 'idles'
            WHEN state <> 'idle' AND clock_timestamp() - xact_start > %(query_max)s THEN 'is slow'
        END AS fault
      FROM pg_stat_activity AS activity JOIN login ON activity.usesysid = login.oid
     WHERE activity.pid <> pg_backend_pid()
)
SELECT rolname, fault, NULL::oid, pg_terminate_backend(pid) FROM session WHERE fault IS NOT NULL
UNION ALL
SELECT rolname, 'writes', object.oid, NULL FROM pg_largeobject_metadata AS object JOIN login ON lomowner = login.oid
"""
_OF_ATTACKERS = {"writes", "locks", "notifies"}


def sessions_end(*, have_replica: bool, now: datetime) -> int:
    """End what logins for reports may not do, and shut the logins that do it on purpose; return the number of faults.

    Where they have a replica, each of their sessions on the platform's database is a fault.
    """
    limits = {"idle_max": f"{IDLE_SECONDS_MAX} s", "query_max": f"{QUERY_SECONDS_MAX} s"}
    with connection.cursor() as cursor:
        cursor.execute(_SESSIONS, {**limits, "queue_use_max": QUEUE_USE_MAX, "have_replica": have_replica})
        found = cursor.fetchall()
        objects = [oid for _, _, oid, _ in found if oid is not None]
        if objects:
            cursor.execute("SELECT lo_unlink(oid) FROM unnest(%s::oid[]) AS oid", [objects])
    for name, fault in sorted({(name, fault) for name, fault, _, _ in found}):
        log.warning("reporting_session_ended", login=name, fault=fault)
        if fault in _OF_ATTACKERS:
            _shut(name, fault, now)
    return len(found)


def _shut(name: str, fault: str, now: datetime) -> None:
    role = sql.Identifier(name)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(role))
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [name])
            audit_record(actor="platform", action="reporting.shut", subject=name, details={"fault": fault}, now=now)
    except ProgrammingError as error:
        if not isinstance(error.__cause__, errors.InsufficientPrivilege):
            raise
        log.error("reporting_login_not_shut", login=name, reason="DATABASE_URL's user lacks CREATEROLE")
    else:
        log.error("reporting_login_shut", login=name, fault=fault)
