"""Configuration of the control plane: read from the environment once, checked, frozen."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from core.origins import origin_of


class BadSetting(SystemExit):
    """Ends the process with the name of a variable and the value that it should have."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of a control-plane process; durations in seconds, sizes in bytes."""

    home: Path
    secret_key: str
    database_url: str
    redis_url: str
    storage_url: str
    public_url: str
    internal_url: str
    provider_name: str
    model: str
    gpu_class: str
    debug: bool
    lease_seconds: int
    attempts_max: int
    job_ttl_seconds: int
    queued_jobs_max: int
    request_wait_seconds: int
    keepalive_seconds: int
    disconnect_grace_seconds: int
    connections_max: int
    connections_per_address_max: int
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    second_factor_required: bool
    body_bytes_max: int
    adapter_bytes_max: int
    adapter_rank_max: int
    prompt_chars_max: int
    output_days: int
    job_days: int
    result_cache_bytes: int
    webhook_allow: tuple[IPv4Network | IPv6Network, ...]
    email_url: str
    cors_origins: frozenset[str]
    reporting_database_url: str
    moderation_url: str
    moderation_key: str
    moderation_model: str
    moderation_fails_open: bool

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Config":
        """Read the settings. Raises `BadSetting` for a missing or invalid variable."""
        home = Path(env.get("EASEL_HOME", "var")).resolve()
        output_days = _count(env, "EASEL_OUTPUT_DAYS", 30)
        internal_url = env.get("EASEL_INTERNAL_URL", f"http://127.0.0.1:{env.get('EASEL_PORT', '8000')}")
        public_url = env.get("EASEL_PUBLIC_URL", internal_url).rstrip("/")
        return cls(
            home=home,
            secret_key=_required(env, "EASEL_SECRET_KEY", "a long random string, the same for every process"),
            database_url=_required(env, "DATABASE_URL", "postgresql://user:password@host:5432/name"),
            redis_url=_required(env, "REDIS_URL", "redis://:password@host:6379/0"),
            storage_url=env.get("EASEL_STORAGE_URL", (home / "storage").as_uri()),
            # URLs of the API for tenants and for workers, which differ behind an Ingress.
            public_url=public_url,
            internal_url=internal_url.rstrip("/"),
            provider_name=env.get("EASEL_PROVIDER_NAME") or "Easel",
            model=env.get("EASEL_MODEL") or _demo_checkpoint(),
            gpu_class=env.get("EASEL_GPU_CLASS", "cpu"),
            debug=env.get("EASEL_DEBUG", "") == "1",
            lease_seconds=_count(env, "EASEL_LEASE_SECONDS", 15),
            attempts_max=_count(env, "EASEL_ATTEMPTS_MAX", 3),
            job_ttl_seconds=_count(env, "EASEL_JOB_TTL_SECONDS", 3600),
            queued_jobs_max=_count(env, "EASEL_QUEUED_JOBS_MAX", 10_000),
            request_wait_seconds=_count(env, "EASEL_REQUEST_WAIT_SECONDS", 300),
            keepalive_seconds=_count(env, "EASEL_KEEPALIVE_SECONDS", 15),
            disconnect_grace_seconds=_count(env, "EASEL_DISCONNECT_GRACE_SECONDS", 60),
            # Of one process of the API; the second for addresses that are no trusted proxy's.
            connections_max=_count(env, "EASEL_CONNECTIONS_MAX", 4096),
            connections_per_address_max=_count(env, "EASEL_CONNECTIONS_PER_ADDRESS_MAX", 1024),
            # Who may say by X-Forwarded-For and X-Forwarded-Proto whom a request came from, and how.
            trusted_proxies=_networks(env, "EASEL_TRUSTED_PROXIES"),
            second_factor_required=_choice(
                env,
                "EASEL_SECOND_FACTOR",
                {"required": True, "optional": False},
                default=public_url.startswith("https://"),
            ),
            body_bytes_max=_count(env, "EASEL_BODY_BYTES_MAX", 1_000_000),
            adapter_bytes_max=_count(env, "EASEL_ADAPTER_BYTES_MAX", 512 * 2**20),
            adapter_rank_max=_count(env, "EASEL_ADAPTER_RANK_MAX", 128),
            prompt_chars_max=_count(env, "EASEL_PROMPT_CHARS_MAX", 4000),
            output_days=output_days,
            job_days=_job_days(env, output_days),
            result_cache_bytes=_count(env, "EASEL_RESULT_CACHE_BYTES", 10 * 2**30),
            # Private networks that tenants' webhooks may reach nevertheless, also over plain HTTP.
            webhook_allow=_networks(env, "EASEL_WEBHOOK_ALLOW"),
            # The mail server for budget notices; empty: none are sent.
            email_url=env.get("EASEL_EMAIL_URL", ""),
            # Origins whose pages may call the API with any tenant's key, from a browser.
            cors_origins=_origins(env, "EASEL_CORS_ORIGINS"),
            # The replica that logins for reports read; empty: there is none, and they read the platform's database.
            reporting_database_url=env.get("EASEL_REPORTING_DATABASE_URL", ""),
            # A classifier with OpenAI's moderation API, as https://api.openai.com/v1; empty: there is none.
            moderation_url=_web_address(env, "EASEL_MODERATION_URL"),
            moderation_key=env.get("EASEL_MODERATION_KEY", ""),
            moderation_model=env.get("EASEL_MODERATION_MODEL") or "omni-moderation-latest",
            moderation_fails_open=_choice(
                env, "EASEL_MODERATION_FAILS", {"closed": False, "open": True}, default=False
            ),
        )

    def trusts(self, address: str) -> bool:
        """Return true if an address is a trusted proxy's."""
        return bool(self.trusted_proxies) and any(ip_address(address) in network for network in self.trusted_proxies)


