"""Weights that sum to 100, checked at commit; and routes for the versions that served their models until now."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION registry_check_weights() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner text := TG_ARGV[0];
    owner_id text := CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) ->> owner ELSE to_jsonb(NEW) ->> owner END;
    total bigint;
BEGIN
    EXECUTE format('SELECT sum(weight) FROM %I WHERE %I::text = $1', TG_TABLE_NAME, owner) INTO total USING owner_id;
    IF total <> 100 THEN
        RAISE EXCEPTION 'the weights of %.% = % sum to % and not to 100', TG_TABLE_NAME, owner, owner_id, total
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER registry_route_weights AFTER INSERT OR UPDATE OR DELETE ON registry_route
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_check_weights('model_id');
CREATE CONSTRAINT TRIGGER registry_arm_weights AFTER INSERT OR UPDATE OR DELETE ON registry_arm
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_check_weights('experiment_id');

INSERT INTO registry_route (model_id, version_id, weight)
SELECT DISTINCT ON (model_id) model_id, id, 100
  FROM registry_modelversion WHERE retired_at IS NULL ORDER BY model_id, number DESC;
"""
BACKWARD = """
DROP TRIGGER registry_route_weights ON registry_route;
DROP TRIGGER registry_arm_weights ON registry_arm;
DROP FUNCTION registry_check_weights;
"""


class Migration(migrations.Migration):
    dependencies = [("registry", "0002_routes_rollouts_experiments")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
