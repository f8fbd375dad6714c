"""Whether what goes over a URL can be read by others on its way. No I/O."""

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str | None) -> bool:
    """Whether this host is this machine and nothing else can listen in."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def is_private_to_us(url: str) -> bool:
    """Whether what goes over this URL is encrypted, or never leaves the machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
