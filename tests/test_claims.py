import os
import subprocess
import sys
import threading

import pytest

from tests.claims import claimed


class Item:
    def __init__(self, path, name):
        self.path, self.name = path, name


def test_every_item_is_claimed_once_and_a_file_stays_whole(tmp_path):
    items = [Item(f"f{k // 3}", k) for k in range(30)]
    got = [[], [], []]

    def run(place):
        got[place] = [item.name for item in claimed(items, tmp_path, place, 3)]

    threads = [threading.Thread(target=run, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for names in got for number in names) == list(range(30))
    for names in got:
        assert [name // 3 for name in names[::3]] == [name // 3 for name in names[2::3]]  # whole files


@pytest.mark.parametrize("place", ["0/2", "1/2"])
def test_a_process_runs_what_is_left_to_it(tmp_path, place):
    """With one of the two files taken, the other's two tests run, and a failure ends in status 1."""
    for name in "ab":
        text = f"def test_passes():\n    pass\n\ndef test_{name}():\n    assert {name!r} == 'a'\n"
        (tmp_path / f"test_{name}.py").write_text(text)
    (tmp_path / "conftest.py").write_text("from tests.claims import run_claimed as pytest_runtestloop\n")
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "0").touch()
    environment = os.environ | {"TEST_CLAIMS": str(tmp_path / "claims"), "TEST_PLACE": place}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
