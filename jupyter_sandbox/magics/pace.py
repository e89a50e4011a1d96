"""How fast output may be published, so that none of it is lost on its way to the front end.

A kernel publishes on a ZMQ PUB socket, which drops what a subscriber has not taken when 1000 messages wait for it
(``ZMQ_SNDHWM``, zmq_socket(7)), and says nothing. A cell of its own is slowed down by making its messages; relaying
ready ones is faster than most subscribers read.
"""

from __future__ import annotations

import time
from collections.abc import Callable

BURST = 500
"""Messages that may go out at once: half of what the socket holds."""

RATE = 2000.0
"""Messages a second after that; jupyter_client reads several thousand."""

_BATCH = 50


class Pace:
    """A token bucket; one token is one published message.

    Parameters
    ----------
    clock, sleep:
        For tests; seconds.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._tokens = float(BURST)
        self._filled_at = clock()

    def step(self) -> None:
        """Wait, if need be, before one more message is published."""
        now = self._clock()
        self._tokens = min(BURST, self._tokens + (now - self._filled_at) * RATE)
        self._filled_at = now
        self._tokens -= 1
        if self._tokens < 0:
            # A subscriber tells nobody how far it has read: there is no event to wait for.
            self._sleep(_BATCH / RATE)
