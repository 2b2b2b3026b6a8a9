"""What the database holds of contracts, grants and statements; and what is left of the credit given so far."""

from importlib import import_module

from django.db import migrations

counted = import_module("tenants.migrations.0007_configuration").counted

APPEND_ONLY = ("billing_ratetier", "billing_adjustment", "billing_creditdraw")

FORWARD = """
INSERT INTO billing_statementsequence (last) VALUES (0);

-- A contract's terms are what was rated by: its end alone may come, or come sooner.
CREATE FUNCTION billing_guard_contract() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (
        (OLD.tenant_id, OLD.price_book_id, OLD.discount, OLD.minimum_micros, OLD.starts_at)
            IS DISTINCT FROM (NEW.tenant_id, NEW.price_book_id, NEW.discount, NEW.minimum_micros, NEW.starts_at)
        OR NEW.ends_at IS NULL AND OLD.ends_at IS NOT NULL OR NEW.ends_at > OLD.ends_at
    ) THEN
        RAISE EXCEPTION 'a contract''s terms don''t change: end it and make another' USING ERRCODE = 'restrict_violation';
    END IF;
    PERFORM 1 FROM tenants_tenant WHERE id = NEW.tenant_id FOR NO KEY UPDATE;  -- contracts of a tenant take turns
    IF EXISTS (
        SELECT FROM billing_contract AS other WHERE other.tenant_id = NEW.tenant_id AND other.id <> NEW.id
           AND tstzrange(other.starts_at, other.ends_at) && tstzrange(NEW.starts_at, NEW.ends_at)
    ) THEN
        RAISE EXCEPTION 'contracts of a tenant don''t overlap' USING ERRCODE = 'exclusion_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER billing_contract_guarded BEFORE INSERT OR UPDATE ON billing_contract
    FOR EACH ROW EXECUTE FUNCTION billing_guard_contract();
CREATE TRIGGER billing_contract_kept BEFORE DELETE OR TRUNCATE ON billing_contract
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();

-- Of a grant, only what is left changes, and it only grows less.
CREATE FUNCTION billing_guard_grant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.remaining_micros > OLD.remaining_micros OR
        (OLD.tenant_id, OLD.transaction_id, OLD.category, OLD.priority, OLD.currency, OLD.amount_micros, OLD.expires_at,
         OLD.created_at) IS DISTINCT FROM
        (NEW.tenant_id, NEW.transaction_id, NEW.category, NEW.priority, NEW.currency, NEW.amount_micros, NEW.expires_at,
         NEW.created_at)
    THEN
        RAISE EXCEPTION 'a credit grant is spent, not changed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER billing_creditgrant_guarded BEFORE UPDATE ON billing_creditgrant
    FOR EACH ROW EXECUTE FUNCTION billing_guard_grant();
CREATE TRIGGER billing_creditgrant_kept BEFORE DELETE OR TRUNCATE ON billing_creditgrant
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();

-- A final statement never changes, and no two of a tenant cover the same instant.
CREATE FUNCTION billing_guard_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.state = 'final' THEN
        RAISE EXCEPTION 'statement % is final: issue a credit note', OLD.number USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    IF NEW.kind = 'statement' AND EXISTS (
        SELECT FROM billing_statement AS other
         WHERE other.tenant_id = NEW.tenant_id AND other.id <> NEW.id AND other.kind = 'statement'
           AND tstzrange(other.period_start, other.period_end) && tstzrange(NEW.period_start, NEW.period_end)
    ) THEN
        RAISE EXCEPTION 'statements of a tenant don''t overlap' USING ERRCODE = 'exclusion_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER billing_statement_guarded BEFORE INSERT OR UPDATE OR DELETE ON billing_statement
    FOR EACH ROW EXECUTE FUNCTION billing_guard_statement();
CREATE FUNCTION billing_guard_statement_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM billing_statement WHERE state = 'final'
           AND id = CASE TG_OP WHEN 'DELETE' THEN OLD.statement_id ELSE NEW.statement_id END
    ) THEN
        RAISE EXCEPTION 'the lines of a final statement don''t change' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER billing_statementline_guarded BEFORE INSERT OR UPDATE OR DELETE ON billing_statementline
    FOR EACH ROW EXECUTE FUNCTION billing_guard_statement_line();

-- Credit given before grants were told apart: what was spent since was of the oldest.
WITH given AS (
    SELECT txn.id, txn.tenant_id, txn.currency, txn.created_at, entry.amount_micros,
           sum(entry.amount_micros) OVER (PARTITION BY txn.tenant_id, txn.currency ORDER BY txn.created_at DESC, txn.id)
             - entry.amount_micros AS newer
      FROM billing_transaction txn
      JOIN billing_entry entry ON entry.transaction_id = txn.id
      JOIN billing_account account ON account.id = entry.account_id AND account.kind = 'credit'
     WHERE txn.kind = 'grant'
), left_over AS (
    SELECT tenant_id, currency, sum(balance_micros) AS micros FROM billing_account
     WHERE kind IN ('credit', 'held') GROUP BY tenant_id, currency
)
INSERT INTO billing_creditgrant
       (id, tenant_id, transaction_id, category, priority, currency, amount_micros, remaining_micros, created_at)
SELECT gen_random_uuid(), tenant_id, id, 'paid', 50, currency, amount_micros,
       greatest(0, least(amount_micros, micros - newer)), created_at
  FROM given JOIN left_over USING (tenant_id, currency);
""" + "".join(
    f"""
CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
"""
    for table in APPEND_ONLY
)

BACKWARD = """
DROP FUNCTION billing_guard_contract, billing_guard_grant, billing_guard_statement, billing_guard_statement_line CASCADE;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0007_finance"), ("tenants", "0007_configuration")]
    operations = [
        migrations.RunSQL(FORWARD, BACKWARD),
        counted("billing_ratetier", "billing_contract", "billing_budget", "billing_billingprofile"),
    ]
