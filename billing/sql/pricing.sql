-- Prices: a published book never changes, and contracts of one tenant never overlap.

CREATE OR REPLACE FUNCTION billing_guard_contract() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (
        (OLD.tenant_id, OLD.price_book_id, OLD.discount, OLD.minimum_micros, OLD.starts_at)
            IS DISTINCT FROM (NEW.tenant_id, NEW.price_book_id, NEW.discount, NEW.minimum_micros, NEW.starts_at)
        OR NEW.ends_at IS NULL AND OLD.ends_at IS NOT NULL OR NEW.ends_at > OLD.ends_at
    ) THEN
        RAISE EXCEPTION 'a contract''s terms don''t change: end it and make another' USING ERRCODE = 'restrict_violation';
    END IF;
    PERFORM 1 FROM tenants_tenant WHERE id = NEW.tenant_id FOR NO KEY UPDATE;  -- makes contracts of a tenant take turns
    IF EXISTS (
        SELECT FROM billing_contract AS other WHERE other.tenant_id = NEW.tenant_id AND other.id <> NEW.id
           AND tstzrange(other.starts_at, other.ends_at) && tstzrange(NEW.starts_at, NEW.ends_at)
    ) THEN
        RAISE EXCEPTION 'contracts of a tenant don''t overlap' USING ERRCODE = 'exclusion_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER billing_contract_guarded BEFORE INSERT OR UPDATE ON billing_contract
    FOR EACH ROW EXECUTE FUNCTION billing_guard_contract();

CALL core_append_only('billing_pricebook', 'billing_rate', 'billing_pricetier');
CALL core_never_deleted('billing_contract');
CALL core_configured('billing_pricebook', 'billing_rate', 'billing_pricetier', 'billing_contract');
