"""What a client gets back over UDP: corner cases 91 to 94."""

import unittest

import suite
import wire
from daemon import answer_a
from wire import Message


class Header(suite.Case):
    """The accept policy on the 12-octet header (cases 91, 92)."""

    def setUp(self):
        self.server = self.forwarder()

    def reject(self, message, flags):
        reply = self.server.udp(message)
        self.assertEqual(len(reply), 12)
        self.assertEqual(Message(reply).flags, flags)
        self.assertEqual(reply[:2], message[:2])

    def test_case_92_no_question(self):
        self.reject(wire.message(), wire.QR | wire.RD | wire.FORMERR)

    def test_case_92_two_questions(self):
        self.reject(wire.message(questions=[wire.question("a.test")] * 2), wire.QR | wire.RD | wire.FORMERR)

    def test_case_92_two_answers(self):
        record = wire.record("a.test", wire.A, b"\1\2\3\4")
        self.reject(
            wire.message(questions=[wire.question("a.test")], answers=[record] * 2),
            wire.QR | wire.RD | wire.FORMERR,
        )

    def test_case_92_three_additional(self):
        self.reject(wire.query("a.test", additional=[wire.opt()] * 3), wire.QR | wire.RD | wire.FORMERR)

    def test_case_92_opcode_update(self):
        self.reject(wire.query("a.test", flags=5 << 11 | wire.RD), wire.QR | 5 << 11 | wire.RD | wire.NOTIMP)

    def test_case_92_silence(self):
        for message in (wire.query("a.test", flags=wire.QR), b"\x12\x34\1\0", b""):
            self.assertIsNone(self.server.udp(message, timeout=0.3))
        self.assertEqual(Message(self.server.udp(wire.query("a.test"))).rcode, wire.NOERROR)

    def test_case_92_undecodable_body(self):
        message = wire.query("a.test", additional=[wire.opt()])[:-1]
        reply = Message(self.server.udp(message))
        self.assertEqual((reply.rcode, reply.counts), (wire.FORMERR, [1, 0, 0, 0]))
        self.assertEqual(reply.questions, [wire.question("a.test")])

    def test_case_92_undecodable_question(self):
        reply = Message(self.server.udp(wire.query("a.test")[:-3]))
        self.assertEqual((reply.rcode, reply.counts), (wire.FORMERR, [0, 0, 0, 0]))

    def test_case_91_notify_is_let_in(self):
        reply = Message(self.server.udp(wire.query("a.test", wire.SOA, flags=4 << 11)))
        self.assertEqual(reply.rcode, wire.NOERROR)

    def test_case_92_promised_record_that_is_not_there(self):
        upstream = self.upstream()
        server = self.forwarder(upstream)
        reply = Message(server.udp(wire.query("a.test", counts=(1, 1, 0, 0))))
        self.assertEqual(reply.rcode, wire.NOERROR)
        self.assertEqual(Message(upstream.queries[0]).counts, [1, 0, 0, 0])

    def test_case_92_bad_version(self):
        reply = Message(self.server.udp(wire.query("a.test", additional=[wire.opt(1232, wire.DO, version=1)])))
        self.assertEqual(reply.rcode, 0)
        self.assertEqual(reply.opt, {"size": 0, "ttl": 1 << 24, "options": b""})

    def test_case_92_class_chaos_is_forwarded(self):
        reply = Message(self.server.udp(wire.query("version.bind", wire.TXT, 3)))
        self.assertEqual(reply.rcode, wire.NOERROR)

    def test_case_92_class_chaos_without_forward(self):
        server = self.daemon(".:0 {\n bind 127.0.0.1\n errors\n}\n")
        self.assertEqual(Message(server.udp(wire.query("version.bind", wire.TXT, 3))).rcode, wire.REFUSED)


