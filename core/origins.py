"""Web origins, as browsers send them in `Origin`: a scheme, a host and a port unless it is the scheme's own."""

import re
from urllib.parse import urlsplit

# In the dialect that Python and PostgreSQL share. Apps have schemes of their own, such as capacitor://localhost.
ORIGIN = r"[a-z][a-z0-9+.-]*://([a-z0-9_-]+([.][a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
_PORTS = {"http": 80, "https": 443}


def origin_of(text: str) -> str:
    """Return an origin as browsers write it: in lower case, with a host in ASCII and without the scheme's own port.

    Raises `ValueError` for anything else, such as an address with a path.
    """
    text = text.strip()
    problem = ValueError(f"{text!r} is not an origin: write scheme://host or scheme://host:port, without a path")
    try:
        parts = urlsplit(text.removesuffix("/"))
        host = (parts.hostname or "").encode("idna" if "[" not in parts.netloc else "ascii").decode()
        port = parts.port
    except ValueError as error:  # UnicodeError is one
        raise problem from error
    # `urlsplit` drops line breaks and tabs.
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc or re.search(r"\s", text):
        raise problem
    host = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, _PORTS.get(parts.scheme)) else "")
    if not re.fullmatch(ORIGIN, origin):
        raise problem
    return origin
