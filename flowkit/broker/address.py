"""Broker addresses: what they may not ask for."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from flowkit.addresses import ENCODE, flaw, mask, without_query
from flowkit.errors import UsageError

CERTIFICATES = {"cafile", "certfile", "keyfile"}  # what an amqps:// address may name
EXPECTED = "expected amqp://user:password@host:5672/virtual-host"


def check(url: str) -> None:
    """See that an AMQP address is one, and asks for nothing unsafe.

    Raises:
        UsageError: it cannot be read, or not in one way only; the message says what has to be percent-encoded.
    """
    if (wrong := flaw(url)) is not None:
        raise UsageError(f"broker address {mask(url)!r}: {wrong}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # brackets, or a port that is no number: the words of the error would show a part of it
        host = port = None
    else:
        login, beyond = parts.netloc.rpartition("@")[0], parts.path + parts.query + parts.fragment
        # An @ is the end of a password with a slash, or of a virtual host; and are brackets those of the host?
        if "@" in beyond or "[" in login or "]" in login:
            host = None
    if host is None or port == 0:
        encode = f". {ENCODE}, also in a virtual host" if "@" in url or mask(url) != url else ""
        raise UsageError(f"broker address {without_query(url)!r} cannot be read: {EXPECTED}{encode}")
    asked = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "no_verify_ssl" in asked:
        raise UsageError(
            f"broker address {without_query(url)!r} asks for no_verify_ssl: certificates are always verified. "
            "Name the authority's certificate instead: ?cafile=/etc/ssl/ca.pem"
        )
    for name in CERTIFICATES & asked.keys():
        _see_file(url, name, asked[name])


def encode(url: str) -> str:
    """Percent-encode the login of an address that passed ``check``, so that every library reads the same in it.

    yarl takes no backslash there, for example, and no character whose compatibility form is one of the separators.
    """
    parts = urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    encoded = ":".join(quote(unquote(part), safe="") for part in login.split(":", 1))
    return parts._replace(netloc=f"{encoded}{at}{place}").geturl()


def _see_file(url: str, name: str, path: str) -> None:
    """A file that TLS needs is looked at before a connection is tried: its own errors would name no file."""
    shown = without_query(url)
    try:
        text = Path(path).read_text("ascii", "replace")
    except OSError as error:
        raise UsageError(f"broker address {shown!r}: {name}={path} cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL, percent-encoded
        raise UsageError(f"broker address {shown!r}: {name} is no path") from None
    if "-----BEGIN " not in text:
        raise UsageError(f"broker address {shown!r}: {name}={path} is no PEM file: it has no line -----BEGIN …")