class Zone(suite.Case):
    """The choice of the server block (case 93)."""

    def server(self, *zones):
        self.upstreams = {}
        blocks = ""
        for zone in zones:
            octet = len(self.upstreams) + 1
            self.upstreams[zone] = octet
            upstream = self.upstream(
                lambda query, octet=octet: answer_a(query).replace(b"\xc0\0\2\1", bytes([192, 0, 2, octet]))
            )
            blocks += f"{zone}:0 {{\n bind 127.0.0.1\n forward . {upstream.address}\n}}\n"
        return self.daemon(blocks)

    def chosen(self, server, qname, qtype=wire.A):
        reply = Message(server.udp(wire.query(qname, qtype)))
        if reply.rcode != wire.NOERROR:
            return reply.rcode
        octet = reply.sections[0][0][3][3]
        return next(zone for zone, number in self.upstreams.items() if number == octet)

    def test_case_93_longest_suffix(self):
        server = self.server("a.test", "sub.a.test", "b.test")
        for qname, zone in {
            "a.test": "a.test",
            "x.a.test": "a.test",
            "X.SUB.a.Test": "sub.a.test",
            "y.x.sub.a.test": "sub.a.test",
            "xsub.a.test": "a.test",
            "b.test": "b.test",
            "aa.test": wire.REFUSED,
            "test": wire.REFUSED,
            ".": wire.REFUSED,
        }.items():
            self.assertEqual(self.chosen(server, qname), zone, qname)

    def test_case_93_ds_goes_to_the_parent(self):
        server = self.server(".", "a.test", "sub.a.test")
        for qname, zone in {
            "k.x.sub.a.test": "a.test",
            "sub.a.test": "a.test",
            "a.test": "a.test",
            "test": ".",
            ".": ".",
        }.items():
            self.assertEqual(self.chosen(server, qname, wire.DS), zone, qname)

    def test_case_93_many_zones(self):
        upstream = self.upstream()
        zones = " ".join(f"z{i}.test:0" for i in range(2000))
        server = self.daemon(f"{zones} {{\n bind 127.0.0.1\n forward . {upstream.address}\n}}\n")
        for i in (0, 7, 1999):
            self.assertEqual(Message(server.udp(wire.query(f"www.z{i}.test"))).rcode, wire.NOERROR)
        self.assertEqual(Message(server.udp(wire.query("z2000.test"))).rcode, wire.REFUSED)

    def test_refused_mirrors_the_opt(self):
        server = self.server("a.test")
        reply = Message(server.udp(wire.query("b.test", additional=[wire.opt(1400, wire.DO)])))
        self.assertEqual(reply.rcode, wire.REFUSED)
        self.assertEqual(reply.opt, {"size": 1400, "ttl": wire.DO, "options": b""})


class Opt(suite.Case):
    """What ScrubWriter does to the OPT (case 94)."""

    def exchange(self, client, upstream, rcode=0):
        def answer(query):
            request = Message(query)
            return wire.message(
                request.id,
                wire.QR | rcode & 15,
                [request.questions[0]],
                [wire.record(b"\xc0\x0c", wire.A, b"\1\1\1\1")],
                additional=[upstream] if upstream else [],
            )

        server = self.forwarder(self.upstream(answer))
        return Message(server.udp(wire.query("a.test", additional=[client] if client else [])))

    def test_case_94_both_sent_one(self):
        reply = self.exchange(wire.opt(1400, wire.DO), wire.opt(4096, 0x40FF, options=wire.option(15, b"\0\1")))
        self.assertEqual(reply.opt, {"size": 1400, "ttl": wire.DO | 0x4000, "options": wire.option(15, b"\0\1")})

    def test_case_94_extended_rcode_survives(self):
        reply = self.exchange(wire.opt(1400), wire.opt(4096, 0, rcode=1), rcode=7)
        self.assertEqual((reply.rcode, reply.opt["ttl"]), (7, 1 << 24))

    def test_case_94_only_the_upstream(self):
        reply = self.exchange(None, wire.opt(4096, 0x80FF, version=3))
        self.assertEqual(reply.opt, {"size": 4096, "ttl": 0x80FF | 3 << 16, "options": b""})

    def test_case_94_only_the_client(self):
        cookie = wire.option(10, b"12345678")
        reply = self.exchange(wire.opt(1400, wire.DO | 0x1FF, options=wire.option(8, b"\0\1\0\0") + cookie), None)
        self.assertEqual(reply.opt, {"size": 1400, "ttl": wire.DO | 0x100, "options": cookie})

    def test_case_94_neither(self):
        self.assertIsNone(self.exchange(None, None).opt)

    def test_signed_answer_is_not_edited(self):
        tsig = wire.record("key", 250, b"\0" * 20, ttl=0, rclass=255)
        reply = self.exchange(wire.opt(1400), tsig)
        self.assertIsNone(reply.opt)
        self.assertEqual(reply.sections[2][-1][0], 250)


