"""Django's settings, derived from `easel.config`."""

import os
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from easel.config import BadSetting, Config
from easel.observability.database_watch import WatchedConnection
from easel.portal.theme import UNFOLD  # noqa: F401 - a setting

EASEL = Config.from_env(os.environ)

SECRET_KEY = EASEL.secret_key
DEBUG = EASEL.debug
ALLOWED_HOSTS = ["*"]  # the Ingress routes by host; nothing here is derived from the Host header
ROOT_URLCONF = "easel.urls"
ASGI_APPLICATION = "easel.asgi.application"
APPEND_SLASH = False

INSTALLED_APPS = [
    # Before the admin, whose templates it replaces. `easel.portal.site` creates the site.
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "core",
    "tenants",
    "billing",
    "easel.catalog",
    "easel.serving",
    "easel.webhooks",
    "easel.jobs",
    "easel.batches",
    "easel.reporting",
    "easel.api",
    "easel.portal",
]
MIDDLEWARE = [
    "easel.api.middleware.RequestContext",
    "easel.api.compression.Gzip",
    "easel.api.middleware.Options",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # Before those of the apps, of which the theme's come first: the portal replaces some of them.
        "DIRS": [Path(__file__).parent / "portal" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
# The admin checks for its middleware in MIDDLEWARE; `easel.portal.views` applies it to the portal's views only.
SILENCED_SYSTEM_CHECKS = ["admin.E408", "admin.E409", "admin.E410"]

# The portal's sign-in. All its pages are under one path, to which its cookies are limited.
PORTAL_PATH = "/admin/"
STATIC_URL = f"{PORTAL_PATH}static/"
STATICFILES_DIRS = [Path(__file__).parent / "portal" / "replaced"]  # in place of the theme's own files
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
FORMAT_MODULE_PATH = "easel.portal.formats"
SESSION_COOKIE_NAME = "easel_session"
CSRF_COOKIE_NAME = "easel_csrf"
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = PORTAL_PATH
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = EASEL.public_url.startswith("https://")
SESSION_COOKIE_AGE = 12 * 3600
CSRF_FAILURE_VIEW = "easel.portal.views.form_forged"
# Behind an Ingress requests arrive over plain HTTP, so the public origin must be listed.
CSRF_TRUSTED_ORIGINS = ["://".join(urlsplit(EASEL.public_url)[:2])]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]


def _database(url: str) -> dict[str, object]:
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise BadSetting("DATABASE_URL", "should begin with postgresql://")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", None) or parts.hostname or "",
        "PORT": str(parts.port or query.pop("port", "")),
        # A pool, since under ASGI each request runs on a thread of its own.
        "OPTIONS": {
            "connect_timeout": "2",
            "prepare_threshold": 5,  # used by `core.pipeline` only, since Django binds parameters in the client
            # Frees the locks of balances and jobs if a process hangs in a transaction.
            "options": "-c idle_in_transaction_session_timeout=15s",
            **query,
            "pool": {
                "min_size": 1,
                "max_size": 16,
                "timeout": 1.5,
                "reconnect_timeout": 2,  # then starts over, so that pauses between attempts don't grow
                "connection_class": WatchedConnection,
            },
        },
    }


def _email(url: str) -> dict[str, object]:
    parts = urlsplit(url)
    sender = parse_qs(parts.query).get("from", [""])[0]
    if parts.scheme not in ("smtp", "smtps", "smtp+starttls") or not parts.hostname or "@" not in sender:
        raise BadSetting(
            "EASEL_EMAIL_URL", "should be like smtp+starttls://user:password@host:587?from=billing@example.com"
        )
    return {
        "EMAIL_HOST": parts.hostname,
        "EMAIL_PORT": parts.port or {"smtp": 25, "smtps": 465}.get(parts.scheme, 587),
        "EMAIL_HOST_USER": unquote(parts.username or ""),
        "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
        "EMAIL_USE_SSL": parts.scheme == "smtps",
        "EMAIL_USE_TLS": parts.scheme == "smtp+starttls",
        "EMAIL_TIMEOUT": 5,  # the scheduler waits so many seconds for a server that doesn't answer
        "DEFAULT_FROM_EMAIL": sender,
    }


if EASEL.email_url:
    globals().update(_email(EASEL.email_url))

DATABASES = {"default": _database(EASEL.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True

# Adapters stream to disk; everything else is a small JSON body.
DATA_UPLOAD_MAX_MEMORY_SIZE = EASEL.body_bytes_max
FILE_UPLOAD_MAX_MEMORY_SIZE = 2**20

REST_FRAMEWORK = {"UNAUTHENTICATED_USER": None}  # only its parser of forms and its JSON are used
LOGGING_CONFIG = None  # easel.observability.logs configures logging once per process
