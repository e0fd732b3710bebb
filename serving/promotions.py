"""Promotions while the loop runs: who is asked follows the registry, without a restart."""

import threading
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

import duckdb

from ingest import logs, warehouse
from ingest.settings import Settings
from ml.registry import ModelMissingError
from serving.manifest import CompilationError
from serving.models import Local
from serving.plan import UnboundedError
from serving.prepare import Prepared, prepare, state
from serving.scoring import NotReadyError

#: How often the registry is looked at.
EVERY_S = 30.0
_log = logs.logger("loop")


class Promotions:
    """Looks at the registry from a thread of its own, and prepares what was promoted.

    A warehouse that is held is looked at the next time. What cannot be prepared is logged, and
    those who were asked before go on being asked.

    Parameters
    ----------
    settings : Settings
        Names the warehouse.
    local : Local
        Gets the models that are new.
    known : str
        The state that the loop began with.
    adopt : callable
        Told what to go on with.
    clock : callable
        Gives the time, naive UTC.
    every_s : float
        Seconds between two looks.
    """

    def __init__(
        self,
        settings: Settings,
        local: Local,
        known: str,
        *,
        adopt: Callable[[Prepared], None],
        clock: Callable[[], datetime],
        every_s: float = EVERY_S,
    ) -> None:
        self._settings = settings
        self._local = local
        self._known = known
        self._adopt = adopt
        self._clock = clock
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="promotions", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self.look()

    def look(self) -> None:
        """Prepare what the registry says now, if that is something else than before."""
        found = self._known
        try:
            found = state(self._settings)
            if found == self._known:
                return
            timeout_s = self._settings.writer_timeout_s
            prepared = prepare(self._settings, now=self._clock(), timeout_s=timeout_s)
            self._local.add(prepared.asked)
        except (warehouse.WarehouseBusyError, warehouse.WarehouseMissingError):
            return
        except (
            *(NotReadyError, ModelMissingError, UnboundedError, CompilationError),
            *(ValueError, OSError, duckdb.Error),
        ) as error:
            _log.error("not taken up", error=str(error))
            self._known = found
            return
        self._known = prepared.state
        self._adopt(prepared)
