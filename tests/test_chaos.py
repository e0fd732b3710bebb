"""The short form of `make chaos`: a few kills, and the same questions."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_after_kills_under_a_faulty_exchange_no_bar_and_no_signal_is_lost_doubled_or_different(
    project_root: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/chaos.py", "--kills", "5", "--seed", "3"),
            *("--pause", "0.7", "--speed", "60", "--days", "2"),
        ],
        cwd=project_root,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("closed bars lost", "signals lost", "signals other than the batch's"):
        found = re.search(rf"^{name} +0 of (\d+) +0 +ok$", done.stdout, re.MULTILINE)
        assert found, done.stdout
        assert int(found[1]) > 0
    assert "WRONG" not in done.stdout
