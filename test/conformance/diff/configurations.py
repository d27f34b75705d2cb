"""The configurations of the differential run of queries.

In a text, $bind and $port are the listener's, $u0 to $u3 and $v6 the upstreams of the side, $dead an address where nothing listens.
"""

import dataclasses

BASIC = """ok ok ok ok many aa zbit nd ndempty nx sf rf fe ni yx na r11 r15 bv bc r100 ext cname noopt popt optv1 optz opt2 tc tcall
    t400 t900 t3000""".split()
RCODES = "ok ok nx nx sf sf rf rf fe ni nd ndempty yx".split()
EVIL = """ok case wrongq wrongt wrongc noq fenq qr0 op5 wid short junkid junk badq cutrr loop count tail dup slow""".split()
LOSS = "ok ok ok mute m1 late slow sf1 sf".split()
STREAM = "ok ok ok tc many wid wrongq bytes dup slow t3000".split()
BROKEN_STREAM = "ok ok eof rst half after".split()


@dataclasses.dataclass
class Configuration:
    name: str
    text: str
    codes: list
    share: int = 700  # queries, of 20,000
    tcp: float = 0.15  # of the clients
    upstreams: int = 1
    zones: tuple = ("example.org",)
    mode: str = "many"  # or one: one query after the other; burst: all at once, and only the counts are compared
    any_order: bool = False  # of the upstreams


def stanza(text, options=""):
    return f"forward {text} {{\n max_fails 0\n {options}\n}}\n"


def root(text, options=""):
    """A server block for all names with one stanza for all names."""
    return ".:$port {\n bind $bind\n " + stanza(". " + text, options) + "}\n"


FAST = "read_timeout 250ms\n policy sequential\n"
THREE = "$u0 $u1 $u2"

