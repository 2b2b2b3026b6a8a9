"""A typed client of Easel's API.

    from easel_client import Easel

    client = Easel("https://easel.example", "easel_sk_…")
    job = client.jobs.wait(client.jobs.create(prompt="a red circle"))
    image = client.fetch(job["images"][0]["url"])

`easel_client.images.generate_many` generates from a list of prompts, and resumes after a crash. Answers are the API's
JSON, whose types are in `easel_client.types`; `easel_client.errors` has the errors.
"""

from easel_client.client import Easel
from easel_client.errors import EaselError, JobFailed, Refused, Unreachable

__all__ = ["Easel", "EaselError", "JobFailed", "Refused", "Unreachable"]
