"""log with metadata and CoreDNS's typing of answers; errors with consolidate."""

import signal
import struct
import time

import suite
import wire
from daemon import answer_a, validate
from wire import Message

DEAD = "read_timeout 20ms\n max_connect_attempts 1"


def reply(query, rcode=0, answers=(), authority=(), additional=(), opcode=0):
    request = Message(query)
    return wire.message(request.id, wire.QR | opcode << 11 | rcode, [request.questions[0]], answers, authority, additional)


def rrsig(begin, end):
    return wire.record(b"\xc0\x0c", 46, struct.pack("!HBBIIIH", 1, 8, 2, 60, end, begin, 7) + b"\0sig")


class Metadata(suite.Case):
    def line(self, format, answer=answer_a, directives="metadata", options="", message=None):
        server = self.forwarder(self.upstream(answer), f'{directives}\n log . "{format}"', options)
        server.udp(message or wire.query("a.test"))
        return server.wait_line(r"^\[INFO\] ")

    def test_case_59_upstream(self):
        upstream = self.upstream()
        server = self.forwarder(upstream, 'metadata\n log . "{/forward/upstream} {/log/type} {/log/class} {/no/such}"')
        server.udp(wire.query("a.test"))
        self.assertEqual(server.wait_line(r"^\[INFO\]"), f"[INFO] {upstream.address} NOERROR success -")

    def test_case_59_upstream_of_a_failure(self):
        self.assertRegex(
            self.line("{/forward/upstream} {rcode} {/log/type}", lambda query: None, options=DEAD),
            r"^\[INFO\] 127\.0\.0\.1:\d+ SERVFAIL SERVERERROR$",
        )

    def test_without_metadata(self):
        self.assertEqual(self.line("{/forward/upstream} {/log/class}", directives="errors"), "[INFO] - -")
        self.assertEqual(self.line("{/forward/upstream}", directives="metadata b.test"), "[INFO] -")
        self.assertRegex(self.line("{/forward/upstream}", directives="metadata b.test test"), r"^\[INFO\] 127")

    def test_every_zone_of_the_block(self):
        upstream = self.upstream()
        server = self.daemon(
            f'a.test:0 b.test:0 {{\n bind 127.0.0.1\n metadata\n log . "{{name}} {{/forward/upstream}}"\n forward . {upstream.address}\n}}\n'
        )
        for qname in ("x.a.test", "x.b.test"):
            server.udp(wire.query(qname))
            server.wait_line(rf"^\[INFO\] {qname}\. {upstream.address}$")

    def test_types_and_classes(self):
        soa, ns = wire.record("test", wire.SOA, bytes(22)), wire.record("test", wire.NS, b"\1n\0")
        a = wire.record(b"\xc0\x0c", wire.A, bytes(4))
        now = int(time.time())
        do = [wire.opt(4096, wire.DO)]
        for expected, answer in {
            "NOERROR success": lambda q: reply(q),
            "NODATA denial": lambda q: reply(q, authority=[ns, soa]),
            "DELEGATION success": lambda q: reply(q, authority=[ns]),
            "NXDOMAIN denial": lambda q: reply(q, 3, authority=[soa]),
            "SERVERERROR error": lambda q: reply(q, 4),
            "OTHERERROR error": lambda q: reply(q, 5),
            "OTHERERROR error ": lambda q: reply(q, 3, [a]),
            "OTHERERROR error  ": lambda q: reply(q, 0, [a, rrsig(now - 200, now - 100)], additional=do),
            "OTHERERROR error   ": lambda q: reply(q, 0, [a, rrsig(now + 100, now + 200)], additional=do),
            "NOERROR success ": lambda q: reply(q, 0, [a, rrsig(now - 100, now + 100)], additional=do),
            "NOERROR success  ": lambda q: reply(q, 0, [a, rrsig(now - 200, now - 100)]),
        }.items():
            message = wire.query("a.test", additional=[wire.opt(1232, wire.DO)] if "  " in expected else [])
            self.assertEqual(self.line("{/log/type} {/log/class}", answer, message=message), "[INFO] " + expected.strip())
        line = self.line("{/log/type}", message=wire.query("a.test", 252))
        self.assertEqual(line, "[INFO] META")

    def test_refused_lines(self):
        for directive, error in {
            "metadata {\n x\n }": "plugin/metadata: /dev/stdin:3 - Error during parsing: Wrong argument count or unexpected line ending after 'x'",
            "log {\n class some\n }": "plugin/log: invalid Class: some",
            "log {\n class\n }": "Wrong argument count or unexpected line ending after 'class'",
            "log {\n classes all\n }": "unknown property 'classes'",
        }.items():
            result = validate(f". {{\n {directive}\n forward . 127.0.0.1\n}}\n")
            self.assertEqual(result.returncode, 1, directive)
            self.assertIn(error, result.stderr)


