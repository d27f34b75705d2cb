"""Clients over TCP (RFC 7766): pipelining, order, limits, and ends of connections."""

import socket
import struct
import threading
import time

import suite
import wire
from daemon import PATIENCE, answer_a, frame, read_frame
from wire import Message


class Stream(suite.Case):
    def test_pipelined_in_one_segment(self):
        server = self.forwarder()
        with server.connect() as conn:
            conn.sendall(b"".join(frame(wire.query(f"n{i}.test", ident=i)) for i in range(50)))
            idents = sorted(Message(read_frame(conn)).id for _ in range(50))
        self.assertEqual(idents, list(range(50)))

    def test_octet_by_octet(self):
        server = self.forwarder()
        with server.connect() as conn:
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in frame(wire.query("a.test")) * 2:
                conn.sendall(bytes([octet]))
            for _ in range(2):
                self.assertEqual(Message(read_frame(conn)).rcode, wire.NOERROR)

    def test_length_and_message_apart(self):
        """With Nagle's algorithm on the message leaves when the length has been acknowledged; to a new connection no kernel puts that off."""
        server = self.forwarder()
        took = []
        with server.connect() as conn:
            message = wire.query("a.test")
            for _ in range(40):
                start = time.monotonic()
                conn.sendall(struct.pack("!H", len(message)))
                conn.sendall(message)
                self.assertEqual(Message(read_frame(conn)).rcode, wire.NOERROR)
                took.append(time.monotonic() - start)
        self.assertLess(min(took[-5:]), 0.035)

    def test_answers_come_in_any_order(self):
        release = threading.Event()

        def answer(query):
            if b"slow" in query:
                release.wait(PATIENCE)
            return answer_a(query)

        slow, fast = self.upstream(answer), self.upstream()
        server = self.daemon(
            f"slow.test:0 {{\n bind 127.0.0.1\n forward . {slow.address}\n}}\n"
            f"fast.test:0 {{\n bind 127.0.0.1\n forward . {fast.address}\n}}\n"
        )
        with server.connect() as conn:
            conn.sendall(frame(wire.query("slow.test", ident=1)))
            self.assertTrue(slow.wait_queries(1))
            conn.sendall(frame(wire.query("fast.test", ident=2)))
            self.assertEqual(Message(read_frame(conn)).id, 2)
            release.set()
            self.assertEqual(Message(read_frame(conn)).id, 1)

    def test_half_closed_client_gets_its_answers(self):
        server = self.forwarder()
        with server.connect() as conn:
            conn.sendall(frame(wire.query("a.test", ident=1)) + frame(wire.query("b.test", ident=2)))
            conn.shutdown(socket.SHUT_WR)
            self.assertEqual(sorted(Message(read_frame(conn)).id for _ in range(2)), [1, 2])
            self.assertIsNone(read_frame(conn))

    def test_client_that_leaves_with_queries_in_flight(self):
        release = threading.Event()
        upstream = self.upstream(lambda query: release.wait(PATIENCE) and answer_a(query))
        server = self.forwarder(upstream)
        for _ in range(20):
            conn = server.connect()
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            conn.sendall(frame(wire.query("a.test")))
            self.assertTrue(upstream.wait_queries(1))
            conn.close()
        release.set()
        self.assertEqual(Message(server.udp(wire.query("b.test"))).rcode, wire.NOERROR)

    def test_more_queries_than_are_let_in_at_once(self):
        """256 in flight stop the reading; none is lost, and UDP clients are served meanwhile."""
        count = 1000
        server = self.forwarder()
        with server.connect() as conn:
            sender = threading.Thread(
                target=lambda: conn.sendall(
                    b"".join(frame(wire.query(f"n{i}.test", ident=i)) for i in range(count))
                )
            )
            sender.start()
            idents = {Message(read_frame(conn)).id for _ in range(count)}
            sender.join()
        self.assertEqual(len(idents), count)

    def test_reader_that_does_not_read(self):
        """Answers pile up to a limit, then the connection ends; the daemon stays small and serves others."""

        def answer(query):
            request = Message(query)
            record = wire.record(b"\xc0\x0c", wire.TXT, b"\xff" + b"x" * 255)
            return wire.message(request.id, wire.QR, [request.questions[0]], [record] * 200)

        server = self.forwarder(self.upstream(answer))
        conn = socket.socket()
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        conn.settimeout(2)
        conn.connect(("127.0.0.1", server.port))
        with conn:
            try:
                for i in range(400):
                    conn.sendall(frame(wire.query("a.test", wire.TXT, ident=i)))
            except OSError:
                pass  # no longer read, or closed: both are right
            self.assertEqual(Message(server.udp(wire.query("b.test"))).rcode, wire.NOERROR)
            with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
                resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
            self.assertLess(resident, 400 * 1024)

    def test_rejected_messages_keep_the_connection(self):
        server = self.forwarder()
        with server.connect() as conn:
            conn.sendall(frame(b"\0\1\2") + frame(wire.query("a.test", flags=wire.QR)) + frame(wire.message()))
            self.assertEqual(Message(read_frame(conn)).rcode, wire.FORMERR)
            conn.sendall(frame(wire.query("a.test")))
            self.assertEqual(Message(read_frame(conn)).rcode, wire.NOERROR)

    def test_large_query(self):
        """More than a record of the slab holds (and more than a datagram's buffer)."""
        seen = []
        upstream = self.upstream(lambda query: seen.append(len(query)) or answer_a(query))
        server = self.forwarder(upstream)
        padding = wire.opt(options=wire.option(12, bytes(20000)))
        reply = Message(server.tcp(wire.query("a.test", additional=[padding])))
        self.assertEqual(reply.rcode, wire.NOERROR)
        self.assertGreater(seen[0], 20000)

    def test_idle_connections_are_closed(self):
        """10 s without a query end a connection, as CoreDNS has it."""
        server = self.forwarder()
        with server.connect() as conn:
            conn.sendall(frame(wire.query("a.test")))
            self.assertEqual(Message(read_frame(conn)).rcode, wire.NOERROR)
            conn.settimeout(PATIENCE + 10)
            self.assertEqual(conn.recv(1), b"")

    def test_message_that_never_ends(self):
        server = self.forwarder()
        with server.connect() as conn:
            conn.sendall(b"\0\x40half")
            conn.settimeout(PATIENCE + 10)
            self.assertEqual(conn.recv(1), b"")


if __name__ == "__main__":
    suite.run()
