"""A relay in front of a process, which can fall silent: whoever has a connection keeps it, whoever wants one waits, and nothing comes
through. It falls silent for all, or for one process that calls."""

import functools
import pathlib
import socket
import threading
import time


def calls_from(pid, port):
    """Whether a socket of the process is bound to this port of the loopback address."""
    local = f"0100007F:{port:04X}"
    inodes = {fields[9] for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:] if (fields := line.split())[1] == local}
    for descriptor in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]") in inodes - {"0"}:
                return True
        except FileNotFoundError:  # it was closed meanwhile
            pass
    return False


class Relay:
    def __init__(self, port):
        """Relays to a port of this machine; where it listens itself is in `port`."""
        self.target = ("127.0.0.1", port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.passes = threading.Event()
        self.passes.set()
        self.cut = None
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            caller, _ = self.listener.accept()
            threading.Thread(target=self.join, args=(caller,), daemon=True).start()

    def cut_off(self, pid):
        """Nothing of this process comes through any more; None lets all through again."""
        self.cut = pid

    def join(self, caller):
        is_of = functools.cache(functools.partial(calls_from, port=caller.getpeername()[1]))
        self.wait(is_of)
        try:
            process = socket.create_connection(self.target)
        except OSError:  # nobody listens there
            caller.close()
            return
        threading.Thread(target=self.pump, args=(process, caller, is_of), daemon=True).start()
        self.pump(caller, process, is_of)

    def wait(self, is_of):
        """Until something may come through over a connection; `is_of` says whether a process made it."""
        self.passes.wait()
        while self.cut is not None and is_of(self.cut):
            time.sleep(0.02)

    def pump(self, source, sink, is_of):
        try:
            while data := source.recv(1 << 16):
                self.wait(is_of)
                sink.sendall(data)
        except OSError:  # either end is gone
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:  # it was closed before
                pass