def _demo_checkpoint() -> str:
    """Return the demo model's folder; empty where it is not installed, as in the images."""
    folder = Path(str(files("inference"))) / "demo_model" / "checkpoint"
    return str(folder) if folder.is_dir() else ""


def _required(env: Mapping[str, str], name: str, example: str) -> str:
    if value := env.get(name, ""):
        return value
    raise BadSetting(name, f"is not set; it should be {example} (`easel up` sets it automatically)")


def _job_days(env: Mapping[str, str], output_days: int) -> int:
    days = _count(env, "EASEL_JOB_DAYS", max(90, output_days))
    if days < output_days:
        raise BadSetting("EASEL_JOB_DAYS", f"should be at least EASEL_OUTPUT_DAYS ({output_days}): jobs outlive images")
    return days


def _web_address(env: Mapping[str, str], name: str) -> str:
    url = env.get(name, "").rstrip("/")
    if url and not url.startswith(("https://", "http://")):
        raise BadSetting(name, f"should begin with https:// or http://, not {url!r}")
    return url


def _networks(env: Mapping[str, str], name: str) -> tuple[IPv4Network | IPv6Network, ...]:
    text = env.get(name, "")
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise BadSetting(name, f"should be a list of networks, as in 127.0.0.0/8,10.1.0.0/16: {error}") from error


def _origins(env: Mapping[str, str], name: str) -> frozenset[str]:
    texts = (part.strip() for part in env.get(name, "").split(","))
    try:
        return frozenset(text if text == "*" else origin_of(text) for text in texts if text)
    except ValueError as error:
        raise BadSetting(
            name, f"should be * or origins, as in https://app.example,http://localhost:5173: {error}"
        ) from error


def _choice(env: Mapping[str, str], name: str, choices: Mapping[str, bool], *, default: bool) -> bool:
    text = env.get(name, "")
    if text and text not in choices:
        raise BadSetting(name, f"should be {' or '.join(choices)}, not {text!r}")
    return choices.get(text, default)


def _count(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, str(default))
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise BadSetting(name, f"should be a positive whole number, not {text!r}")
