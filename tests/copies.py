"""Tenants, pools and models like those that the platform's own verbs have made, by one round trip instead of thirty.

Most tests begin with a new tenant and a new model. The verbs take 50 ms of CPU for both, a third of what such a test
takes. `tests/test_copies.py` holds copies to what the verbs make.
"""

import uuid
from typing import TypeVar

from django.db import connection
from django.db.models import Model

from easel.catalog.models import ModelVersion, Pool
from tenants.models import Project, Tenant

_Row = TypeVar("_Row", bound=Model)

# Every column is copied but those named here; only entries change balances, so accounts begin with none.
_COPY_TENANT = """
INSERT INTO tenants_tenant SELECT made.* FROM tenants_tenant AS one, jsonb_populate_record(one, jsonb_build_object(
       'id', %(tenant)s, 'slug', %(slug)s, 'name', %(slug)s, 'caller_salt', %(salt)s)) AS made
 WHERE one.id = %(of)s;
INSERT INTO tenants_quota SELECT made.* FROM tenants_quota AS one, jsonb_populate_record(one, jsonb_build_object(
       'id', nextval(pg_get_serial_sequence('tenants_quota', 'id')), 'tenant_id', %(tenant)s)) AS made
 WHERE one.tenant_id = %(of)s;
INSERT INTO tenants_project SELECT made.* FROM tenants_project AS one, jsonb_populate_record(one, jsonb_build_object(
       'id', %(project)s, 'tenant_id', %(tenant)s)) AS made
 WHERE one.tenant_id = %(of)s;
INSERT INTO billing_ledgeraccount SELECT made.* FROM
       (SELECT account FROM billing_ledgeraccount AS account WHERE tenant_id = %(of)s ORDER BY id) AS one,
       jsonb_populate_record(one.account, jsonb_build_object(
       'id', nextval(pg_get_serial_sequence('billing_ledgeraccount', 'id')), 'tenant_id', %(tenant)s,
       'balance_micros', 0)) AS made;
INSERT INTO billing_transaction SELECT made.* FROM billing_transaction AS one,
       jsonb_populate_record(one, jsonb_build_object(
       'id', %(transaction)s, 'tenant_id', %(tenant)s, 'reference', %(reference)s)) AS made
 WHERE one.tenant_id = %(of)s;
INSERT INTO billing_entry SELECT made.* FROM
       (SELECT entry, new.id AS account_id FROM billing_entry AS entry
          JOIN billing_ledgeraccount AS old ON old.id = entry.account_id AND old.tenant_id = %(of)s
          JOIN billing_ledgeraccount AS new
               ON new.tenant_id = %(tenant)s AND (new.kind, new.meter) = (old.kind, old.meter)
         ORDER BY entry.id) AS one,
       jsonb_populate_record(one.entry, jsonb_build_object(
       'id', nextval(pg_get_serial_sequence('billing_entry', 'id')),
       'transaction_id', %(transaction)s, 'account_id', one.account_id)) AS made;
INSERT INTO billing_creditgrant SELECT made.* FROM billing_creditgrant AS one,
       jsonb_populate_record(one, jsonb_build_object(
       'id', %(grant)s, 'tenant_id', %(tenant)s, 'transaction_id', %(transaction)s)) AS made
 WHERE one.tenant_id = %(of)s;
"""
_COPY_POOL = """
WITH new AS (
    INSERT INTO catalog_pool SELECT made.* FROM catalog_pool AS one, jsonb_populate_record(one, jsonb_build_object(
           'id', nextval(pg_get_serial_sequence('catalog_pool', 'id')),
           'slug', %(slug)s, 'namespace', %(namespace)s)) AS made
     WHERE one.id = %(of)s RETURNING *
), workers AS (
    INSERT INTO catalog_worker SELECT made.* FROM catalog_worker AS one, new,
           jsonb_populate_record(one, jsonb_build_object(
           'id', nextval(pg_get_serial_sequence('catalog_worker', 'id')), 'pool_id', new.id)) AS made
     WHERE one.pool_id = %(of)s
), days AS (
    INSERT INTO catalog_workerday SELECT made.* FROM catalog_workerday AS one, new,
           jsonb_populate_record(one, jsonb_build_object(
           'id', nextval(pg_get_serial_sequence('catalog_workerday', 'id')), 'pool_id', new.id)) AS made
     WHERE one.pool_id = %(of)s
)
SELECT id FROM new
"""
_COPY_VERSION = """
WITH model AS (
    INSERT INTO catalog_model SELECT made.* FROM catalog_model AS one, jsonb_populate_record(one, jsonb_build_object(
           'id', nextval(pg_get_serial_sequence('catalog_model', 'id')), 'name', %(name)s)) AS made
     WHERE one.id = %(of_model)s RETURNING *
), version AS (
    INSERT INTO catalog_modelversion SELECT made.* FROM catalog_modelversion AS one, model,
           jsonb_populate_record(one, jsonb_build_object(
           'id', nextval(pg_get_serial_sequence('catalog_modelversion', 'id')), 'model_id', model.id,
           'pool_id', %(pool)s, 'checkpoint', %(checkpoint)s)) AS made
     WHERE one.id = %(of)s RETURNING *
), routes AS (
    INSERT INTO serving_route SELECT made.* FROM serving_route AS one, version,
           jsonb_populate_record(one, jsonb_build_object(
           'id', nextval(pg_get_serial_sequence('serving_route', 'id')), 'model_id', version.model_id,
           'version_id', version.id)) AS made
     WHERE one.model_id = %(of_model)s
)
SELECT model_id, id FROM version
"""


def tenant_copy(original: Tenant, project: Project, *, slug: str) -> tuple[Tenant, Project]:
    """Copy a tenant that has one project and at most one transaction, the grant of its credit."""
    ids = {name: uuid.uuid4() for name in ("tenant", "salt", "project", "transaction", "reference", "grant")}
    with connection.cursor() as cursor:
        cursor.execute(_COPY_TENANT, {**ids, "of": original.pk, "slug": slug})
    tenant = _row_like(original, id=ids["tenant"], slug=slug, name=slug, caller_salt=ids["salt"])
    return tenant, _row_like(project, id=ids["project"], tenant=tenant)


def pool_copy(original: Pool, *, slug: str, namespace: str) -> Pool:
    """Copy a pool with its workers and what they have reported."""
    with connection.cursor() as cursor:
        cursor.execute(_COPY_POOL, {"of": original.pk, "slug": slug, "namespace": namespace})
        (pk,) = cursor.fetchone()
    return _row_like(original, id=pk, slug=slug, namespace=namespace)


def version_copy(original: ModelVersion, *, name: str, pool: Pool, checkpoint: str) -> ModelVersion:
    """Copy a model that has one version, to which all requests go."""
    terms = {"of": original.pk, "of_model": original.model_id, "name": name, "pool": pool.pk, "checkpoint": checkpoint}
    with connection.cursor() as cursor:
        cursor.execute(_COPY_VERSION, terms)
        model_id, pk = cursor.fetchone()
    model = _row_like(original.model, id=model_id, name=name)
    return _row_like(original, id=pk, model=model, pool_id=pool.pk, checkpoint=checkpoint)


def _row_like(original: _Row, **changes: object) -> _Row:
    made = type(original)(
        **{field.attname: getattr(original, field.attname) for field in original._meta.concrete_fields}
    )
    for name, value in changes.items():
        setattr(made, name, value)
    made._state.adding, made._state.db = False, original._state.db
    return made
