"""Django's settings, from `easel.config`."""

import os
from urllib.parse import parse_qs, unquote, urlsplit

from easel.config import BadSetting, Config

EASEL = Config.from_env(os.environ)

SECRET_KEY = EASEL.secret_key
DEBUG = EASEL.debug
ALLOWED_HOSTS = ["*"]  # the Ingress routes by host; nothing here is derived from the Host header
ROOT_URLCONF = "easel.urls"
ASGI_APPLICATION = "easel.asgi.application"
APPEND_SLASH = False

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "tenants",
    "billing",
    "easel.registry",
    "easel.generation",
    "easel.reporting",
    "easel.api",
]
MIDDLEWARE = ["easel.api.middleware.RequestContext"]
TEMPLATES: list[dict[str, object]] = []


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
        "OPTIONS": {**query, "pool": {"min_size": 1, "max_size": 16, "timeout": 5}},
    }


DATABASES = {"default": _database(EASEL.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True

# Adapters stream to disk; everything else is a small JSON body.
DATA_UPLOAD_MAX_MEMORY_SIZE = EASEL.body_bytes_max
FILE_UPLOAD_MAX_MEMORY_SIZE = 2**20

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["easel.api.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["easel.api.authentication.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["easel.api.parsers.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "easel.api.errors.handle",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,  # `?format=` is no parameter of ours
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Easel",
    "VERSION": "0.1.0",
    "DESCRIPTION": "Text-to-image generation for many tenants. Compatible with OpenAI's Images API.",
    "SERVE_INCLUDE_SCHEMA": False,
}
LOGGING_CONFIG = None  # easel.ops.logs configures logging once per process
