"""The short form of `make soak`."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_ten_minutes_at_sixty_times_the_speed_lose_nothing(project_root: Path) -> None:
    command = ["benchmarks/soak.py", "--minutes", "10", "--symbols", "2"]
    done = subprocess.run(
        [sys.executable, *command], cwd=project_root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
