"""Attackers of a running Easel: another tenant, a tenant's own worker, a login that only reads, a client that is in."""

import uuid
from dataclasses import dataclass

import pytest
import redis

from easel_client import Easel
from tests.live import LiveEasel

ORDER = {"prompt": "a red circle on a white background", "size": "128x128", "seed": 7, "cache": False}


@dataclass(slots=True)
class PoolOwner:
    """A tenant with a pool of its own, whose workers it runs itself."""

    slug: str
    secret: str  # of its API key
    client: Easel
    environment: dict[str, str]  # of its workers, as `easel pool environment` prints it

    @property
    def namespace(self) -> str:
        return self.environment["EASEL_POOL_NAMESPACE"]

    @property
    def key_id(self) -> str:
        return self.secret.split("_")[2]

    def redis(self) -> "redis.Redis":
        """A connection with the login of the pool's workers."""
        return redis.Redis.from_url(self.environment["REDIS_URL"])


@pytest.fixture
def tenant(easel: LiveEasel) -> Easel:
    """A tenant of the shared pool, with credit: nobody's attack may stop its jobs."""
    return easel.tenant()


@pytest.fixture
def pool_owner(easel: LiveEasel) -> PoolOwner:
    """A tenant whose dedicated pool has no worker yet but the attacker."""
    slug = f"own-{uuid.uuid4().hex[:10]}"
    made = easel.json("tenant", "create", slug, "--credit", "10")
    assert easel.command("pool", "dedicate", slug).returncode == 0
    lines = easel.command("pool", "environment", slug).stdout.splitlines()
    environment = dict(line.split("=", 1) for line in lines)
    owner = PoolOwner(slug, made["api_key"], Easel(easel.url, made["api_key"]), environment)

    def logs_in() -> bool:
        try:
            return bool(owner.redis().ping())
        except redis.AuthenticationError:
            return False

    easel.wait_for(logs_in)  # the dispatcher makes the login a moment after the pool
    return owner
