#!/usr/bin/env python3
"""The generator's refusals: every kind of bad description, and every breach of the append-only rule, is named with its place.

    test_abigen.py ABI_DIR     ABI_DIR holds forward-abi.json and gen/
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
ABI = os.path.abspath(sys.argv.pop(1))
sys.path.insert(0, os.path.join(ABI, "gen"))

import compare  # noqa: E402
import header  # noqa: E402
import model  # noqa: E402
import tap  # noqa: E402

SOURCE = os.path.join(ABI, "forward-abi.json")
GENERATOR = os.path.join(ABI, "gen", "abigen.py")


def find(doc, path):
    """The item at 'structs/fwd_query/fields/token', or the list when the path ends with a section."""
    value = doc
    for part in path.split("/"):
        value = next(x for x in value if x["name"] == part) if isinstance(value, list) else value[part]
    return value


def grown(doc):
    """The description as a later minor has it: one field and one function more."""
    doc = copy.deepcopy(doc)
    doc["minor"] = 1
    query = find(doc, "structs/fwd_query")
    query["fields"].append({"name": "later", "type": "u64", "offset": query["size"], "since": "1.1", "brief": "Later."})
    query["size"] += 8
    table = find(doc, "tables/fwd_forward")
    table["functions"].append({"name": "later", "offset": table["size"], "since": "1.1", "thread": "any-thread",
                               "returns": "i32", "brief": "Later.", "args": []})
    table["size"] += 8
    return doc


class Case(unittest.TestCase):
    def setUp(self):
        self.doc = model.load(SOURCE)

    def refuses(self, text):
        faults = model.check(self.doc)
        self.assertTrue(any(text in fault for fault in faults), f"{text!r} is not in {faults}")

    def breaks(self, new, text):
        faults = compare.compare(self.doc, new)
        self.assertTrue(any(text in fault for fault in faults), f"{text!r} is not in {faults}")


class Description(Case):
    def test_sound(self):
        self.assertEqual(model.check(self.doc), [])
        self.assertEqual(model.check(grown(self.doc)), [])

    def test_padding_between_fields(self):
        find(self.doc, "structs/fwd_token/fields/line")["type"] = "u16"
        self.refuses("fwd_token.text: implicit padding of 2 octets before it")

    def test_padding_at_end(self):
        find(self.doc, "structs/fwd_token/fields").pop()
        self.refuses("fwd_token: implicit padding of 4 octets at its end")

    def test_wrong_offset(self):
        find(self.doc, "structs/fwd_query/fields/wire")["offset"] = 12
        self.refuses("structs/fwd_query/wire: offset is 16, not 12")

    def test_missing_offset(self):
        del find(self.doc, "tables/fwd_forward/functions/serve")["offset"]
        self.refuses("tables/fwd_forward/serve: offset is ")

    def test_wrong_size(self):
        find(self.doc, "structs/fwd_query")["size"] = 80
        self.refuses("structs/fwd_query: size is 88, not 80")

    def test_missing_thread_tag(self):
        del find(self.doc, "tables/fwd_forward/functions/serve")["thread"]
        self.refuses("tables/fwd_forward/serve: missing thread tag")

    def test_unknown_thread_tag(self):
        find(self.doc, "callbacks/fwd_done_fn")["thread"] = "main"
        self.refuses("callbacks/fwd_done_fn: unknown thread tag 'main'")

    def test_missing_brief(self):
        del find(self.doc, "structs/fwd_query/fields/wire")["brief"]
        self.refuses("structs/fwd_query/wire: missing brief")

    def test_missing_brief_of_argument(self):
        del find(self.doc, "tables/fwd_forward/functions/serve/args/count")["brief"]
        self.refuses("tables/fwd_forward/serve/count: missing brief")

    def test_missing_since(self):
        del find(self.doc, "enums/fwd_kind/values/FWD_KIND_NEXT")["since"]
        self.refuses("enums/fwd_kind/FWD_KIND_NEXT: missing since")

    def test_since_of_the_future(self):
        find(self.doc, "errors/FWD_ERR_HTTP")["since"] = "1.1"
        self.refuses("errors/FWD_ERR_HTTP: since 1.1 is above the ABI's own version")

    def test_since_decreases(self):
        self.doc["minor"] = 1
        find(self.doc, "structs/fwd_query/fields/token")["since"] = "1.1"
        self.refuses("structs/fwd_query/wire: since decreases")

    def test_reused_error_number(self):
        find(self.doc, "errors/FWD_ERR_HTTP")["value"] = -32
        self.refuses("errors/FWD_ERR_HTTP: value -32 is used twice")

    def test_reused_enum_value(self):
        find(self.doc, "enums/fwd_kind/values/FWD_KIND_NEXT")["value"] = 1
        self.refuses("enums/fwd_kind/FWD_KIND_NEXT: value 1 is used twice")

    def test_reused_field_name(self):
        find(self.doc, "structs/fwd_query/fields/reserved")["name"] = "wire"
        self.refuses("structs/fwd_query/wire: name wire is used twice")

    def test_bad_identifier(self):
        for bad in ("Wire", "2wire", "wire-len", "class", ""):
            find(self.doc, "structs/fwd_query/fields")[3]["name"] = bad
            self.refuses(f"bad identifier '{bad}'")

    def test_bad_interface_id(self):
        find(self.doc, "tables/fwd_forward")["id"] = "forward"
        self.refuses("tables/fwd_forward: bad interface id 'forward'")

    def test_unknown_type(self):
        for bad in ("size_t", "bool", "struct fwd_nobody*", "const u32", "char"):
            find(self.doc, "structs/fwd_query/fields/wire_len")["type"] = bad
            self.refuses(f"structs/fwd_query/wire_len: unknown type '{bad}'")

    def test_unknown_error(self):
        find(self.doc, "tables/fwd_forward/functions/serve")["errors"].append("FWD_ERR_NOBODY")
        self.refuses("tables/fwd_forward/serve: unknown error 'FWD_ERR_NOBODY'")

    def test_no_struct_size(self):
        find(self.doc, "structs/fwd_query/fields").pop(0)
        self.refuses("structs/fwd_query: must begin with struct_size")

    def test_minimum_names_nothing(self):
        find(self.doc, "structs/fwd_query")["minimum"] = "nobody"
        self.refuses("structs/fwd_query: minimum names no field: 'nobody'")

    def test_missing_section(self):
        del self.doc["entry"]
        self.refuses("missing entry")


class AppendOnly(Case):
    def setUp(self):
        super().setUp()
        self.new = grown(self.doc)

    def test_growth_is_allowed(self):
        self.assertEqual(compare.compare(self.doc, self.doc), [])
        self.assertEqual(compare.compare(self.doc, self.new), [])

    def test_removed(self):
        find(self.new, "errors").pop()
        self.breaks(self.new, "errors/FWD_ERR_INTERNAL: removed")
        find(self.new, "tables/fwd_proxies/functions").pop(0)
        self.breaks(self.new, "tables/fwd_proxies/functions/count: removed")

    def test_renumbered(self):
        find(self.new, "errors/FWD_ERR_HTTP")["value"] = -50
        self.breaks(self.new, "errors/FWD_ERR_HTTP: value changed from -33 to -50")

    def test_retyped(self):
        find(self.new, "structs/fwd_query/fields/rcode")["type"] = "i32"
        self.breaks(self.new, "structs/fwd_query/fields/rcode: type changed from u32 to i32")
        find(self.new, "tables/fwd_forward/functions/cancel/args/handle")["type"] = "u32"
        self.breaks(self.new, "cancel/args/handle: type changed from u64 to u32")

    def test_inserted(self):
        fields = find(self.new, "structs/fwd_query/fields")
        fields.insert(4, fields.pop())
        self.breaks(self.new, "structs/fwd_query/fields/later: inserted before older ones")

    def test_reordered(self):
        fields = find(self.new, "structs/fwd_query/fields")
        fields[5], fields[6] = fields[6], fields[5]
        self.breaks(self.new, "structs/fwd_query/fields: order changed")

    def test_argument_added(self):
        find(self.new, "tables/fwd_forward/functions/run/args").append({"name": "more", "type": "u32", "brief": "More."})
        self.breaks(self.new, "tables/fwd_forward/functions/run/args: more added to a closed list")

    def test_thread_tag_changed(self):
        find(self.new, "tables/fwd_forward/functions/serve")["thread"] = "control-thread"
        self.breaks(self.new, "serve: thread changed from any-thread to control-thread")

    def test_errors_changed(self):
        find(self.new, "tables/fwd_forward/functions/serve")["errors"].append("FWD_ERR_NOMEM")
        self.breaks(self.new, "tables/fwd_forward/functions/serve: errors changed")

    def test_since_changed(self):
        find(self.new, "structs/fwd_query/fields/client")["since"] = "1.1"
        self.breaks(self.new, "structs/fwd_query/fields/client: since changed from 1.0 to 1.1")

    def test_new_without_new_version(self):
        find(self.new, "structs/fwd_query/fields/later")["since"] = "1.0"
        self.breaks(self.new, "structs/fwd_query/fields/later: new, but since 1.0 is not above 1.0")

    def test_embedded_struct_grew(self):
        find(self.new, "structs/fwd_addr/fields").append({"name": "more", "type": "u32", "since": "1.1", "brief": "More."})
        self.breaks(self.new, "structs/fwd_addr: grew")

    def test_minor_decreased(self):
        self.breaks({**self.new, "minor": -1}, "minor decreased")

    def test_minimum_changed(self):
        find(self.new, "structs/fwd_query")["minimum"] = "detail_cap"
        self.breaks(self.new, "structs/fwd_query: minimum changed from client to detail_cap")


class Versions(Case):
    def test_until_leaves_out_what_is_newer(self):
        self.assertIn("later", header.header(grown(self.doc)))
        self.assertEqual(header.header(model.until(grown(self.doc), "1.0")), header.header(self.doc))

    def test_overlay_merges_by_name(self):
        merged = model.merge(self.doc, {"structs": [{"name": "fwd_query", "fields": [{"name": "wire", "since": "1.1"}]}]})
        self.assertEqual(find(merged, "structs/fwd_query/fields/wire")["since"], "1.1")
        self.assertEqual(len(find(merged, "structs/fwd_query/fields")), len(find(self.doc, "structs/fwd_query/fields")))


class CommandLine(Case):
    def run_generator(self, *args):
        return subprocess.run([sys.executable, GENERATOR, *args], capture_output=True, text=True, check=False)

    def test_bad_description_leaves_the_output_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            bad, out = os.path.join(folder, "bad.json"), os.path.join(folder, "abi.h")
            del find(self.doc, "entry")["thread"]
            with open(bad, "w", encoding="utf-8") as file:
                json.dump(self.doc, file)
            done = self.run_generator("header", "--out", out, bad)
            self.assertEqual(done.returncode, 1)
            self.assertIn("entry: missing thread tag", done.stderr)
            self.assertFalse(os.path.exists(out))

    def test_stale_output(self):
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "abi.h")
            self.assertEqual(self.run_generator("header", "--out", out, SOURCE).returncode, 0)
            self.assertEqual(self.run_generator("header", "--check", "--out", out, SOURCE).returncode, 0)
            with open(out, "a", encoding="utf-8") as file:
                file.write("\n")
            done = self.run_generator("header", "--check", "--out", out, SOURCE)
            self.assertEqual(done.returncode, 1)
            self.assertIn("stale", done.stderr)

    def test_not_json(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write("{")
            file.flush()
            done = self.run_generator("verify", file.name)
        self.assertEqual(done.returncode, 1)
        self.assertIn(file.name, done.stderr)


if __name__ == "__main__":
    tap.main()
