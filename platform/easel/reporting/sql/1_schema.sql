-- The views that Grafana and other tools read. core/schema.py runs these files after every migration, in one transaction.
-- Amounts are micro-units of `currency` (1,000,000 make one unit); days and times are UTC.

CREATE SCHEMA IF NOT EXISTS reporting;
COMMENT ON SCHEMA reporting IS
    'Read-only views for reports. Every migration creates them again: keep your own views in another schema.';
