"""Addresses of brokers and stores: what may be shown of them, and what makes them unreadable.

A password may have any character, and people forget to percent-encode it. So nothing is shown of an address but what is
certainly the scheme, the user's name, the host and the path; the rest is ``***``.
"""

from __future__ import annotations

import re
from unicodedata import category

HIDDEN = "***"
ENCODE = "Percent-encode user name and password: / as %2F, ? %3F, # %23, [ %5B, ] %5D, @ %40, : %3A, % %25, a blank %20"

# Texts and not compiled: every call of the command line imports this, and few need it.
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,30}"
_NAMED = r"memory:[\w.-]*"  # a broker of this process
_USER = r"[^/?#\[\]]*"
_HOST = r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|(?:[\w.-]|%[0-9A-Fa-f]{2})+)(?::\d{0,5})?"
_PLACE = rf"(?s)(?:{_HOST}(?:,{_HOST})*)?(?:/.*)?"
_PARAMETER = r"(?s)[?#].*=|/.*[;&].*="
_HARMLESS = r"sslmode=(?:disable|allow|prefer|require|verify-ca|verify-full)|(?:connect_timeout|heartbeat)=\d{1,5}"
_KNOWN = (
    r"(?s)(password|passfile|sslpassword|sslkey|sslcert|sslrootcert|"
    r"cafile|capath|cadata|certfile|keyfile|user|options)=.*"
)
_CONTROL = ("Cc", "Zl", "Zp")  # control characters, and what ends a line or a paragraph
_UNSEEN = (*_CONTROL, "Cf", "Cs")  # these, what turns the direction of writing, and halves of characters
_QUOTED = r"""(?s)(["'])(.+?)\1"""


def mask(address: str) -> str:
    """An address as it may be shown: on one line, without whatever may be a secret.

    What stands before the last ``@`` is the login, unless it may be the beginning of a query: then nothing is certain.
    Values of a query are shown only where they are one of a few words or a number. What ``mask`` gives stays the same
    when it is masked again.
    """
    scheme, separator, rest = address.partition("://")
    if not separator or not re.fullmatch(_SCHEME, scheme):
        return address if re.fullmatch(_NAMED, address) else HIDDEN
    if scheme == "sqlite" and (not rest or rest.startswith("/")):
        path, mark, _ = rest.partition("?")
        return f"sqlite://{_printable(path)}{mark and f'?{HIDDEN}'}"
    login, at, after = rest.rpartition("@")
    if at and re.search(_PARAMETER, login):
        return f"{scheme}://{HIDDEN}"
    place = re.split(r"[?#]", after, maxsplit=1)[0]
    if not re.fullmatch(_PLACE, place):
        return f"{scheme}://{_login(login)}{at}{HIDDEN}"
    return f"{scheme}://{_login(login)}{at}{_printable(place)}{_query(after[len(place) :])}"


def without_query(address: str) -> str:
    """A masked address up to its query."""
    return mask(address).partition("?")[0].partition("#")[0]


def mask_within(text: str) -> str:
    """Text of somebody else, with every address in it masked."""
    return re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", lambda match: mask(match[0]), text)


def scrub(text: str, address: str) -> str:
    """What a library says about an address, without the parts of the address that ``mask`` hides.

    Args:
        text: of the error; what it quotes is hidden when it comes from the address and ``mask`` does not show it.
        address: that the library was given.
    """
    from urllib.parse import unquote

    shown, plain = mask(address), unquote(address)

    def quoted(match: re.Match[str]) -> str:
        words = match[2]
        secret = (words in address or words in plain) and words not in shown
        return f"{match[1]}{HIDDEN}{match[1]}" if secret else match[0]

    for whole in (address, plain):
        if whole:
            text = text.replace(whole, shown)
    return re.sub(_QUOTED, quoted, text)


def flaw(address: str) -> str | None:
    """Why no address can be like this, in a few words, whatever it is an address of; None: nothing is wrong with it.

    Libraries drop a newline or a blank in silence, or take it for a part of a file's name.
    """
    refused = _CONTROL if address.startswith("sqlite:") else (*_CONTROL, "Cs")  # a file's name may be no UTF-8
    for character in address:
        if category(character) in refused:
            name = {"\n": "a newline", "\r": "a carriage return", "\t": "a tab", "\0": "a NUL"}.get(
                character, f"the character U+{ord(character):04X}"
            )
            return f"it has {name} in it, which no address can have; remove it, or percent-encode it"
    if address != address.strip():
        return "it begins or ends with a blank; remove it"
    return None


def _login(login: str) -> str:
    user, colon, _ = login.partition(":")
    shown = user if re.fullmatch(_USER, user) and _printable(user) == user else HIDDEN
    return shown + (colon and f":{HIDDEN}")


def _query(text: str) -> str:
    if not text.startswith("?"):
        return text[:1] and f"#{HIDDEN}"
    return "?" + "&".join(dict.fromkeys(map(_parameter, text[1:].split("&"))))


def _parameter(text: str) -> str:
    if re.fullmatch(_HARMLESS, text) or not text:
        return text
    known = re.fullmatch(_KNOWN, text)
    return f"{known[1]}={HIDDEN}" if known else HIDDEN


def _printable(text: str) -> str:
    return "".join("\N{REPLACEMENT CHARACTER}" if category(each) in _UNSEEN else each for each in text)