CONFIGURATIONS = [
    Configuration("plain", root("$u0"), BASIC, 2000),
    Configuration("tcp clients", root("$u0"), BASIC, 1000, tcp=1),
    Configuration("force_tcp", root("$u0", "force_tcp"), BASIC, 1200),
    Configuration("prefer_udp", root("$u0", "prefer_udp"), BASIC, 1200, tcp=0.5),
    Configuration("prefer_udp and force_tcp", root("$u0", "prefer_udp\n force_tcp"), BASIC, 400, tcp=0.5),
    Configuration("max_fails and health_check", ".:$port {\n bind $bind\n forward . $u0 {\n health_check 100ms no_rec domain health.test\n}\n}\n", BASIC, 600),
    Configuration("evil", root("$u0", FAST), EVIL, 1200, tcp=0),
    Configuration("evil, prefer_udp", root("$u0", FAST + "prefer_udp"), EVIL, 600, tcp=1),
    Configuration("evil, two", root("$u0 $u1", FAST), EVIL, 800, tcp=0, upstreams=2),
    Configuration("streams", root("$u0", FAST + "force_tcp"), STREAM, 800),
    Configuration("broken streams, no pool", root("$u0 $u1", FAST + "force_tcp\n expire 0s"), BROKEN_STREAM, 600, upstreams=2),
    Configuration("broken streams, pool", root("$u0 $u1", FAST + "force_tcp"), "ok ok ok eof after".split(), 300, upstreams=2, mode="one"),
    Configuration("small pool", root("$u0", "force_tcp\n max_idle_conns 1\n max_age 10s"), BASIC, 400),
    Configuration("sequential", root(THREE, "policy sequential"), RCODES, 600, upstreams=3),
    Configuration("random", root(THREE, "policy random\n read_timeout 250ms"), BASIC, 600, any_order=True),
    Configuration("round_robin", root(THREE, "policy round_robin\n read_timeout 250ms"), RCODES, 500, upstreams=3, mode="one"),
    Configuration("round_robin, loss", root(THREE, "policy round_robin\n read_timeout 100ms"), "ok ok ok mute".split(), 100, upstreams=3, mode="one"),
    Configuration("loss", root(THREE, FAST), LOSS, 600, upstreams=3),
    Configuration("loss, one", root("$u0", FAST), LOSS, 400),
    Configuration("max_connect_attempts 1", root(THREE, FAST + "max_connect_attempts 1"), LOSS, 400, upstreams=3),
    Configuration("max_connect_attempts 4", root("$u0 $u1", FAST + "max_connect_attempts 4"), LOSS, 300, upstreams=2),
    Configuration("max_connect_attempts 0", root("$u0 $u1", FAST + "max_connect_attempts 0"), "ok ok ok ok m1 mute".split(), 80, upstreams=2),
    Configuration("failover", root(THREE, FAST + "failover SERVFAIL REFUSED"), RCODES, 700, upstreams=3),
    Configuration("failover, loss", root(THREE, FAST + "failover SERVFAIL NXDOMAIN NOTIMP"), RCODES + ["mute", "m1"], 400, upstreams=3),
    Configuration("failover, one", root("$u0", FAST + "failover SERVFAIL"), RCODES + ["sf1"], 300),
    Configuration("failover, one attempt", root(THREE, FAST + "failover SERVFAIL\n max_connect_attempts 1"), RCODES + ["mute"], 300, upstreams=3),
    Configuration("next", ".:$port {\n bind $bind\n " + stanza(". $u0", "next NXDOMAIN REFUSED") + stanza(". $u1") + "}\n", RCODES, 600, upstreams=2),
    Configuration("next, last", root("$u0", "next NXDOMAIN NOERROR"), RCODES, 200),
    Configuration("next, three", ".:$port {\n bind $bind\n " + stanza(". $u0", "next NXDOMAIN\n next_on_nodata") + stanza(". $u1", "next_on_nodata") +
                  stanza(". $u2") + "}\n", RCODES, 600, upstreams=3),
    Configuration("next, failover", ".:$port {\n bind $bind\n " + stanza(". $u0 $u1", FAST + "failover SERVFAIL\n next NXDOMAIN SERVFAIL") + stanza(". $u2") + "}\n",
                  RCODES, 500, upstreams=3),
    Configuration("next, not for me", ".:$port {\n bind $bind\n " + stanza(". $u0", "next NXDOMAIN") + stanza("b.test $u1") + "}\n", RCODES, 300, upstreams=2,
                  zones=("a.test", "b.test")),
    Configuration("stanzas", ".:$port {\n bind $bind\n " + stanza("a.test $u0", "except x.a.test y.a.test") + stanza("b.test $u1") + stanza(". $u2", "except b.test") +
                  "}\n", BASIC[:12], 700, upstreams=3, zones=("a.test", "x.a.test", "z.x.a.test", "b.test", "c.b.test", "c.test")),
    Configuration("no stanza", ".:$port {\n bind $bind\n " + stanza("a.test $u0") + "}\n", ["ok"], 300, zones=("a.test", "b.test")),
    Configuration("zones", "".join(f"{zone}:$port {{\n bind $bind\n " + stanza(f". {upstream}") + "}\n" for zone, upstream in
                  (("a.test", "$u0"), ("sub.a.test", "$u1"), ("b.test", "$u2"))), ["ok", "nx"], 600, upstreams=3,
                  zones=("a.test", "sub.a.test", "x.sub.a.test", "b.test", "c.test")),
    Configuration("zones and root", "".join(f"{zone}:$port {{\n bind $bind\n " + stanza(f". {upstream}") + "}\n" for zone, upstream in
                  ((".", "$u0"), ("a.test", "$u1"), ("sub.a.test", "$u2"))), ["ok", "nx"], 600, upstreams=3, zones=("a.test", "sub.a.test", "x.sub.a.test", "b.test")),
    Configuration("reverse", "10.0.0.0/15:$port {\n bind $bind\n " + stanza(". $u0") + "}\n10.2.0.0/16:$port {\n bind $bind\n " + stanza("10.2.3.0/24 $u1") + "}\n",
                  ["ok"], 400, upstreams=2, zones=("1.0.10.in-addr.arpa", "9.1.10.in-addr.arpa", "3.2.10.in-addr.arpa", "4.2.10.in-addr.arpa")),
    Configuration("nothing to forward", ".:$port {\n bind $bind\n errors\n}\n", ["ok"], 300),
    Configuration("dead, live", root("$dead $u0", FAST), BASIC[:12], 400),
    Configuration("dead", root("$dead", FAST), ["ok"], 200),
    Configuration("dead over TCP, live", root("$dead $u0", FAST + "force_tcp"), BASIC[:12], 400),
    Configuration("down", ".:$port {\n bind $bind\n forward . $dead {\n max_fails 1\n health_check 20ms\n}\n}\n", ["ok"], 100, mode="one"),
    Configuration("down, failfast", ".:$port {\n bind $bind\n forward . $dead {\n max_fails 1\n health_check 20ms\n failfast_all_unhealthy_upstreams\n}\n}\n",
                  ["ok"], 100, mode="one"),
    Configuration("source_address", root("$u0", "source_address 127.0.0.9"), BASIC[:12], 300),
    Configuration("source_address over TCP", root("$u0", "source_address 127.0.0.9\n force_tcp"), BASIC[:12], 200),
    Configuration("IPv6 upstream", root("$v6"), BASIC, 300),
    Configuration("max_concurrent", root("$u0", "max_concurrent 3"), ["slow"], 60, tcp=0, mode="burst"),
]
