"""The append-only rule: what a frozen description promised, the current one still keeps, and new things only follow."""

import model

# What must not change of an item, beyond its presence and place. Sentences (brief, rules) may be made better.
KEPT = ("value", "type", "offset", "since", "id", "sized", "filled_by", "minimum", "owner", "life", "dir", "nullable",
        "enum", "thread", "returns", "blocks", "errors", "unknown")
LISTS = ("constants", "enums", "errors", "handles", "structs", "callbacks", "services", "tables", "documents",
         "values", "fields", "functions", "args")
# Lists whose order is the order in memory or on the stack: new items may only follow the old ones.
ORDERED = ("fields", "functions", "args")
# Lists that may not even grow: a function with one more argument is another function.
CLOSED = ("args",)


def nested(entry, key):
    """The named objects under a key; nothing when it holds plain names, as the errors of a function do."""
    value = entry.get(key)
    return [child for child in value if isinstance(child, dict)] if isinstance(value, list) else []


def item(where, old, new, faults):
    for key in KEPT:
        if old.get(key) != new.get(key) and not nested(old, key) + nested(new, key):
            faults.append(f"{where}: {key} changed from {old.get(key)} to {new.get(key)}")
    for key in LISTS:
        items(f"{where}/{key}" if where else key, key, nested(old, key), nested(new, key), faults)


def items(where, kind, old, new, faults):
    current = {entry["name"]: entry for entry in new}
    for entry in old:
        place = f"{where}/{entry['name']}"
        if entry["name"] in current:
            item(place, entry, current[entry["name"]], faults)
        else:
            faults.append(f"{place}: removed")
    known = {entry["name"] for entry in old}
    kept = [entry["name"] for entry in new if entry["name"] in known]
    if kind in ORDERED and kept != [entry["name"] for entry in old if entry["name"] in current]:
        faults.append(f"{where}: order changed")
    if kind in CLOSED and len(new) > len(kept):
        faults.append(f"{where}: {new[-1]['name']} added to a closed list")
    if kind in ORDERED and any(entry["name"] in known for entry in new[len(kept):]):
        first = next(entry["name"] for entry in new if entry["name"] not in known)
        faults.append(f"{where}/{first}: inserted before older ones")


def compare(frozen, current):
    """Every breach of the append-only rule, as a list of texts."""
    faults = []
    if current["major"] != frozen["major"]:
        faults.append(f"major changed from {frozen['major']} to {current['major']}")
    if current["minor"] < frozen["minor"]:
        faults.append(f"minor decreased from {frozen['minor']} to {current['minor']}")
    item("", {**frozen, "entry": None}, {**current, "entry": None}, faults)
    item("entry", frozen["entry"], current["entry"], faults)
    last = (frozen["major"], frozen["minor"])
    added("", frozen, current, last, faults)
    for struct in frozen["structs"]:
        grown = next((entry for entry in current["structs"] if entry["name"] == struct["name"]), None)
        if grown and not struct.get("sized") and len(grown["fields"]) > len(struct["fields"]):
            faults.append(f"structs/{struct['name']}: grew, but is embedded and frozen for ever")
    return faults


def added(where, old, new, last, faults):
    """What is new since the frozen copy must say so: its since is above the frozen version."""
    for key in LISTS:
        known = {entry["name"]: entry for entry in nested(old, key)}
        for entry in nested(new, key):
            place = f"{where}{key}/{entry['name']}"
            if entry["name"] in known:
                added(place + "/", known[entry["name"]], entry, last, faults)
            elif "since" in entry and model.version(entry["since"]) <= last:
                faults.append(f"{place}: new, but since {entry['since']} is not above {last[0]}.{last[1]}")
