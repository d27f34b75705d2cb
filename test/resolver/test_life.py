"""The daemon's life: start, log lines, reload (case 96), end."""

import os
import pwd
import re
import signal
import socket
import subprocess
import threading
import time
import unittest

import suite
import wire
from daemon import PATIENCE, RESOLVER, answer_a, frame, free_port, read_frame
from wire import Message


def corefile(upstream, port=0, log="errors"):
    return f".:{port} {{\n bind 127.0.0.1\n {log}\n forward . {upstream.address} {{\n max_fails 0\n }}\n}}\n"


class Start(suite.Case):
    def test_banner(self):
        upstream = self.upstream()
        text = f"b.test:0 a_b.test:0 {{\n bind 127.0.0.1\n forward . {upstream.address}\n}}\n"
        server = self.daemon(text)
        port = server.port
        self.assertEqual(
            server.lines[:3],
            [
                'Warning: Domain "a_b.test." does not follow RFC1035 preferred syntax',
                f"a_b.test.:{port} on 127.0.0.1",
                f"b.test.:{port} on 127.0.0.1",
            ],
        )
        self.assertRegex(server.lines[3], r"^fwd-resolver-\d")

    def test_quiet(self):
        upstream = self.upstream()
        port = free_port()
        server = self.daemon(corefile(upstream, port), "-quiet", started=False)
        deadline = time.monotonic() + PATIENCE
        reply = None
        while reply is None and time.monotonic() < deadline:
            try:
                reply = server.udp(wire.query("a.test"), port, timeout=1)
            except ConnectionRefusedError:
                pass
        self.assertEqual(Message(reply).rcode, wire.NOERROR)
        self.assertEqual(server.lines, [])

    def test_default_port(self):
        upstream = self.upstream()
        port = free_port()
        text = f". {{\n bind 127.0.0.1\n forward . {upstream.address}\n}}\n"
        server = self.daemon(text, f"--dns.port={port}")
        self.assertEqual(server.port, port)

    def test_port_in_use(self):
        """Another resolver's port is refused, although that one shares it with its own threads."""
        upstream = self.upstream()
        first = self.daemon(corefile(upstream))
        second = self.daemon(corefile(upstream, first.port), started=False)
        self.assertEqual(second.wait(), 1)
        self.assertEqual(
            second.errors, f"listen tcp 127.0.0.1:{first.port}: bind: address already in use\n"
        )

    def test_udp_port_in_use(self):
        upstream = self.upstream()
        port = free_port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", port))
            server = self.daemon(corefile(upstream, port), started=False)
            self.assertEqual(server.wait(), 1)
        self.assertEqual(server.errors, f"listen udp 127.0.0.1:{port}: bind: address already in use\n")

    def test_address_that_is_not_ours(self):
        server = self.daemon(".:0 {\n bind 192.0.2.1\n forward . 127.0.0.1:1\n}\n", started=False)
        self.assertEqual(server.wait(), 1)
        self.assertEqual(server.errors, "listen tcp 192.0.2.1:0: bind: cannot assign requested address\n")

    @unittest.skipUnless(os.geteuid() == 0, "needs root to have something to drop")
    def test_user(self):
        server = self.daemon(corefile(self.upstream()), "-user", "nobody")
        with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
            uids = next(line.split()[1:] for line in status if line.startswith("Uid"))
        self.assertEqual(uids, [str(pwd.getpwnam("nobody").pw_uid)] * 4)
        self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NOERROR)

    def test_unknown_user(self):
        server = self.daemon(corefile(self.upstream()), "-user", "no-such-user", started=False)
        self.assertEqual(server.wait(), 1)
        self.assertEqual(server.errors, "user no-such-user: no such user\n")

    def test_descriptors_up_to_the_hard_limit(self):
        server = self.daemon(corefile(self.upstream()))
        with open(f"/proc/{server.process.pid}/limits", encoding="ascii") as limits:
            soft, hard = next(line.split()[3:5] for line in limits if line.startswith("Max open files"))
        self.assertEqual(soft, hard)

    def test_module_that_is_none(self):
        for path, error in {
            "/no/such/module.so": "cannot load the module",
            "libc.so.6": "cannot load the module",
            "/lib/x86_64-linux-gnu/libc.so.6": "no fwd_module_entry",
        }.items():
            if path.startswith("/lib") and not os.path.exists(path):
                continue
            result = subprocess.run(
                [RESOLVER, "-module", path], capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            self.assertEqual(result.returncode, 1)
            self.assertIn(error, result.stderr)


class Log(suite.Case):
    def line(self, directive, message, tcp=False, answer=answer_a):
        server = self.forwarder(self.upstream(answer), directive)
        (server.tcp if tcp else server.udp)(message)
        return server.wait_line(r"^\[INFO\] ")

    def test_default_format(self):
        self.assertRegex(
            self.line("log", wire.query("Example.ORG", wire.AAAA, ident=29008)),
            r'^\[INFO\] 127\.0\.0\.1:\d+ - 29008 "AAAA IN example\.org\. udp 29 false 512" NOERROR qr,rd,ra 45 0\.\d+s$',
        )

    def test_tcp_with_opt(self):
        message = wire.query("a.test", 65280, additional=[wire.opt(1400, wire.DO)])
        self.assertRegex(
            self.line("log", message, tcp=True),
            r' - 4660 "TYPE65280 IN a\.test\. tcp 35 true 65535" NOERROR qr,rd,ra 51 0\.\d+s$',
        )

    def test_formats(self):
        line = self.line(
            'log . "{common} x{>opcode}{nope} {/forward/upstream} {local} {class}}"', wire.query("a.test")
        )
        self.assertRegex(line, r"0\.\d+s x0{nope} - 127\.0\.0\.1 IN}$")
        self.assertRegex(self.line("log . {combined}", wire.query("a.test")), r'0\.\d+s "0"$')

    def test_name_is_escaped(self):
        message = wire.message(questions=[b'\6a"b\n.c\4test\0\0\1\0\1'])
        self.assertIn(r' a\"b\010\.c.test. ', self.line("log", message))

    def test_scopes_and_classes(self):
        def answer(query):
            request = Message(query)
            if b"\4nope" in query:
                soa = wire.record("test", wire.SOA, bytes(22))
                return wire.message(request.id, wire.QR | 3, [request.questions[0]], authority=[soa])
            if b"\6nodata" in query:
                soa = wire.record("test", wire.SOA, bytes(22))
                return wire.message(request.id, wire.QR, [request.questions[0]], authority=[soa])
            if b"\4fail" in query:
                return wire.message(request.id, wire.QR | 2, [request.questions[0]])
            return answer_a(query)

        server = self.forwarder(
            self.upstream(answer),
            "log a.test {\n class denial\n }\n log b.test c.test {\n class error success\n }\n",
        )
        for qname in ("good.a.test", "nope.a.test", "nodata.a.test", "fail.a.test", "good.b.test", "nope.b.test",
                      "fail.c.test", "good.d.test", "good.xb.test", "good.c.test"):
            server.udp(wire.query(qname))
        server.wait_line(r"^\[INFO\]", 5)
        self.assertEqual(server.stop(), 0)  # with all lines written, in the order in which two threads came to it
        named = [match[1] for match in (re.search(r"IN (\S+)\.test\.", line) for line in server.lines) if match]
        self.assertEqual(sorted(named), ["fail.c", "good.b", "good.c", "nodata.a", "nope.a"])

    def test_failed_query(self):
        server = self.forwarder(
            self.upstream(lambda query: None), "errors\n log", "read_timeout 20ms\n max_connect_attempts 1"
        )
        server.udp(wire.query("A.test", wire.DS))
        error = server.wait_line(r"^\[ERROR\] ")
        self.assertRegex(error, r"^\[ERROR\] plugin/errors: 2 a\.test\. DS: .*i/o timeout")
        log = server.wait_line(r"^\[INFO\] .* SERVFAIL qr,rd 24 0\.")
        self.assertLess(server.lines.index(log), server.lines.index(error))


class Reload(suite.Case):
    """SIGUSR1 (case 96)."""

    def reload(self, server, text, count=1, done="Reloading complete"):
        server.write(text)
        server.signal(signal.SIGUSR1)
        server.wait_line(done, count)

    def test_case_96_new_upstream(self):
        first, second = self.upstream(), self.upstream()
        server = self.daemon(corefile(first))
        server.udp(wire.query("a.test"))
        self.reload(server, corefile(second))
        for i in range(10):
            self.assertEqual(Message(server.udp(wire.query(f"b{i}.test"))).rcode, wire.NOERROR)
        self.assertEqual((len(first.queries), len(second.queries)), (1, 10))

    def test_case_96_broken_corefile_keeps_the_old(self):
        upstream = self.upstream()
        server = self.daemon(corefile(upstream))
        self.reload(server, ". {\n nonsense\n}\n", done="the configuration stays as it was")
        server.wait_line(r"^\[ERROR\] SIGUSR1: .*Corefile:2 - Error during parsing: Unknown directive 'nonsense'")
        self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NOERROR)
        self.reload(server, corefile(upstream))
        self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NOERROR)

    def test_case_96_port_in_use_keeps_the_old(self):
        upstream = self.upstream()
        server = self.daemon(corefile(upstream))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.reload(server, corefile(upstream, taken.getsockname()[1]), done="stays as it was")
        server.wait_line(r"^\[ERROR\] SIGUSR1: listen tcp .*address already in use")
        self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NOERROR)

    def test_case_96_warm_connections_stay(self):
        upstream = self.upstream()
        text = f".:0 {{\n bind 127.0.0.1\n forward . {upstream.address} {{\n force_tcp\n max_fails 0\n }}\n}}\n"
        server = self.daemon(text)
        server.udp(wire.query("a.test"))
        for i in range(5):
            self.reload(server, text + f"# {i}\n", i + 1)
            server.udp(wire.query("a.test"))
        self.assertEqual(len(upstream.queries), 6)
        self.assertEqual(len(upstream.peers), 1)

    def test_case_96_query_in_flight_survives(self):
        release = threading.Event()
        upstream = self.upstream(lambda query: release.wait(PATIENCE) and answer_a(query))
        other = self.upstream()
        server = self.daemon(corefile(upstream))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, server.connect() as stream:
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", server.port))
            client.send(wire.query("a.test"))
            stream.sendall(frame(wire.query("b.test")))
            self.assertTrue(upstream.wait_queries(2))
            self.reload(server, corefile(other))
            self.assertEqual(Message(server.udp(wire.query("c.test"))).rcode, wire.NOERROR)
            release.set()
            self.assertEqual(Message(client.recv(512)).rcode, wire.NOERROR)
            self.assertEqual(Message(read_frame(stream)).rcode, wire.NOERROR)
            stream.sendall(frame(wire.query("d.test")))  # the connection outlives the reload
            self.assertEqual(Message(read_frame(stream)).rcode, wire.NOERROR)
        self.assertEqual(len(other.queries), 2)

    def test_case_96_nothing_lost_over_many_reloads(self):
        for workers in ("1", "3"):
            with self.subTest(workers=workers):
                self.check_many_reloads(workers)

    def check_many_reloads(self, workers):
        upstream = self.upstream()
        server = self.daemon(corefile(upstream), "-workers", workers)
        stop = threading.Event()
        counts = {"udp": 0, "tcp": 0}
        lost = []
        counted = threading.Condition()

        def ask(kind, send):
            while not stop.is_set():
                reply = send(wire.query(f"n{counts[kind]}.test"))
                if reply is None or Message(reply).rcode != wire.NOERROR:
                    lost.append((kind, counts[kind]))
                with counted:
                    counts[kind] += 1
                    counted.notify()

        def wait_counts(before):
            with counted:
                return counted.wait_for(lambda: all(counts[kind] > before[kind] for kind in counts), PATIENCE)

        clients = [
            threading.Thread(target=ask, args=("udp", lambda message: server.udp(message, timeout=5))),
            threading.Thread(target=ask, args=("tcp", server.tcp)),
        ]
        for client in clients:
            client.start()
        answered = True
        for i in range(15):
            before = dict(counts)
            self.reload(server, corefile(upstream) + f"# {i}\n", i + 1)
            answered = wait_counts(before) and answered  # those that meet the reload, not only those before and after all
        stop.set()
        for client in clients:
            client.join()
        self.assertEqual(lost, [])
        self.assertTrue(answered)

    def test_case_96_address_added_and_removed(self):
        upstream = self.upstream()
        base = corefile(upstream)
        server = self.daemon(base)
        port = free_port("127.0.0.2")
        self.reload(server, base + f"x.test:{port} {{\n bind 127.0.0.2\n forward . {upstream.address}\n}}\n")
        conn = server.connect(port, "127.0.0.2")
        with conn:
            conn.sendall(frame(wire.query("a.x.test")))
            self.assertEqual(Message(read_frame(conn)).rcode, wire.NOERROR)
            self.assertEqual(Message(server.udp(wire.query("a.x.test"), port, "127.0.0.2")).rcode, wire.NOERROR)
            self.reload(server, base, 2)
            self.assertEqual(conn.recv(1), b"")  # its address is gone, and it with it
        self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NOERROR)
        self.reload(server, base, 3)  # begins after the drain of the one before, which closes the sockets
        with self.assertRaises(ConnectionRefusedError):
            server.connect(port, "127.0.0.2").close()

    def test_reload_from_stdin_is_possible(self):
        upstream = self.upstream()
        process = subprocess.Popen(
            [RESOLVER, "-conf", "stdin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        process.stdin.write(corefile(upstream))
        process.stdin.close()
        for line in process.stdout:
            if line.startswith("linux/"):
                process.send_signal(signal.SIGUSR1)
            if "Reloading complete" in line:
                break
        process.terminate()
        self.assertEqual(process.wait(PATIENCE), 0)
        process.stdout.close()


class End(suite.Case):
    def test_signals_end_with_0(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.daemon(corefile(self.upstream()))
            server.udp(wire.query("a.test"))
            server.signal(number)
            self.assertEqual(server.process.wait(PATIENCE), 0)

    def test_query_in_flight_is_answered(self):
        release = threading.Event()
        upstream = self.upstream(lambda query: release.wait(PATIENCE) and answer_a(query))
        server = self.daemon(corefile(upstream))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, server.connect() as stream:
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", server.port))
            client.send(wire.query("a.test"))
            stream.sendall(frame(wire.query("b.test")))
            self.assertTrue(upstream.wait_queries(2))
            server.signal(signal.SIGTERM)
            server.wait_line("Shutting down servers")
            release.set()
            self.assertEqual(Message(client.recv(512)).rcode, wire.NOERROR)
            self.assertEqual(Message(read_frame(stream)).rcode, wire.NOERROR)
            self.assertIsNone(read_frame(stream))
        self.assertEqual(server.process.wait(PATIENCE), 0)

    def test_mute_upstream_does_not_hold_it_up(self):
        upstream = self.upstream(lambda query: None)
        server = self.daemon(corefile(upstream))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", server.port))
            client.send(wire.query("a.test"))
            self.assertTrue(upstream.wait_queries(1))
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(PATIENCE), 0)
            self.assertLess(time.monotonic() - began, 5)
            client.settimeout(PATIENCE)
            self.assertEqual(Message(client.recv(512)).rcode, wire.SERVFAIL)


if __name__ == "__main__":
    suite.run()
