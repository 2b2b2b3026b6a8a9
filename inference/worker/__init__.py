"""The worker process: a Celery consumer in front of one engine, and what it fetches, stores and reports."""