@suite.needs("consolidate")
class Consolidate(suite.Case):
    def failing(self, block, count=3):
        server = self.forwarder(self.upstream(lambda query: None), f"errors {{\n {block}\n }}", DEAD)
        for i in range(count):
            self.assertEqual(Message(server.udp(wire.query(f"q{i}.test"))).rcode, wire.SERVFAIL)
        return server

    def test_counted_together(self):
        server = self.failing('consolidate 1s ".* i/o timeout.*"')
        server.wait_line(r"^\[ERROR\] plugin/errors: 3 errors like '\.\* i/o timeout\.\*' occurred in last 1s$")
        self.assertFalse([line for line in server.lines if "SERVFAIL" in line or ".test." in line])

    def test_first_shown_at_its_level(self):
        server = self.failing('consolidate 1s "timeout" warning show_first')
        server.wait_line(r"^\[WARNING\] plugin/errors: 2 q0\.test\. A: .*i/o timeout")
        server.wait_line(r"^\[WARNING\] plugin/errors: 3 errors like 'timeout' occurred in last 1s$")
        self.assertEqual(len([line for line in server.lines if ".test." in line]), 1)

    def test_single_first_is_not_repeated(self):
        server = self.failing("consolidate 100ms timeout show_first", 1)
        server.wait_line(r"q0\.test\.")
        self.assertEqual(server.stop(), 0)
        self.assertFalse([line for line in server.lines if "errors like" in line])

    def test_others_are_written(self):
        server = self.failing("stacktrace\n consolidate 1h refused\n consolidate 1h ^no")
        for i in range(3):
            server.wait_line(rf"^\[ERROR\] plugin/errors: 2 q{i}\.test\. A: ")

    def test_written_at_the_end(self):
        server = self.failing("consolidate 1h timeout info")
        self.assertEqual(server.stop(), 0)
        self.assertIn("[INFO] plugin/errors: 3 errors like 'timeout' occurred in last 1h0m0s", server.lines)

    def test_reload_writes_what_was_counted(self):
        server = self.failing("consolidate 1h timeout info")
        server.signal(signal.SIGUSR1)
        server.wait_line(r"^\[INFO\] plugin/errors: 3 errors like 'timeout' occurred in last 1h0m0s$")

    def test_go_syntax(self):
        server = self.failing(r'consolidate 1s "(?i)I/O\s+TIMEOUT after \d+"')
        server.wait_line(r"plugin/errors: 3 errors like")

    def test_refused(self):
        at = "plugin/errors: /dev/stdin:3 - Error during parsing: "
        for option, error in {
            "consolidate": at + "Wrong argument count or unexpected line ending after 'consolidate'",
            "consolidate 1s": at + "Wrong argument count or unexpected line ending after '1s'",
            "consolidate 1s a warning show_first x": at + "Wrong argument count or unexpected line ending after 'x'",
            "consolidate 1 a": at + 'time: missing unit in duration "1"',
            "consolidate 1s a warning error": at + "multiple log levels specified in consolidate",
            "consolidate 1s a show_first error": at + "log level must come before show_first in consolidate",
            "consolidate 1s a loud": at + "unknown option in consolidate: loud",
            "consolidate 1s " + "a" * 10001: at + "regex pattern too long: 10001 > 10000",
            "other": "plugin/errors: /dev/stdin:3 - Syntax error: Unexpected token 'other', expecting 'Unknown field other'",
        }.items():
            result = validate(f". {{\n errors {{\n {option}\n }}\n forward . 127.0.0.1\n}}\n")
            self.assertEqual((result.returncode, result.stderr), (1, error + "\n"))
        result = validate(". {\n errors {\n consolidate 1s (a\n }\n forward . 127.0.0.1\n}\n")
        self.assertRegex(result.stderr, r"error parsing regexp: .*: `\(a`\n$")


if __name__ == "__main__":
    suite.run()