class Size(suite.Case):
    """Truncation to the client's size (case 94)."""

    def server(self, records, additional=()):
        def answer(query):
            request = Message(query)
            return wire.message(
                request.id,
                wire.QR,
                [request.questions[0]],
                [wire.record(b"\xc0\x0c", wire.TXT, b"\x63" + bytes([i]) * 99) for i in range(records)],
                additional=additional,
            )

        return self.forwarder(self.upstream(answer), options="prefer_udp")

    def test_case_94_cut_to_512_without_opt(self):
        reply = self.server(8).udp(wire.query("a.test", wire.TXT))
        message = Message(reply)
        self.assertLessEqual(len(reply), 512)
        self.assertTrue(message.flags & wire.TC)
        self.assertEqual(message.counts[1], 4)
        self.assertEqual([r[3][1] for r in message.sections[0]], [0, 1, 2, 3])

    def test_case_94_opt_outlives_the_cut(self):
        client = wire.opt(700, wire.DO)
        for upstream_opt in ([], [wire.opt(4096, 0)]):
            reply = self.server(10, upstream_opt).udp(wire.query("a.test", wire.TXT, additional=[client]))
            message = Message(reply)
            self.assertLessEqual(len(reply), 700)
            self.assertTrue(message.flags & wire.TC)
            self.assertEqual(message.counts[1], 5)
            self.assertEqual(message.opt, {"size": 700, "ttl": wire.DO, "options": b""})

    def test_case_94_fits_exactly(self):
        records = 4
        whole = 12 + len(wire.question("a.test")) + records * 112 + 11
        reply = self.server(records).udp(wire.query("a.test", wire.TXT, additional=[wire.opt(max(whole, 512))]))
        self.assertFalse(Message(reply).flags & wire.TC)
        reply = self.server(5).udp(wire.query("a.test", wire.TXT, additional=[wire.opt(whole + 111)]))
        self.assertTrue(Message(reply).flags & wire.TC)
        reply = self.server(5).udp(wire.query("a.test", wire.TXT, additional=[wire.opt(whole + 112)]))
        self.assertFalse(Message(reply).flags & wire.TC)

    def test_case_94_additional_records_are_cut_too(self):
        extra = [wire.record(b"\xc0\x0c", wire.A, bytes(4))] * 40
        message = Message(self.server(1, extra).udp(wire.query("a.test", wire.TXT)))
        self.assertTrue(message.flags & wire.TC)
        self.assertEqual(message.counts[1], 1)
        self.assertLess(message.counts[3], 40)

    def test_case_94_tcp_takes_all(self):
        server = self.server(8)
        message = Message(server.tcp(wire.query("a.test", wire.TXT)))
        self.assertFalse(message.flags & wire.TC)
        self.assertEqual(message.counts[1], 8)


class Failure(suite.Case):
    """Replies that the host builds (case 57)."""

    def test_case_57_servfail_mirrors_the_opt(self):
        upstream = self.upstream(lambda query: None)
        server = self.forwarder(upstream, options="read_timeout 50ms\n max_connect_attempts 1")
        cookie = wire.option(10, b"12345678")
        message = wire.query("a.test", flags=wire.RD | wire.CD | wire.AD, additional=[wire.opt(1400, wire.DO, options=cookie)])
        reply = Message(server.udp(message))
        self.assertEqual(reply.flags, wire.QR | wire.RD | wire.CD | wire.SERVFAIL)
        self.assertEqual(reply.questions, [wire.question("a.test")])
        self.assertEqual(reply.opt, {"size": 1400, "ttl": wire.DO, "options": cookie})

    def test_case_43_refused_over_max_concurrent(self):
        upstream = self.upstream(lambda query: None)
        server = self.forwarder(upstream, options="max_concurrent 1\n read_timeout 2s\n max_connect_attempts 1")
        with server.connect() as conn:
            conn.sendall(b"\0\x18" + wire.query("a.test"))
            self.assertTrue(upstream.wait_queries(1))
            self.assertEqual(Message(server.udp(wire.query("b.test"))).rcode, wire.REFUSED)
        server.wait_line(r"^\[ERROR\] plugin/errors: 5 b.test. A: concurrent queries exceeded maximum 1$")

    def test_case_42_no_stanza_matches(self):
        upstream = self.upstream()
        server = self.daemon(f".:0 {{\n bind 127.0.0.1\n errors\n forward a.test {upstream.address}\n}}\n")
        self.assertEqual(Message(server.udp(wire.query("b.test"))).rcode, wire.SERVFAIL)
        server.wait_line(r"^\[ERROR\] plugin/errors: 2 b.test. A: plugin/forward: no next plugin found$")

    def test_block_without_forward(self):
        server = self.daemon(".:0 {\n bind 127.0.0.1\n log\n errors\n}\n")
        self.assertEqual(Message(server.udp(wire.query("b.test"))).rcode, wire.SERVFAIL)
        server.wait_line(r"^\[ERROR\] plugin/errors: 2 b.test. A: plugin/log: no next plugin found$")

    def test_block_without_plugins(self):
        server = self.daemon(".:0 {\n bind 127.0.0.1\n}\n")
        self.assertEqual(Message(server.udp(wire.query("b.test"))).rcode, wire.REFUSED)


class Address(suite.Case):
    """Where a reply comes from."""

    def test_wildcard_socket_replies_from_the_address_asked(self):
        upstream = self.upstream()
        server = self.daemon(f".:0 {{\n forward . {upstream.address}\n}}\n")
        for host in ("127.0.0.1", "127.0.0.2", "127.8.9.10"):  # a connected socket takes nothing from another address
            self.assertEqual(Message(server.udp(wire.query("a.test"), host=host)).rcode, wire.NOERROR)

    def test_wildcard_socket_takes_both_families(self):
        upstream = self.upstream()
        server = self.daemon(f".:0 {{\n forward . {upstream.address}\n}}\n")
        try:
            reply = server.udp(wire.query("a.test"), host="::1")
        except OSError as error:
            raise unittest.SkipTest(f"no IPv6 here: {error}") from error
        self.assertEqual(Message(reply).rcode, wire.NOERROR)


if __name__ == "__main__":
    suite.run()
