"""A limit of memory that the system enforces on a process: a cgroup of its own, of either version, where this machine lets us make one."""

import os
import pathlib
import time

ROOTS = [(pathlib.Path("/sys/fs/cgroup"), "memory.max", "memory.events", "memory.peak"),
         (pathlib.Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.oom_control", "memory.max_usage_in_bytes")]


def place():
    """Where cgroups that limit memory are made, with the names of their files; None if this machine has none for us."""
    for root, *names in ROOTS:
        is_second = names[0] == "memory.max"
        has_memory = "memory" in (root / "cgroup.subtree_control").read_text().split() if is_second and (root / "cgroup.subtree_control").exists() else not is_second
        if has_memory and (root / "cgroup.procs").exists() and os.access(root, os.W_OK):
            return root, *names
    return None


class Limit:
    """A cgroup that may hold so many bytes. Only what a process takes while it is in it is counted."""

    def __init__(self, name, limit_bytes):
        root, limit, self.events, self.peak = place()
        self.path = root / f"seaway-test-{os.getpid()}-{name}"
        self.path.mkdir()
        (self.path / limit).write_text(str(limit_bytes))

    def __enter__(self):
        return self

    def take(self, pid):
        """Takes a process that runs."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def begins(self, command):
        """A command that does what `command` does, within the limit from its first moment on."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.path / "cgroup.procs"), *command]

    def kills(self):
        """How many processes the system has ended for want of memory."""
        told = dict(line.split() for line in (self.path / self.events).read_text().splitlines())
        return int(told.get("oom_kill", 0))

    def most_bytes(self):
        """The most that it held at any time, with the kernel's buffers for it; less what could be given back."""
        return int((self.path / self.peak).read_text())

    def __exit__(self, *_):
        # The kernel is done with a process a moment after it has ended.
        for _ in range(100):
            try:
                return self.path.rmdir()
            except OSError:
                time.sleep(0.05)
        self.path.rmdir()
