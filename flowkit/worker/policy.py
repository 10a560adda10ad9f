"""Whether a failed task is tried again: tenacity's objects, asked without tenacity's loop.

tenacity would sleep in the worker. Here the policy only says how long; the coordinator keeps the timer in the store, so
a backoff survives every crash and occupies nobody.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowkit.errors import InvalidNode, Permanent
from flowkit.wire import durations

Decide = Callable[[Any], Any]  # retry and stop say yes or no of a RetryCallState, wait says seconds
DEFAULT_TRIES = 3  # tenacity's own default is never to stop


@dataclass(frozen=True)
class Policy:
    """When to try again. What is left out means any exception, three tries, no wait.

    Args:
        retry: which failures are tried again, such as ``tenacity.retry_if_exception_type(OSError)``.
        stop: when to give up, such as ``tenacity.stop_after_attempt(5)``.
        wait: seconds before the next attempt, such as ``tenacity.wait_exponential_jitter(1, 60)``.
    """

    retry: Decide | None = None
    stop: Decide | None = None
    wait: Decide | None = None

    @classmethod
    def of(cls, retry: Decide | None, stop: Decide | None, wait: Decide | None, *, node: str) -> Policy | None:
        """The policy that these keywords of a ``Node`` make; None, one attempt, without any of them."""
        given = {"retry": retry, "stop": stop, "wait": wait}
        for keyword, value in given.items():
            if value is not None and not callable(value):
                raise InvalidNode(f"node {node!r}: {keyword}={value!r}; expected one of tenacity's {keyword} objects")
        return cls(retry, stop, wait) if any(value is not None for value in given.values()) else None

    async def retry_in(self, error: BaseException, *, tries: int, first: float, now: float) -> float | None:
        """Seconds until the next attempt; None to give up.

        Args:
            error: what main raised.
            tries: how often it was tried, this attempt included.
            first: when the first attempt began, in Unix seconds.
            now: the present, in Unix seconds.

        Raises:
            Exception: whatever an author's own policy raises.
        """
        import tenacity

        if is_permanent(error):
            return None
        retry = self.retry or tenacity.retry_if_exception_type()
        stop = self.stop or tenacity.stop_after_attempt(DEFAULT_TRIES)
        wait = self.wait or tenacity.wait_none()
        asker = tenacity.AsyncRetrying(retry=retry, stop=stop, wait=wait)
        state = tenacity.RetryCallState(asker, None, (), {})
        state.attempt_number = tries
        state.set_exception((type(error), error, error.__traceback__))
        state.start_time, state.outcome_timestamp = first, now  # of the whole task, not of this process

        # tenacity's own order: stop_before_delay looks at the wait that is to come.
        if not isinstance(error, tenacity.TryAgain) and not await _answer(retry, state):
            return None
        seconds = float(await _answer(wait, state))
        if not durations.is_duration(seconds):
            raise ValueError(f"wait said {seconds}; expected seconds, a number from 0 on and {durations.UP_TO}")
        state.upcoming_sleep = seconds
        return None if await _answer(stop, state) else seconds


def is_permanent(error: BaseException) -> bool:
    """Whether it is a ``Permanent``, or a group with one in it, as ``asyncio.TaskGroup`` raises."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(Permanent) is not None
    return isinstance(error, Permanent)


async def _answer(decide: Decide, state: Any) -> Any:
    answer = decide(state)
    return await answer if inspect.isawaitable(answer) else answer  # tenacity has asynchronous policies too
