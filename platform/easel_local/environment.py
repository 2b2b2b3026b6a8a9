"""Sets the environment variables that Easel's settings require, and starts embedded servers where no URL is set."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from easel_local.embedded import servers
from easel_local.home import home_of, secret_key


@contextmanager
def environment(*, own_servers: bool = False) -> Iterator[None]:
    """Set DATABASE_URL, REDIS_URL, EASEL_HOME and EASEL_SECRET_KEY in `os.environ` for the length of the `with`.

    SIGTERM ends the body like `sys.exit`, so that servers that were started here are stopped. Raises
    `ServersUnavailable`.
    """
    home = home_of(os.environ)
    os.environ["EASEL_HOME"] = str(home)
    with _sigterm_exits(), servers(home, os.environ, own=own_servers) as endpoints:
        os.environ["DATABASE_URL"] = endpoints.database_url
        os.environ["REDIS_URL"] = endpoints.redis_url
        if not os.environ.get("EASEL_SECRET_KEY"):
            os.environ["EASEL_SECRET_KEY"] = secret_key(home)
        yield


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
