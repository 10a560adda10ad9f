"""What a broker says when something stands there already and is not what was asked for."""

from __future__ import annotations

from typing import Any

from flowkit.errors import Refused
from flowkit.wire.topology import Exchange, Part


def mismatch(part: Part, argument: str, wanted: Any, standing: Any) -> Refused:
    """The error for a part that stands there with another argument (AMQP 406), naming both.

    Args:
        part: what was to be declared.
        argument: the name of the first argument that differs, such as ``x-delivery-limit`` or ``type``.
        wanted: its value in the declaration.
        standing: its value on the broker; None when it has none.
    """
    kind = "exchange" if isinstance(part, Exchange) else "queue"
    return Refused(
        f"{kind} {part.name!r} stands on the broker with {argument} = {standing!r}, and {wanted!r} was asked for. "
        f"Arguments cannot change once declared: delete the {kind} when it is empty, or use another namespace "
        "(--namespace or FLOWKIT_NAMESPACE)."
    )
