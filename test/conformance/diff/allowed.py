"""Differences between replies that are meant. Every entry names its heading in COMPATIBILITY.md and the fields that it explains.

A rule is narrow on our side: it says what our outcome has to be, too.
"""

RULES = []
ALL = {"*"}
TC, RD, RA, CD = 0x0200, 0x0100, 0x0080, 0x0010

DROPPED = {"wrongq", "wrongt", "wrongc", "noq", "qr0", "op5", "cutrr", "loop", "count"}  # no good answer follows
FIRST_BAD = {"badq", "junk"}  # the good answer follows


def rule(heading, fields):
    """Adds a test of (query, configuration, theirs, ours); where it holds, these fields may differ."""
    return lambda test: RULES.append((heading, fields, test))


def explain(query, configuration, theirs, ours, fields):
    """The headings that explain all fields, or None."""
    left, headings = set(fields), []
    for heading, explained, test in RULES:
        explained = left if explained is ALL else left & explained
        if explained and test(query, configuration, theirs, ours):
            left = left - explained
            headings.append(heading)
    return None if left else headings


def codes_seen(query, outcome):
    """The codes of the upstreams that were asked."""
    return [query.codes[min(entry[0], len(query.codes) - 1)] for entry in outcome["seen"]]


def flags(outcome):
    return int(outcome["reply"].get("flags", "0"), 16)


def truncated(outcome):
    return flags(outcome) & TC


def last_over(outcome, transport):
    """Whether the last that an upstream saw came over this transport."""
    return outcome["seen"][-1:] != [] and outcome["seen"][-1][1] == transport


def prefix(one, other):
    """Whether one's answers are the first of the other's, or the other way round."""
    return all(a == b for a, b in zip(one["reply"]["answer"], other["reply"]["answer"]))


def rcode(outcome):
    return outcome["reply"].get("rcode")


@rule("Better by default: UDP answers longer than the client's size (75, 76)",
      {"reply.answer", "reply.authority", "reply.additional", "reply.opt"})
def _(query, _, theirs, ours):
    return not query.tcp and truncated(theirs) and truncated(ours) and prefix(theirs, ours) and last_over(theirs, "udp")


@rule("Better by default: UDP answers longer than the client's size (75, 76): no retry over TCP for prefer_udp",
      {"seen.count", "seen.transport", "reply.answer", "reply.opt"})
def _(query, configuration, theirs, ours):
    return "prefer_udp" in configuration.text and not query.tcp and truncated(ours) and truncated(theirs) and last_over(theirs, "tcp")


@rule("Better by default: a datagram that is not the answer (54, 76)", ALL)
def _(query, _, theirs, ours):
    codes = codes_seen(query, ours)
    return bool(DROPPED & set(codes)) and (rcode(ours) == 2 or codes[-1] not in DROPPED)


@rule("Better by default: a datagram that is not the answer (54, 76)", ALL)
def _(query, _, theirs, ours):
    return bool(FIRST_BAD & set(codes_seen(query, theirs))) and rcode(ours) == 0


@rule("Better by default: FORMERR, SERVFAIL, NOTIMP or REFUSED without the question (54)", {"reply.flags"})
def _(query, _, theirs, ours):
    return "fenq" in codes_seen(query, ours) and (rcode(theirs), rcode(ours)) == (1, 1) and not (flags(theirs) ^ flags(ours)) & ~(RD | RA | CD)


@rule("Better by default: an answer that repeats the question in another letter case",
      {"reply.question", "reply.answer", "reply.authority", "reply.additional"})
def _(query, _, theirs, ours):
    return codes_seen(query, ours)[-1:] == ["case"] and [q.upper() for q in ours["reply"]["question"]] != theirs["reply"]["question"]


@rule("Better by default: messages are relayed as octets (52, 76, 92): what stands behind the last record", {"reply.rest"})
def _(query, _, theirs, ours):
    return codes_seen(query, ours)[-1:] == ["tail"] and ours["reply"]["rest"] == b"tail".hex()


@rule("Better by default: messages are relayed as octets (52, 76, 92): the inside of records and options is not looked at", ALL)
def _(query, _, theirs, ours):
    return query.kind != "plain" and rcode(theirs) == 1 and not theirs["seen"]


@rule("Better by default: messages are relayed as octets (52, 76, 92): short RDATA is not filled up",
      {"seen.answer", "seen.authority", "seen.additional"})
def _(query, _, theirs, ours):
    return query.kind == "body" and len(theirs["seen"]) == len(ours["seen"]) and theirs["reply"] == ours["reply"]


@rule("Better by default: a query that is nothing but a header, or ends between two fields (92)", {"reply.rcode"})
def _(query, _, theirs, ours):
    return len(query.wire) == 12 and (rcode(theirs), rcode(ours)) == (2, 1)


@rule("Better by default: a query that is nothing but a header, or ends between two fields (92)", ALL)
def _(query, _, theirs, ours):
    return query.kind == "body" and not ours["seen"] and rcode(ours) == 1


@rule("Better by default: messages are relayed as octets (52, 76, 92): compression stays the upstream's, which shows when cut to size",
      {"reply.answer", "reply.flags"})
def _(query, _, theirs, ours):
    return not query.tcp and truncated(ours) and prefix(theirs, ours)


@rule("Better by default: a reused TCP connection that turns out dead (49, 78)", {"seen.count", "seen.upstream"})
def _(query, configuration, theirs, ours):
    return configuration.name == "broken streams, pool" and "eof" in codes_seen(query, ours) and theirs["reply"] == ours["reply"]


@rule("Better by default: a server that closes all its connections at once (78)", {"seen.count", "seen.upstream"})
def _(query, configuration, theirs, ours):
    closed = {"eof", "rst", "half"} & set(codes_seen(query, ours))
    return configuration.name == "broken streams, no pool" and closed and len(ours["seen"]) > len(theirs["seen"]) and theirs["reply"] == ours["reply"]


@rule("Better by default: next, but no stanza further down is for the name (56)",
      {"reply.flags", "reply.rcode", "reply.answer", "reply.authority", "reply.additional", "reply.opt"})
def _(query, configuration, theirs, ours):
    return configuration.name == "next, not for me" and (rcode(theirs), rcode(ours)) == (2, 3) and len(ours["seen"]) == 1
