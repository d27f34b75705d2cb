#!/usr/bin/env python3
"""Generates from abi/forward-abi.json what must agree with it, and checks that the contract only ever grows.

    abigen.py header|asserts|errors|reference [--out FILE] [--check] [--until X.Y] [--overlay FILE] ABI.json
    abigen.py verify [--overlay FILE] ABI.json       the description is sound
    abigen.py compare [--overlay FILE] FROZEN.json ABI.json    nothing but appended since FROZEN

Happy path: exit 0, the text on stdout or in --out (with --check: --out already holds it).
Failure: exit 1, one line per fault on stderr, each naming its place in the JSON; --out is left alone.
Needs nothing but Python's standard library.
"""

import argparse
import sys

sys.dont_write_bytecode = True  # the source tree may be read-only

import compare  # noqa: E402
import header  # noqa: E402
import model  # noqa: E402
import reference  # noqa: E402

OUTPUTS = {"header": header.header, "asserts": header.asserts, "errors": header.errors, "reference": reference.page}


def arguments():
    parser = argparse.ArgumentParser(prog="abigen.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in [*OUTPUTS, "verify", "compare"]:
        command = commands.add_parser(name)
        if name == "compare":
            command.add_argument("frozen", help="the frozen copy of an older minor")
        command.add_argument("abi", help="the description")
        command.add_argument("--overlay", action="append", default=[], help="merge this JSON over the description")
        if name in OUTPUTS:
            command.add_argument("--until", metavar="X.Y", help="leave out what is newer than this version")
            command.add_argument("--out", help="write here instead of to stdout")
            command.add_argument("--check", action="store_true", help="write nothing; fail when --out is stale")
    return parser.parse_args()


def load(options):
    """The description with its overlays, checked."""
    doc = model.load(options.abi)
    for overlay in options.overlay:
        doc = model.merge(doc, model.load(overlay))
    faults = model.check(doc)
    if faults:
        raise model.AbiError("\n".join(f"{options.abi}: {fault}" for fault in faults))
    return doc


def generate(options, doc):
    """Writes one output, or tells whether the file at --out is it."""
    if options.until:
        doc = model.until(doc, options.until)
    text = OUTPUTS[options.command](doc)
    if not options.out:
        sys.stdout.write(text)
        return
    if options.check:
        with open(options.out, encoding="utf-8") as file:
            if file.read() != text:
                raise model.AbiError(f"{options.out}: stale; run abi/gen/regenerate")
        return
    with open(options.out, "w", encoding="utf-8") as file:
        file.write(text)


def main():
    options = arguments()
    try:
        doc = load(options)
        if options.command == "compare":
            faults = compare.compare(model.load(options.frozen), doc)
            if faults:
                raise model.AbiError("\n".join(f"{options.abi}: {fault}" for fault in faults))
        elif options.command in OUTPUTS:
            generate(options, doc)
    except (model.AbiError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
