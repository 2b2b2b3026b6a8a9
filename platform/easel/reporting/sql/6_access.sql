-- A role belongs to the whole server: another database may have created it, even at this moment.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'easel_reporting') THEN
        CREATE ROLE easel_reporting NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE WARNING 'nobody can read the schema reporting yet: as a user with CREATEROLE, run CREATE ROLE easel_reporting NOLOGIN,'
            ' then easel migrate again';
END $$;
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'easel_reporting') THEN
        GRANT USAGE ON SCHEMA reporting TO easel_reporting;
        GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO easel_reporting;
    END IF;
END $$;
