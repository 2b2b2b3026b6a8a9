-- Statements: a final one never changes, and statements of one tenant never overlap.

INSERT INTO billing_statementsequence (last) SELECT 0 WHERE NOT EXISTS (SELECT FROM billing_statementsequence);

CREATE OR REPLACE FUNCTION billing_guard_statement() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE OR REPLACE TRIGGER billing_statement_guarded BEFORE INSERT OR DELETE OR UPDATE ON billing_statement
    FOR EACH ROW EXECUTE FUNCTION billing_guard_statement();

CREATE OR REPLACE FUNCTION billing_guard_statement_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM billing_statement WHERE state = 'final'
           AND id = CASE TG_OP WHEN 'DELETE' THEN OLD.statement_id ELSE NEW.statement_id END
    ) THEN
        RAISE EXCEPTION 'the lines of a final statement don''t change' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE OR REPLACE TRIGGER billing_statementline_guarded BEFORE INSERT OR DELETE OR UPDATE ON billing_statementline
    FOR EACH ROW EXECUTE FUNCTION billing_guard_statement_line();

CALL core_configured('billing_billingprofile');
