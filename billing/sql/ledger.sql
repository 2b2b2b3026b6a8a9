-- The ledger: entries are append-only, a transaction sums to zero, and only entries change balances.

CREATE OR REPLACE FUNCTION billing_guard_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.balance_micros <> 0
       OR TG_OP = 'UPDATE' AND NEW.balance_micros <> OLD.balance_micros AND pg_trigger_depth() < 2 THEN
        RAISE EXCEPTION 'balances follow from entries' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER billing_ledgeraccount_guarded BEFORE INSERT OR UPDATE ON billing_ledgeraccount
    FOR EACH ROW EXECUTE FUNCTION billing_guard_balance();

-- These two run as the tables' owner: with the policies of row-level security they took twice the time, in every
-- admission. An entry that they see has passed its policy, and they touch its account and its transaction only.
CREATE OR REPLACE FUNCTION billing_apply_entry() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE billing_ledgeraccount AS account SET balance_micros = balance_micros + NEW.amount_micros
      FROM billing_transaction AS txn
     WHERE account.id = NEW.account_id AND txn.id = NEW.transaction_id
       AND account.tenant_id = txn.tenant_id AND account.currency = txn.currency;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'entry % belongs to another tenant or currency than its transaction', NEW.id
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER billing_entry_applied AFTER INSERT ON billing_entry
    FOR EACH ROW EXECUTE FUNCTION billing_apply_entry();

CREATE OR REPLACE FUNCTION billing_check_balanced() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE total numeric;
BEGIN
    SELECT sum(amount_micros) INTO total FROM billing_entry WHERE transaction_id = NEW.transaction_id;
    IF total <> 0 THEN
        RAISE EXCEPTION 'transaction % is out of balance by % micros', NEW.transaction_id, total
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS billing_entry_balanced ON billing_entry;
CREATE CONSTRAINT TRIGGER billing_entry_balanced AFTER INSERT ON billing_entry DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION billing_check_balanced();

-- A trigger runs them without this right. With it, whoever may make a table could make entries of its own for them.
REVOKE EXECUTE ON FUNCTION billing_apply_entry(), billing_check_balanced() FROM PUBLIC;

-- The remainder of a credit grant only shrinks, and nothing else of it changes.
CREATE OR REPLACE FUNCTION billing_guard_grant() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE OR REPLACE TRIGGER billing_creditgrant_guarded BEFORE UPDATE ON billing_creditgrant
    FOR EACH ROW EXECUTE FUNCTION billing_guard_grant();

CALL core_append_only('billing_transaction', 'billing_entry', 'billing_adjustment', 'billing_creditdraw');
CALL core_never_deleted('billing_creditgrant');
