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

-- Sets the bounds of a login of `easel reporting-login`, which the comment marks. The login may lift those of its own
-- sessions; `easel.reporting.sessions` holds them all the same. For that the owner of the views becomes a member of the
-- login's role: only then may it see and end the login's sessions, unless it is a superuser.
CREATE OR REPLACE PROCEDURE reporting_login_bound(login text) LANGUAGE plpgsql AS $$
DECLARE
    owner regrole := (SELECT nspowner FROM pg_namespace WHERE nspname = 'reporting');
BEGIN
    EXECUTE format('ALTER ROLE %I CONNECTION LIMIT 10', login);
    EXECUTE format('ALTER ROLE %I SET default_transaction_read_only = on', login);
    EXECUTE format('ALTER ROLE %I SET statement_timeout = ''60s''', login);
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = ''10s''', login);
    EXECUTE format('COMMENT ON ROLE %I IS ''a login of easel reporting-login''', login);
    IF NOT (SELECT rolsuper FROM pg_roles WHERE oid = owner) THEN
        EXECUTE format('GRANT %I TO %s', login, owner) || CASE WHEN current_setting('server_version_num')::int >= 160000
            THEN ' WITH INHERIT TRUE' ELSE '' END;
    END IF;
    -- Only a superuser may set this one, and then the login can't lift it.
    IF current_setting('is_superuser') = 'on' THEN
        EXECUTE format('ALTER ROLE %I SET temp_file_limit = ''2GB''', login);
    END IF;
END $$;

-- The logins of a version before this mark.
DO $$ DECLARE name text; BEGIN
    FOR name IN
        SELECT rolname FROM pg_roles role JOIN pg_auth_members ON member = role.oid
         WHERE roleid = to_regrole('easel_reporting') AND rolcanlogin AND NOT rolsuper AND rolconnlimit = -1
           AND 'default_transaction_read_only=on' = ANY(rolconfig)
    LOOP
        CALL reporting_login_bound(name);
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'the logins for reports are unbounded: as a user with CREATEROLE, run easel reporting-login for each';
END $$;

-- What PostgreSQL lets every role do, and no report does: make temporary tables and tables of its own, and, where we may
-- forbid it, take advisory locks and write large objects or into the log of the server.
DO $$ DECLARE function regprocedure; BEGIN
    IF pg_has_role((SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE') THEN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
    IF pg_has_role((SELECT nspowner FROM pg_namespace WHERE nspname = 'public'), 'USAGE') THEN
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    END IF;
    IF current_setting('is_superuser') = 'on' THEN
        FOR function IN
            SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
               AND (proname ~ '^pg_(try_)?advisory_' OR proname IN
                    ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite', 'pg_logical_emit_message'))
               AND has_function_privilege('public', oid, 'EXECUTE')
        LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
        END LOOP;
    END IF;
END $$;
