"""The daemon under test and the upstreams that it forwards to, over real sockets on ports of the kernel's choice."""

import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading

import wire

RESOLVER = os.environ["FWD_RESOLVER"]
PATIENCE = 20 * int(os.environ.get("FWD_PATIENCE", "1"))  # seconds that nothing may take, also under a sanitizer


def answer_a(query):
    """What most tests want from an upstream: one A record, and an OPT if the query has one."""
    request = wire.Message(query)
    extra = [wire.opt(4096)] if request.opt else []
    return wire.message(
        request.id,
        wire.QR | wire.RA | (request.flags & (wire.RD | 15 << 11)),
        [request.questions[0]],
        [wire.record(b"\xc0\x0c", wire.A, b"\xc0\0\2\1")],
        additional=extra,
    )


def same_port():
    """A UDP and a listening TCP socket on one port; the kernel knows only one of the two to be free."""
    while True:
        tcp = socket.create_server(("127.0.0.1", 0), backlog=64)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
            return udp, tcp
        except OSError:
            udp.close()
            tcp.close()


def free_port(host="127.0.0.1"):
    """A port that is free over UDP and TCP, for a program that is told a number. It lies below those that the kernel gives out, so that nobody gets
    it by chance before the program binds it."""
    while True:
        port = random.randrange(10240, 32768)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                udp.bind((host, port))
                socket.create_server((host, port)).close()
                return port
            except OSError:
                pass


class Upstream:
    """Answers each query with what `answer(query)` returns: one message, a list of them, or None."""

    def __init__(self, answer=answer_a):
        self.answer = answer
        self.queries = []
        self.peers = set()
        self.changed = threading.Condition()
        self.closed = False
        self.udp, self.tcp = same_port()
        self.port = self.tcp.getsockname()[1]
        self.conns = []
        for target in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=target, daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def note(self, query, peer):
        with self.changed:
            self.queries.append(query)
            self.peers.add(peer)
            self.changed.notify_all()
        replies = self.answer(query)
        return replies if isinstance(replies, list) else [replies]

    def wait_queries(self, count):
        with self.changed:
            return self.changed.wait_for(lambda: len(self.queries) >= count, PATIENCE)

    def serve_udp(self):
        while True:
            try:
                query, peer = self.udp.recvfrom(65535)
            except OSError:
                return
            if self.closed:
                return
            for reply in self.note(query, ("udp", peer)):
                if reply is not None:
                    self.udp.sendto(reply, peer)

    def serve_tcp(self):
        while True:
            try:
                conn, peer = self.tcp.accept()
            except OSError:
                return
            self.conns.append(conn)
            threading.Thread(target=self.serve_conn, args=(conn, peer), daemon=True).start()

    def serve_conn(self, conn, peer):
        try:
            while (query := read_frame(conn)) is not None:
                for reply in self.note(query, ("tcp", peer)):
                    if reply is not None:
                        conn.sendall(frame(reply))
        except OSError:
            pass

    def close(self):
        self.closed = True
        for sock in (self.udp, self.tcp, *self.conns):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()


def frame(message):
    return struct.pack("!H", len(message)) + message


def read_exactly(conn, count):
    data = b""
    while len(data) < count:
        piece = conn.recv(count - len(data))
        if not piece:
            return None
        data += piece
    return data


def read_frame(conn):
    head = read_exactly(conn, 2)
    return read_exactly(conn, struct.unpack("!H", head)[0]) if head else None


class Daemon:
    """fwd-resolver on a Corefile. Server blocks are to use port 0; `ports` then holds (zone, host) -> port."""

    def __init__(self, corefile, *arguments, env=None, started=True):
        self.directory = tempfile.TemporaryDirectory()
        self.conf = os.path.join(self.directory.name, "Corefile")
        self.write(corefile)
        self.lines = []
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            [RESOLVER, "-workers", "3", "-conf", self.conf, *arguments],  # whatever the machine has
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.errors = ""
        self.readers = [threading.Thread(target=t, daemon=True) for t in (self.read_out, self.read_err)]
        for reader in self.readers:
            reader.start()
        self.ports = {}
        if started:
            self.wait_line(r"^linux/")
            for line in self.lines:
                if match := re.match(r"^(\S+):(\d+)(?: on (\S+))?$", line):
                    self.ports[match[1], match[3]] = int(match[2])
            self.port = next(iter(self.ports.values()))

    def write(self, corefile):
        with open(self.conf, "w", encoding="utf-8") as file:
            file.write(corefile)

    def read_out(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()

    def read_err(self):
        self.errors = self.process.stderr.read()
        with self.changed:
            self.changed.notify_all()

    def wait_line(self, pattern, count=1):
        """The count-th line that matches; fails when the daemon ends or takes too long."""
        found = lambda: [line for line in self.lines if re.search(pattern, line)]
        with self.changed:
            self.changed.wait_for(
                lambda: len(found()) >= count or self.process.poll() is not None, PATIENCE
            )
            if len(found()) < count:
                raise AssertionError(f"no line {pattern!r} in {self.lines}, stderr {self.errors!r}")
            return found()[count - 1]

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        status = self.process.wait(PATIENCE)
        for reader in self.readers:
            reader.join(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()
        self.directory.cleanup()
        return status

    def stop(self):
        """Ends the daemon; returns its exit status. What a sanitizer found goes to stderr and into the status."""
        if self.process.stdout.closed:
            return self.process.returncode
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        status = self.wait()
        if status != 0:
            print(self.errors, file=sys.stderr)
        return status

    def udp(self, message, port=None, host="127.0.0.1", timeout=PATIENCE):
        """The reply's octets, None when none comes within timeout."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            sock.connect((host, port or self.port))
            sock.send(message)
            try:
                return sock.recv(65535)
            except TimeoutError:
                return None

    def connect(self, port=None, host="127.0.0.1"):
        conn = socket.create_connection((host, port or self.port), PATIENCE)
        conn.settimeout(PATIENCE)
        return conn

    def tcp(self, message, port=None):
        with self.connect(port) as conn:
            conn.sendall(frame(message))
            return read_frame(conn)


def validate(corefile, *arguments, env=None, cwd=None):
    """Runs -validate on text given on stdin."""
    return subprocess.run(
        [RESOLVER, "-validate", "-conf", "stdin", *arguments],
        input=corefile,
        capture_output=True,
        text=not isinstance(corefile, bytes),
        timeout=PATIENCE,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        check=False,
    )
