"""`tapehouse serve` by a clock that a test moves: ``python tests/serving_process.py DIRECTORY``.

The file ``clock`` of the directory holds epoch microseconds; ``ready`` gets the number of loops
that have begun, and ``told`` a line of JSON for each signal that is announced.
"""

import sys
from datetime import datetime, timedelta
from pathlib import Path

import orjson

from ingest.service_settings import Services
from ingest.settings import Settings
from serving.loop import Loop, Signal
from serving.serve import serve


def main() -> None:
    directory = Path(sys.argv[1])
    loops: list[Loop] = []

    def clock() -> datetime:
        return datetime(1970, 1, 1) + timedelta(microseconds=int((directory / "clock").read_text()))

    def ready(loop: Loop) -> None:
        loops.append(loop)
        (directory / "ready").write_text(str(len(loops)))

    with (directory / "told").open("ab", buffering=0) as told:

        def announce(signal: Signal) -> None:
            told.write(orjson.dumps(signal) + b"\n")

        serve(
            Settings(),
            services=Services(),
            announce=announce,
            clock=clock,
            ready=ready,
            promotions_s=0.1,
        )


if __name__ == "__main__":
    main()
