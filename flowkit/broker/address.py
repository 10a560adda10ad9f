"""Broker addresses: what is shown of them, and what they may not ask for."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from flowkit.errors import UsageError

CERTIFICATES = {"cafile", "certfile", "keyfile"}  # what an amqps:// address may name


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
    asked = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "no_verify_ssl" in asked:
        raise UsageError(
            f"broker address {mask(url)!r} asks for no_verify_ssl: certificates are always verified. "
            "Name the authority's certificate instead: ?cafile=/etc/ssl/ca.pem"
        )
    for name in CERTIFICATES & asked.keys():
        _see_file(url, name, asked[name])


def _see_file(url: str, name: str, path: str) -> None:
    """A file that TLS needs is looked at before a connection is tried: its own errors would name no file."""
    try:
        text = Path(path).read_text("ascii", "replace")
    except OSError as error:
        raise UsageError(f"broker address {mask(url)!r}: {name}={path} cannot be read: {error.strerror}") from None
    if "-----BEGIN " not in text:
        raise UsageError(f"broker address {mask(url)!r}: {name}={path} is no PEM file: it has no line -----BEGIN …")
