-- A key's quota must belong to the key's tenant.
CREATE OR REPLACE FUNCTION tenants_check_quota_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tenants_apikey WHERE id = NEW.api_key_id AND tenant_id = NEW.tenant_id) THEN
        RAISE EXCEPTION 'the key belongs to another tenant than its quota' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER tenants_quota_key_checked BEFORE INSERT OR UPDATE ON tenants_quota
    FOR EACH ROW WHEN (NEW.api_key_id IS NOT NULL) EXECUTE FUNCTION tenants_check_quota_key();

-- A key's family is that of the key that it was rotated from, of the same tenant, and never changes.
CREATE OR REPLACE FUNCTION tenants_check_key_family() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'a key stays in its family' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NOT EXISTS (
        SELECT FROM tenants_apikey
        WHERE id = NEW.first_key_id AND tenant_id = NEW.tenant_id AND first_key_id IS NULL
    ) THEN
        RAISE EXCEPTION 'the first key of a family belongs to its tenant, and is of no other family'
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER tenants_key_family_checked BEFORE INSERT ON tenants_apikey
    FOR EACH ROW WHEN (NEW.first_key_id IS NOT NULL) EXECUTE FUNCTION tenants_check_key_family();
CREATE OR REPLACE TRIGGER tenants_key_family_fixed BEFORE UPDATE ON tenants_apikey
    FOR EACH ROW WHEN (NEW.first_key_id IS DISTINCT FROM OLD.first_key_id)
    EXECUTE FUNCTION tenants_check_key_family();

-- Each block list has a revision, which every change of its entries raises. The platform's list has no tenant.
INSERT INTO tenants_blocklistrevision (tenant_id, revision)
SELECT NULL, 0 WHERE NOT EXISTS (SELECT FROM tenants_blocklistrevision WHERE tenant_id IS NULL);

CREATE OR REPLACE FUNCTION tenants_count_block_list_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner uuid;
BEGIN
    FOR owner IN
        SELECT OLD.tenant_id WHERE TG_OP <> 'INSERT' UNION SELECT NEW.tenant_id WHERE TG_OP <> 'DELETE' ORDER BY 1
    LOOP
        IF owner IS NULL THEN
            UPDATE tenants_blocklistrevision SET revision = revision + 1 WHERE tenant_id IS NULL;
        ELSE
            INSERT INTO tenants_blocklistrevision AS list (tenant_id, revision) VALUES (owner, 1)
                ON CONFLICT (tenant_id) DO UPDATE SET revision = list.revision + 1;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER tenants_blocklistentry_revision AFTER INSERT OR DELETE OR UPDATE ON tenants_blocklistentry
    FOR EACH ROW EXECUTE FUNCTION tenants_count_block_list_change();

-- Wakes who is still answering, to look at the keys: one of them, or its tenant, has changed. The payload says nothing.
CREATE OR REPLACE FUNCTION tenants_notify_access() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('easel_access', '');
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER tenants_apikey_access AFTER UPDATE OR DELETE ON tenants_apikey
    FOR EACH STATEMENT EXECUTE FUNCTION tenants_notify_access();
CREATE OR REPLACE TRIGGER tenants_tenant_access AFTER UPDATE ON tenants_tenant
    FOR EACH STATEMENT EXECUTE FUNCTION tenants_notify_access();

CALL core_configured('tenants_tenant', 'tenants_project', 'tenants_apikey', 'tenants_quota', 'tenants_blocklistrevision');
