-- Checks at commit that the weights of a model's routes, and of an experiment's arms, sum to 100.

CREATE OR REPLACE FUNCTION serving_check_weights() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner text := TG_ARGV[0];
    owner_id text := CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) ->> owner ELSE to_jsonb(NEW) ->> owner END;
    total bigint;
BEGIN
    EXECUTE format('SELECT sum(weight) FROM %I WHERE %I::text = $1', TG_TABLE_NAME, owner) INTO total USING owner_id;
    IF total <> 100 THEN
        RAISE EXCEPTION 'the weights of %.% = % sum to %; they must sum to 100', TG_TABLE_NAME, owner, owner_id, total
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS serving_route_weights ON serving_route;
CREATE CONSTRAINT TRIGGER serving_route_weights AFTER INSERT OR DELETE OR UPDATE ON serving_route DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION serving_check_weights('model_id');

DROP TRIGGER IF EXISTS serving_arm_weights ON serving_arm;
CREATE CONSTRAINT TRIGGER serving_arm_weights AFTER INSERT OR DELETE OR UPDATE ON serving_arm DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION serving_check_weights('experiment_id');

CALL core_configured('serving_route', 'serving_experiment', 'serving_arm');
