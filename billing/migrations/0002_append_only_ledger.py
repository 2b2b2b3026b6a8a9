"""What makes the ledger a ledger, in the database: nothing changes or goes, entries balance, balances follow."""

from django.db import migrations

APPEND_ONLY = (
    "billing_pricebook",
    "billing_rate",
    "billing_usagerecord",
    "billing_transaction",
    "billing_entry",
    "billing_charge",
)

FORWARD = """
CREATE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: write a correcting row instead', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

-- An entry belongs to the tenant and the currency of its transaction, and moves its account's balance.
CREATE FUNCTION billing_apply_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE billing_account AS account SET balance_micros = balance_micros + NEW.amount_micros
      FROM billing_transaction AS txn
     WHERE account.id = NEW.account_id AND txn.id = NEW.transaction_id
       AND account.tenant_id = txn.tenant_id AND account.currency = txn.currency;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'entry % is of another tenant or currency than its transaction', NEW.id
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER billing_entry_applied AFTER INSERT ON billing_entry
    FOR EACH ROW EXECUTE FUNCTION billing_apply_entry();

-- A balance is moved by entries alone: at depth 1 the statement is somebody's own UPDATE.
CREATE FUNCTION billing_guard_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.balance_micros <> 0
       OR TG_OP = 'UPDATE' AND NEW.balance_micros <> OLD.balance_micros AND pg_trigger_depth() < 2 THEN
        RAISE EXCEPTION 'balances follow from entries' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER billing_account_guarded BEFORE INSERT OR UPDATE ON billing_account
    FOR EACH ROW EXECUTE FUNCTION billing_guard_balance();

-- Checked at commit, when all entries of the transaction are there.
CREATE FUNCTION billing_check_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE total numeric;
BEGIN
    SELECT sum(amount_micros) INTO total FROM billing_entry WHERE transaction_id = NEW.transaction_id;
    IF total <> 0 THEN
        RAISE EXCEPTION 'transaction % is out of balance by % micros', NEW.transaction_id, total
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER billing_entry_balanced AFTER INSERT ON billing_entry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_check_balanced();
""" + "".join(
    f"""
CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
"""
    for table in APPEND_ONLY
)

BACKWARD = (
    "".join(f"DROP TRIGGER {table}_append_only ON {table};" for table in APPEND_ONLY)
    + """
DROP TRIGGER billing_entry_balanced ON billing_entry;
DROP TRIGGER billing_account_guarded ON billing_account;
DROP TRIGGER billing_entry_applied ON billing_entry;
DROP FUNCTION billing_refuse_change, billing_apply_entry, billing_guard_balance, billing_check_balanced;
"""
)


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
