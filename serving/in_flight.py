"""Single queries that are being answered."""

import asyncio
from contextlib import suppress


class InFlight:
    """Counts queries, each for as long as it is entered, and lets them go first.

    Attributes:
        count: Queries that are being answered now.
    """

    def __init__(self) -> None:
        self.count = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self.count += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if not self.count:
            self._none.set()

    async def go_first(self, patience_s: float) -> None:
        """Return once no query is in flight, or after so many seconds."""
        if self.count:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._none.wait()
