-- What Grafana and other tools may read: run with the other files after every migration, in one transaction (`views.py`).
-- Amounts are whole micro-units of `currency` (1,000,000 are one unit of it), days and times are UTC.

CREATE SCHEMA IF NOT EXISTS reporting;
COMMENT ON SCHEMA reporting IS
    'Read-only views for reports. They are made anew by every migration: keep your own views in another schema.';
