"""An AMQP address in its parts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

EXPECTED = "expected amqp://user:password@host:5672/virtual-host, or amqps://"
PORTS = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is, and as whom to log in.

    ``heartbeat`` (seconds) is what the address asks for; None when it does not.
    """

    host: str
    port: int = 5672
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    tls: ssl.SSLContext | None = None
    heartbeat: int | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take an address apart, and read the files of certificates that it names.

        They are read now: who connects again after weeks parses again, and sees those that were renewed.

        Args:
            url: ``amqp://user:password@host:5672/virtual-host`` or ``amqps://…``, everything but the host optional. Its
                query may have ``heartbeat`` (seconds), and for TLS ``cafile``, ``capath``, ``cadata`` (PEM),
                ``certfile`` and ``keyfile``.

        Raises:
            ValueError: it is none, or asks not to verify certificates; the message has nothing of the login in it.
            OSError: a file cannot be read.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:  # its message quotes what may be a part of the password
            raise ValueError(f"{EXPECTED}; a password with / ? # [ or ] has to be percent-encoded") from None
        if parts.scheme not in PORTS or not host:
            raise ValueError(EXPECTED)
        asked = dict(parse_qsl(parts.query, keep_blank_values=True))
        if "no_verify_ssl" in asked:
            raise ValueError("no_verify_ssl: certificates are always verified; name their authority in cafile")
        heartbeat = asked.get("heartbeat")
        if heartbeat is not None and not (heartbeat.isascii() and heartbeat.isdigit() and int(heartbeat) < 1 << 16):
            raise ValueError(f"heartbeat={heartbeat}: expected whole seconds from 0 to 65535")
        return cls(
            host=host,
            port=port or PORTS[parts.scheme],
            user=unquote(parts.username or "") or "guest",
            password=unquote(parts.password or "") or "guest",
            vhost=unquote(parts.path[1:]) or "/",
            tls=_context(asked) if parts.scheme == "amqps" else None,
            heartbeat=None if heartbeat is None else int(heartbeat),
        )


def _context(asked: dict[str, str]) -> ssl.SSLContext:
    """TLS that verifies: by the authorities named, or by those of the system and ``SSL_CERT_FILE``."""
    context = ssl.create_default_context(
        cafile=asked.get("cafile"), capath=asked.get("capath"), cadata=asked.get("cadata")
    )
    if "certfile" in asked:
        context.load_cert_chain(asked["certfile"], asked.get("keyfile"))
    return context
