"""The worker process: a Celery consumer in front of one engine, with its downloads, uploads and reports."""
