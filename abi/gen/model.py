"""The ABI description in memory: load, merge an overlay, cut back to an older minor, lay out, check.

Happy path: load() gives the document as plain dicts and lists; check() returns the list of everything wrong with it.
Failure: every message names its place as PATH/TO/ITEM, so that it can be found in the JSON; nothing is repaired silently.
"""

import json
import re

SCALARS = {
    "u8": ("uint8_t", 1), "u16": ("uint16_t", 2), "u32": ("uint32_t", 4), "u64": ("uint64_t", 8),
    "i32": ("int32_t", 4), "i64": ("int64_t", 8),
}
# Sections of the document whose items are structs in memory: name of the section, fields every item begins with.
LAYOUTS = {"structs": [], "services": ["struct_size", "reserved", "arg"], "tables": ["struct_size"]}
POINTER = 8  # LP64, the only layout that offsets are written down for
NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
UPPER = re.compile(r"[A-Z][A-Z0-9_]*\Z")
VERSION = re.compile(r"[0-9]+\.[0-9]+\Z")
INTERFACE = re.compile(r"fwd\.[a-z]+/[1-9][0-9]*\Z")
C_WORDS = frozenset("auto break case char const continue default do double else enum extern float for goto if inline int "
                    "long register restrict return short signed sizeof static struct switch typedef union unsigned void "
                    "volatile while class delete new private public this throw try namespace template operator".split())


class AbiError(Exception):
    """A description that cannot be used; the text names the place."""


