import subprocess
import sys

TELL = "from trainer.resident import peak_resident_mb; print(peak_resident_mb())"
GROW_AND_TELL = f"grown = b'x' * (128 * 2**20); del grown; {TELL}"


def told_by(script: str) -> float:
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def test_the_peak_is_of_the_process_and_not_of_the_one_that_started_it():
    """Seen to fail with `ru_maxrss`, which a process inherits from the one that starts it."""
    ballast = b"x" * (256 * 2**20)
    assert told_by(TELL) < len(ballast) / 2**20


def test_the_peak_stays_when_the_memory_is_given_back():
    assert told_by(GROW_AND_TELL) > told_by(TELL) + 120
