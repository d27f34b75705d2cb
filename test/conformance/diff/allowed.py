"""Differences between replies that are meant. Every entry names its heading in COMPATIBILITY.md and the fields that it explains."""

RULES = []


def rule(heading, *fields):
    """Adds a test of (query, configuration, theirs, ours); where it holds, these fields may differ."""
    return lambda test: RULES.append((heading, set(fields), test))


def explain(query, configuration, theirs, ours, fields):
    """The headings that explain all fields, or None."""
    left, headings = set(fields), []
    for heading, explained, test in RULES:
        if left & explained and test(query, configuration, theirs, ours):
            left -= explained
            headings.append(heading)
    return None if left else headings