def load(path):
    """Reads a description or an overlay."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise AbiError(f"{path}: {error}") from error


def merge(base, overlay):
    """Lays overlay over base: objects key by key, lists of named objects by name, anything else replaced."""
    if isinstance(base, dict) and isinstance(overlay, dict):
        return {**base, **{key: merge(base[key], value) if key in base else value for key, value in overlay.items()}}
    if isinstance(base, list) and isinstance(overlay, list) and all(isinstance(x, dict) for x in base + overlay):
        changes = {item["name"]: item for item in overlay}
        known = {item["name"] for item in base}
        return ([merge(item, changes.get(item["name"], {})) for item in base]
                + [item for item in overlay if item["name"] not in known])
    return overlay


def version(text):
    """'1.10' as (1, 10), which compares as versions do."""
    return tuple(int(part) for part in text.split("."))


def until(doc, last):
    """The document as it was at minor `last`: whatever is newer is left out."""
    def cut(value):
        if isinstance(value, dict):
            return {key: cut(item) for key, item in value.items()}
        if isinstance(value, list):
            return [cut(item) for item in value if not (isinstance(item, dict) and "since" in item
                                                        and version(item["since"]) > version(last))]
        return value
    result = cut(doc)
    result["major"], result["minor"] = version(last)
    for section in LAYOUTS:
        for struct in result[section]:
            struct["size"] = layout(result, struct)[1]
    return result


def members(struct):
    """Fields and functions in memory order; a function is a pointer."""
    return struct.get("fields", []) + struct.get("functions", [])


def measure(doc, ctype):
    """(size, alignment) of a type under LP64."""
    array = re.fullmatch(r"(u8)\[([1-9][0-9]*)\]", ctype)
    if array:
        return int(array[2]), 1
    if ctype.endswith("*") or ctype in {callback["name"] for callback in doc["callbacks"]}:
        return POINTER, POINTER
    if ctype in SCALARS:
        return SCALARS[ctype][1], SCALARS[ctype][1]
    for struct in doc["structs"]:
        if ctype == "struct " + struct["name"]:
            sizes = [measure(doc, member["type"]) for member in members(struct)]
            return sum(size for size, _ in sizes), max(align for _, align in sizes)
    raise AbiError(f"unknown type '{ctype}'")


def layout(doc, struct):
    """([(member, offset)], size). Refuses implicit padding: a member must lie where the one before it ends."""
    end, widest, placed = 0, 1, []
    for member in members(struct):
        where = f"{struct['name']}.{member['name']}"
        try:
            size, align = measure(doc, member["type"]) if "type" in member else (POINTER, POINTER)
        except AbiError as error:
            raise AbiError(f"{where}: {error}") from error
        if end % align:
            raise AbiError(f"{where}: implicit padding of {align - end % align} octets before it")
        placed.append((member, end))
        end, widest = end + size, max(widest, align)
    if end % widest:
        raise AbiError(f"{struct['name']}: implicit padding of {widest - end % widest} octets at its end")
    return placed, end


def minimum(doc, struct):
    """The least struct_size that a reader must accept: up to and with the field named by "minimum", else all of 1.0."""
    last = struct.get("minimum")
    placed, size = layout(doc, struct)
    ends = [offset for _, offset in placed[1:]] + [size]
    if last is not None:
        return next(end for (member, _), end in zip(placed, ends) if member["name"] == last)
    return max(end for (member, _), end in zip(placed, ends) if member["since"] == struct["since"])


class Checker:
    """Collects what is wrong with a document; each complaint begins with the path of the item."""

    def __init__(self, doc):
        self.doc = doc
        self.errors = []

    def say(self, where, text):
        self.errors.append(f"{where}: {text}")

    def item(self, where, item, pattern=NAME, brief="brief"):
        """What every named thing has: an identifier, since, a sentence."""
        name = item.get("name", "")
        if not pattern.match(name) or name in C_WORDS:
            self.say(where, f"bad identifier '{name}'")
        if not VERSION.match(str(item.get("since", ""))):
            self.say(where, "missing since")
        elif version(item["since"]) > (self.doc["major"], self.doc["minor"]):
            self.say(where, f"since {item['since']} is above the ABI's own version")
        if not item.get(brief):
            self.say(where, f"missing {brief}")

    def unique(self, where, items, key="name"):
        seen = set()
        for item in items:
            value = item.get(key)
            if value in seen:
                self.say(f"{where}/{item.get('name')}", f"{key} {value} is used twice")
            seen.add(value)

    def ctype(self, where, text):
        """A type must be in the closed list; what it points to must be declared."""
        known = ({"void", "char"} | set(SCALARS) | {x["name"] for x in self.doc["callbacks"]}
                 | {"struct " + x["name"] for section in ("structs", "handles", "services", "tables")
                    for x in self.doc[section]})
        plain = re.sub(r"\[[1-9][0-9]*\]\Z|\*+\Z", "", re.sub(r"\Aconst ", "", text))
        if plain not in known or (text.startswith("const ") and not text.endswith("*")) or text in ("char", "void"):
            self.say(where, f"unknown type '{text}'")

    def reference(self, where, item):
        """An "enum" key names an enum of the document, or the errors."""
        if "enum" in item and item["enum"] not in {x["name"] for x in self.doc["enums"]} | {"errors"}:
            self.say(where, f"unknown enum '{item['enum']}'")

    def function(self, where, function):
        self.item(where, function)
        if function.get("thread") not in self.doc["thread_tags"]:
            self.say(where, "missing thread tag" if "thread" not in function
                     else f"unknown thread tag '{function['thread']}'")
        if function.get("returns") != "void":
            self.ctype(where, function.get("returns", ""))
        names = {error["name"] for error in self.doc["errors"]}
        for error in function.get("errors", []):
            if error not in names:
                self.say(where, f"unknown error '{error}'")
        self.unique(where, function.get("args", []))
        for arg in function.get("args", []):
            place = f"{where}/{arg.get('name')}"
            if not NAME.match(arg.get("name", "")) or arg["name"] in C_WORDS:
                self.say(place, f"bad identifier '{arg.get('name')}'")
            if not arg.get("brief"):
                self.say(place, "missing brief")
            self.ctype(place, arg.get("type", ""))
            self.reference(place, arg)

    def numbers(self, where, values, brief="brief"):
        self.unique(where, values)
        self.unique(where, values, "value")
        for value in values:
            self.item(f"{where}/{value.get('name')}", value, UPPER, brief)
            if not isinstance(value.get("value"), int):
                self.say(f"{where}/{value.get('name')}", "missing value")

    def struct(self, section, struct):
        where = f"{section}/{struct.get('name')}"
        self.item(where, struct)
        self.unique(where, members(struct))
        begin = ["struct_size"] if struct.get("sized") else LAYOUTS[section]
        if [field.get("name") for field in struct.get("fields", [])][:len(begin)] != begin:
            self.say(where, f"must begin with {', '.join(begin)}")
        last = (0, 0)
        for part in ("fields", "functions"):
            for member in struct.get(part, []):
                place = f"{where}/{member.get('name')}"
                if part == "functions":
                    self.function(place, member)
                else:
                    self.item(place, member)
                    self.ctype(place, member.get("type", ""))
                    self.reference(place, member)
                since = version(member.get("since", "0.0"))
                if since < last:
                    self.say(place, "since decreases: members are only ever appended")
                last = since
        if section != "structs" and "id" in struct and not INTERFACE.match(struct["id"]):
            self.say(where, f"bad interface id '{struct['id']}'")
        if "minimum" in struct and struct["minimum"] not in {x["name"] for x in members(struct)}:
            self.say(where, f"minimum names no field: '{struct['minimum']}'")

    def offsets(self, section, struct):
        """Written-down offsets must be those of the layout: who reads only the JSON relies on them."""
        where = f"{section}/{struct['name']}"
        try:
            placed, size = layout(self.doc, struct)
        except AbiError as error:
            self.say(section, str(error))
            return
        for member, offset in placed:
            if member.get("offset") != offset:
                self.say(f"{where}/{member['name']}", f"offset is {offset}, not {member.get('offset')}")
        if struct.get("size") != size:
            self.say(where, f"size is {size}, not {struct.get('size')}")


def check(doc):
    """Everything wrong with the document, as a list of texts."""
    missing = [key for key in ("abi", "major", "minor", "rules", "thread_tags", "constants", "enums", "errors", "handles",
                               "structs", "callbacks", "services", "tables", "documents", "entry") if key not in doc]
    if missing:
        return [f"/: missing {', '.join(missing)}"]
    checker = Checker(doc)
    for section in ("enums", "handles", "structs", "callbacks", "services", "tables"):
        checker.unique(section, doc[section])
    checker.numbers("errors", doc["errors"], "text")
    for constant in doc["constants"]:
        checker.item(f"constants/{constant.get('name')}", constant, UPPER)
    for enum in doc["enums"]:
        checker.item(f"enums/{enum.get('name')}", enum)
        checker.numbers(f"enums/{enum.get('name')}", enum["values"])
        if not enum.get("unknown"):
            checker.say(f"enums/{enum.get('name')}", "missing unknown (what a reader does with a value it does not know)")
    for handle in doc["handles"]:
        checker.item(f"handles/{handle.get('name')}", handle)
    for document in doc["documents"]:
        checker.item(f"documents/{document.get('name')}", document)
    for callback in doc["callbacks"]:
        checker.function(f"callbacks/{callback.get('name')}", callback)
    checker.function("entry", doc["entry"])
    for section in LAYOUTS:
        for struct in doc[section]:
            checker.struct(section, struct)
    if not checker.errors:  # a layout of broken members would only repeat them
        for section in LAYOUTS:
            for struct in doc[section]:
                checker.offsets(section, struct)
    return checker.errors
