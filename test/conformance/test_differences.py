"""Where the resolver's replies differ from CoreDNS 1.14.7's on purpose, as COMPATIBILITY.md has it. Each test fails on CoreDNS's behaviour."""

import os
import struct
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "resolver"))
import suite  # noqa: E402
import wire  # noqa: E402
from daemon import answer_a, validate  # noqa: E402
from wire import Message  # noqa: E402

ECS_CUT = wire.option(8, b"\0")  # a client subnet of one octet


class Octets(suite.Case):
    """Messages are relayed as octets (cases 52, 76, 92)."""

    def test_case_92_the_inside_of_an_option_is_not_looked_at(self):
        upstream = self.upstream()
        query = wire.query("a.test", additional=[wire.opt(options=ECS_CUT)])
        self.assertEqual(Message(self.forwarder(upstream).udp(query)).rcode, 0)  # CoreDNS: FORMERR
        self.assertEqual(Message(upstream.queries[0]).opt["options"], ECS_CUT)

    def test_case_92_short_rdata_is_not_filled_up(self):
        upstream = self.upstream()
        record = wire.record(b"\0", 62, b"")  # CSYNC; CoreDNS sends six octets
        self.forwarder(upstream).udp(wire.query("a.test", additional=[record]))
        self.assertTrue(upstream.queries[0].endswith(record))

    def test_case_76_octets_behind_the_last_record(self):
        server = self.forwarder(self.upstream(lambda query: answer_a(query) + b"tail"))
        self.assertTrue(server.udp(wire.query("a.test")).endswith(b"tail"))  # CoreDNS cuts them off

    def test_case_94_compression_stays_the_upstreams(self):
        """Records that fit only when compressed anew are cut off: 12 SOA records, their names written out."""
        def answer(query):
            request = Message(query)
            owner = request.questions[0][:-4]
            record = wire.record(owner, wire.SOA, b"\2ns" + owner + b"\4root" + owner + struct.pack("!5I", 1, 2, 3, 4, 5))
            return wire.message(request.id, wire.QR, [request.questions[0]], [record] * 12)

        reply = Message(self.forwarder(self.upstream(answer), options="force_tcp").udp(wire.query("a.long.name.test", wire.SOA)))
        self.assertTrue(reply.flags & wire.TC)  # CoreDNS: all of them


class Size(suite.Case):
    """An answer over UDP that is longer than the client's size is received whole (cases 75, 76)."""

    def test_case_75_truncation_is_for_the_client_only(self):
        def answer(query):
            request = Message(query)
            texts = [wire.record(b"\xc0\x0c", wire.TXT, b"\x63" + b"x" * 99)] * 8
            return wire.message(request.id, wire.QR, [request.questions[0]], texts)

        upstream = self.upstream(answer)
        server = self.forwarder(upstream, options="prefer_udp")
        small = Message(server.udp(wire.query("a.test", wire.TXT)))
        self.assertTrue(small.flags & wire.TC)
        self.assertEqual(small.counts[1], 4)  # CoreDNS: none, or a retry over TCP with prefer_udp
        self.assertEqual({peer[0] for peer in upstream.peers}, {"udp"})
        whole = Message(server.tcp(wire.query("a.test", wire.TXT)))
        self.assertEqual((whole.flags & wire.TC, whole.counts[1]), (0, 8))


class Cut(suite.Case):
    """Queries that end early are FORMERR, whatever field they end at (case 92)."""

    def test_case_92_only_a_header(self):
        reply = Message(self.forwarder().udp(wire.query("a.test")[:12]))
        self.assertEqual(reply.rcode, wire.FORMERR)  # CoreDNS: SERVFAIL

    def test_case_92_between_two_fields(self):
        upstream = self.upstream()
        server = self.forwarder(upstream)
        for missing in (2, 4):  # CoreDNS takes the missing fields for 0, and forwards
            self.assertEqual(Message(server.udp(wire.query("a.test")[:-missing])).rcode, wire.FORMERR)
        self.assertEqual(upstream.queries, [])


class Next(suite.Case):
    def test_case_56_no_stanza_further_down_is_for_the_name(self):
        upstream = self.upstream(lambda query: answer_a(query)[:3] + b"\x83" + answer_a(query)[4:])
        server = self.daemon(f".:0 {{\nbind 127.0.0.1\nforward . {upstream.address} {{\nnext NXDOMAIN\n}}\nforward b.test {upstream.address}\n}}\n")
        self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NXDOMAIN)  # CoreDNS: SERVFAIL


class Names(suite.Case):
    """Names in the Corefile (case 14)."""

    def test_case_14_beyond_ascii_is_matched_as_octets(self):
        upstream = self.upstream()
        server = self.daemon(f"\u00c9.test:0 {{\nbind 127.0.0.1\nforward . {upstream.address}\n}}\n")
        owner = b"\1a\2\xc3\x89\4test\0"
        query = wire.message(questions=[owner + struct.pack("!HH", wire.A, 1)])
        self.assertEqual(Message(server.udp(query)).rcode, 0)  # CoreDNS: REFUSED, its zone never matches

    def test_case_14_longer_than_a_name_can_be(self):
        result = validate(f". {{\nforward {'x.' * 127}y 127.0.0.1\n}}\n")  # CoreDNS takes it; it never matches
        self.assertIn("unable to normalize 'x.x.", result.stderr)

    def test_case_1_nul_octets(self):
        result = validate(". {\nfor\0ward . 127.0.0.1\n}\n")
        self.assertIn("Unknown directive 'for\ufffdward'", result.stderr)

    def test_names_of_log_are_checked(self):
        self.assertIn("'.x' is not a domain name", validate(". {\nlog .x\n}\n").stderr)


if __name__ == "__main__":
    suite.run()
