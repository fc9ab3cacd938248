"""A relay in front of a process, which can fall silent: whoever has a connection keeps it, whoever wants one waits, and nothing comes
through."""

import socket
import threading


class Relay:
    def __init__(self, port):
        """Relays to a port of this machine; where it listens itself is in `port`."""
        self.target = ("127.0.0.1", port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.passes = threading.Event()
        self.passes.set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            caller, _ = self.listener.accept()
            threading.Thread(target=self.join, args=(caller,), daemon=True).start()

    def join(self, caller):
        self.passes.wait()
        try:
            process = socket.create_connection(self.target)
        except OSError:  # nobody listens there
            caller.close()
            return
        threading.Thread(target=self.pump, args=(process, caller), daemon=True).start()
        self.pump(caller, process)

    def pump(self, source, sink):
        try:
            while data := source.recv(1 << 16):
                self.passes.wait()
                sink.sendall(data)
        except OSError:  # either end is gone
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:  # it was closed before
                pass
