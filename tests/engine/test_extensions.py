"""A build that was killed does not stop later runs."""

import subprocess
import sys

from di4c.engine.extensions import own_folder

SCRIPT = "from di4c.engine.extensions import load_communication_operator; load_communication_operator(); print('loaded')"


def test_a_stale_mark_of_a_killed_build_is_removed():
    build = own_folder() / "deepspeed_shm_comm"
    build.mkdir(parents=True, exist_ok=True)
    (build / "lock").touch()
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0 and "loaded" in done.stdout, done.stderr
    assert not (build / "lock").exists()
