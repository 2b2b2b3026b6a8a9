"""The server of the API and the portal: uvicorn, with the limits of `easel.api.connection`."""

import resource
from typing import Any

import uvicorn
from django.conf import settings

from easel.api.connection import Connection

GRACEFUL_SECONDS = 10  # for open requests after a SIGTERM; below the supervisor's grace
# Longer than the 60 s after which ingress-nginx closes an idle connection to us, so that it never sends into a closed
# one. A process that has no connection left closes idle ones sooner.
IDLE_SECONDS = 75
_OTHER_FILES = 256  # that a process has open beside its connections


def server_config(application: Any, **options: Any) -> uvicorn.Config:
    """Return uvicorn's configuration; `options` are where to listen, and those of tests."""
    trusted = [str(network) for network in settings.EASEL.trusted_proxies]
    return uvicorn.Config(
        application,
        **{
            "http": Connection,
            "ws": "none",
            "lifespan": "off",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "proxy_headers": bool(trusted),
            "forwarded_allow_ips": trusted,
            "timeout_keep_alive": IDLE_SECONDS,
            "timeout_graceful_shutdown": GRACEFUL_SECONDS,
            **options,
        },
    )


def serve(application: Any, *, host: str, port: int) -> None:
    """Serve until a signal ends it."""
    _allow_files(settings.EASEL.connections_max + _OTHER_FILES)
    uvicorn.Server(server_config(application, host=host, port=port)).run()


def _allow_files(count: int) -> None:
    """Raise this process's limit of open files to `count`, or as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
