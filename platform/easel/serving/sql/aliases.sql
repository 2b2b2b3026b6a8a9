-- A name is a model's or an alias's, never both. Two transactions that give the same name take turns by the lock.

CREATE OR REPLACE FUNCTION serving_name_is_free() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- As `core.locks` does: an advisory lock could be taken by any role that can log in.
    INSERT INTO core_lock (name) VALUES ('model names') ON CONFLICT (name) DO UPDATE SET name = excluded.name WHERE false;
    IF (TG_TABLE_NAME = 'serving_alias' AND EXISTS (SELECT FROM catalog_model WHERE name = NEW.name))
        OR (TG_TABLE_NAME = 'catalog_model' AND EXISTS (SELECT FROM serving_alias WHERE name = NEW.name))
    THEN
        RAISE EXCEPTION 'the name % is taken by a model or an alias', NEW.name USING ERRCODE = 'unique_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER serving_alias_name BEFORE INSERT OR UPDATE OF name ON serving_alias
    FOR EACH ROW EXECUTE FUNCTION serving_name_is_free();
CREATE OR REPLACE TRIGGER serving_model_name BEFORE INSERT OR UPDATE OF name ON catalog_model
    FOR EACH ROW EXECUTE FUNCTION serving_name_is_free();

CALL core_configured('serving_alias');
