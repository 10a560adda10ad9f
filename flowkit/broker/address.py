"""Broker addresses: what is shown of them, and what they may not ask for."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit, urlunsplit

from flowkit.errors import UsageError


def mask(url: str) -> str:
    """The address without its password and its query, as it may stand in a log."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    return urlunsplit((parts.scheme, f"{user}{':***' if colon else ''}{at}{host}", parts.path, "", ""))


def check(url: str) -> None:
    """See that an AMQP address is one, and asks for nothing unsafe.

    Raises:
        UsageError
    """
    parts = urlsplit(url)
    try:
        usable = parts.hostname is not None and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise UsageError(f"broker address {mask(url)!r}: expected amqp://user:password@host:5672/virtual-host")
    if "no_verify_ssl" in dict(parse_qsl(parts.query, keep_blank_values=True)):
        raise UsageError(
            f"broker address {mask(url)!r} asks for no_verify_ssl: certificates are always verified. "
            "Name the authority's certificate instead: ?cafile=/etc/ssl/ca.pem"
        )
