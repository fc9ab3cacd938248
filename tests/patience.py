"""A clock for deadlines, so that no verdict depends on an idle machine: time for which processes wait for a processor
counts a third (Linux pressure stall information). It is not less, since a server that spins makes others wait too: whatever hangs
is noticed after three times its deadline on a wall clock. Where the kernel does not tell, nobody knows whether the machine is busy,
and all time counts a third."""

import time

PRESSURE = "/proc/pressure/cpu"
STALLED_COUNTS = 1 / 3


def stalled_s():
    """Seconds since boot for which at least one runnable process had no processor; None if the kernel does not tell."""
    try:
        with open(PRESSURE, encoding="ascii") as told:
            return int(told.readline().rsplit("total=", 1)[1]) / 1e6
    except (OSError, IndexError, ValueError):
        return None


def now_s():
    """Seconds that never go back, and go slower while the machine has less to give than is asked of it."""
    stalled = stalled_s()
    if stalled is None:
        return time.monotonic() * STALLED_COUNTS
    return time.monotonic() - (1 - STALLED_COUNTS) * stalled


def sleep(seconds):
    """Lets these seconds pass: time for others to do something that takes a processor."""
    until = now_s() + seconds
    while now_s() < until:
        time.sleep(0.05)


def wall_s(seconds):
    """The longest that these seconds can take on a wall clock, which is the one that sockets and processes are waited for by."""
    return seconds / STALLED_COUNTS
