-- Functions that every room's SQL uses.

CREATE OR REPLACE FUNCTION core_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: write a correcting row instead', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

-- Refuses every change of the named tables' rows, for their owner too.
CREATE OR REPLACE PROCEDURE core_append_only(VARIADIC tables text[]) LANGUAGE plpgsql AS $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY tables LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER %I BEFORE UPDATE OR DELETE OR TRUNCATE ON %I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION core_refuse_change()', name || '_append_only', name);
    END LOOP;
END $$;

-- Refuses to delete rows of the named tables; other triggers restrict their changes.
CREATE OR REPLACE PROCEDURE core_never_deleted(VARIADIC tables text[]) LANGUAGE plpgsql AS $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY tables LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER %I BEFORE DELETE OR TRUNCATE ON %I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION core_refuse_change()', name || '_never_deleted', name);
    END LOOP;
END $$;

-- The revision of the configuration: one row, raised in the transaction of each change of a configured table.
INSERT INTO core_configuration (revision) SELECT 0 WHERE NOT EXISTS (SELECT FROM core_configuration);

CREATE OR REPLACE FUNCTION core_count_configuration_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE core_configuration SET revision = revision + 1;
    RETURN NULL;
END $$;

-- Raises the revision at every change of the named tables.
CREATE OR REPLACE PROCEDURE core_configured(VARIADIC tables text[]) LANGUAGE plpgsql AS $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY tables LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION core_count_configuration_change()', name || '_configured', name);
    END LOOP;
END $$;

CALL core_append_only('core_auditevent');
