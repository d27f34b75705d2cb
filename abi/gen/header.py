"""The C outputs of the generator: the public header, the layout asserts, the table of error texts."""

import re
import textwrap

import model

WIDTH = 100


def declare(ctype, name=""):
    """A C declaration: declare('const u8*', 'wire') is 'const uint8_t *wire'."""
    match = re.fullmatch(r"(const )?(struct )?([a-z0-9_]+)(\*+|\[[0-9]+\])?", ctype)
    const, struct, base, suffix = (part or "" for part in match.groups())
    base = model.SCALARS[base][0] if base in model.SCALARS else base
    head = const + struct + base
    if suffix.startswith("["):
        return f"{head} {name}{suffix}"
    return f"{head} {suffix}{name}".rstrip() if suffix else f"{head} {name}".rstrip()


def comment(lines, indent=0):
    """A doc block of paragraphs, each wrapped; continuation lines of a tag are indented."""
    pad = " " * indent
    out = []
    for line in lines:
        out += textwrap.wrap(line, WIDTH - indent - 7, subsequent_indent="    " if re.match("@|[A-Z][a-z]+:", line) else "",
                             break_long_words=False, break_on_hyphens=False)
    if len(out) == 1:
        return f"{pad}/** {out[0]} */"
    return "\n".join([f"{pad}/** {out[0]}"] + [f"{pad} *  {line}".rstrip() for line in out[1:]]) + " */"


def sentence(text):
    """With its full stop."""
    return text if text.endswith(".") else text + "."


def memory(function):
    """Who owns what a function is given and gives, in words."""
    parts = []
    lives = {"call": "borrowed until return", "done": "valid until return",
             "instance": "borrowed until destroy has returned"}
    for arg in function.get("args", []):
        if "life" in arg and arg.get("dir") == "inout":
            parts.append(f"{arg['name']} {lives[arg['life']]} and written to")
        elif "life" in arg:
            parts.append(f"{arg['name']} {lives[arg['life']]}")
        elif arg.get("dir") in ("out", "inout"):
            parts.append(f"{arg['name']} is the caller's and written to")
    return sentence("; ".join(parts)) if parts else "Nothing changes hands."


def thread(function):
    blocks = function.get("blocks", "never")
    return f"[{function['thread']}], " + ("never blocks." if blocks == "never" else f"blocks: {blocks}.")


def function_doc(function):
    """The doc block of a function or callback."""
    lines = [function["brief"]]
    lines += [f"@param {arg['name']} {arg_doc(arg)}" for arg in function.get("args", [])]
    if function.get("errors"):
        ok = "0 or above" if function["returns"] == "i32" else "a value"
        lines.append(f"@return {ok}, or {', '.join(function['errors'])}.")
    return lines + [f"Thread: {thread(function)}", f"Memory: {memory(function)}", f"Since: {function['since']}."]


def arg_doc(arg):
    """The sentence about an argument."""
    return arg["brief"] + (" May be NULL." if arg.get("nullable") and "NULL" not in arg["brief"] else "")


def field_doc(field):
    """One sentence, then what the description says about the field in words."""
    notes = []
    if field.get("dir") == "out":
        notes.append("Written by the other side.")
    if "enum" in field:
        notes.append("FWD_OK or FWD_ERR_*." if field["enum"] == "errors" else f"enum {field['enum']}.")
    if field.get("nullable") and "NULL" not in field["brief"]:
        notes.append("May be NULL.")
    if "life" in field:
        notes.append({"call": "Borrowed until return.", "done": "Valid until done returns.",
                      "instance": "Must stay valid until destroy has returned."}[field["life"]])
    return " ".join([sentence(field["brief"])] + notes)


def parameters(function, indent):
    """The lines of a parameter list, broken between parameters only."""
    lines = [""]
    args = [declare(arg["type"], arg["name"]) for arg in function.get("args", [])] or ["void"]
    for index, arg in enumerate(args):
        arg += "," if index + 1 < len(args) else ""
        if lines[-1] and indent + len(lines[-1]) + 1 + len(arg) > WIDTH:
            lines.append(arg)
        else:
            lines[-1] += (" " if lines[-1] else "") + arg
    return lines


def prototype(function, name, indent=0):
    """'int32_t (*name)(args);' over as many lines as it needs; name is already decorated."""
    head = " " * indent + declare(function["returns"], name)
    lines = parameters(function, len(head) + 2)
    return head + "(" + ("\n" + " " * (len(head) + 1)).join(lines) + ");"


def macro_name(struct):
    return struct["name"].upper()


def struct_text(struct):
    """A struct, service or table."""
    lines = [struct["brief"]]
    if "id" in struct:
        lines.append(f"Interface {struct['id']}.")
    if struct.get("filled_by") == "host":
        lines.append("Memory: the host's, which also sets struct_size.")
    elif struct.get("filled_by") == "module":
        lines.append("Memory: the module's.")
    elif struct.get("filled_by") == "both":
        lines.append("Memory: the caller's, which sets struct_size.")
    lines.append(f"Since: {struct['since']}.")
    out = [comment(lines), f"struct {struct['name']} {{"]
    for field in struct.get("fields", []):
        out += [comment([field_doc(field)], 4), f"    {declare(field['type'], field['name'])};"]
    for function in struct.get("functions", []):
        out += ["", comment(function_doc(function), 4), prototype(function, f"(*{function['name']})", 4)]
    return "\n".join(out + ["};"])


def enum_text(name, brief, values, key="brief", unknown=None):
    """An enum; it gives names to numbers, fields themselves are uint32_t or int32_t."""
    lines = [brief] + ([f"Unknown value: {sentence(unknown)}"] if unknown else [])
    out = [comment(lines), f"enum {name} {{"]
    for index, value in enumerate(values):
        out += [comment([sentence(value[key]) if key == "brief" else value[key]], 4),
                f"    {value['name']} = {value['value']}" + ("," if index + 1 < len(values) else "")]
    return "\n".join(out + ["};"])


PREAMBLE = """\
/* Generated by abi/gen/abigen.py from abi/forward-abi.json. Do not edit.
 *
 * {summary}
 *
{rules}
 */
#ifndef FORWARD_ABI_H
#define FORWARD_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define FWD_ABI_MAJOR {major}
#define FWD_ABI_MINOR {minor}
/** major << 16 | minor, for fwd_module.abi_version. */
#define FWD_ABI_VERSION ((uint32_t)FWD_ABI_MAJOR << 16 | FWD_ABI_MINOR)

/** Whether struct_size of *object covers a field: only then may it be read or written. */
#define FWD_COVERS(object, field)                                                                  \\
    ((size_t)((const char *)(&(object)->field + 1) - (const char *)(object)) <=                    \\
     (object)->struct_size)

/** Whether a table has a function: to be asked before the first call of each. */
#define FWD_HAS(table, fn) (FWD_COVERS(table, fn) && (table)->fn != NULL)

/** Initialiser: all zero but struct_size. struct fwd_query query = FWD_INIT(struct fwd_query); */
#ifdef __cplusplus
#define FWD_INIT(type)                                                                             \\
    [] {{                                                                                           \\
        type object = {{}};                                                                          \\
        object.struct_size = (uint32_t)sizeof(type);                                               \\
        return object;                                                                             \\
    }}()
#else
#define FWD_INIT(type)                                                                             \\
    {{                                                                                              \\
        .struct_size = sizeof(type)                                                                \\
    }}
#endif

/** Marks the one exported symbol. */
#if defined(__GNUC__)
#define FWD_EXPORT __attribute__((visibility("default")))
#else
#define FWD_EXPORT
#endif
"""


def rules_text(rules):
    out = []
    for number, rule in enumerate(rules, 1):
        out += textwrap.wrap(f"{number}. {rule}", WIDTH - 3, subsequent_indent="   ",
                             break_long_words=False, break_on_hyphens=False)
    return "\n".join(f" * {line}" for line in out)


def header(doc):
    """The public header."""
    parts = [PREAMBLE.format(summary=doc["summary"], rules=rules_text(doc["rules"]),
                             major=doc["major"], minor=doc["minor"])]
    for constant in doc["constants"]:
        parts.append(comment([constant["brief"]]) + f"\n#define {constant['name']} {constant['value']}\n")
    ids = [f"#define {macro_name(struct)}_ID \"{struct['id']}\""
           for section in ("services", "tables") for struct in doc[section] if "id" in struct]
    parts.append("/* Ids for get_interface (tables) and get_service (services). */\n" + "\n".join(ids) + "\n")
    sizes = [f"#define {macro_name(struct)}_MIN_SIZE {model.minimum(doc, struct)}"
             for struct in doc["structs"] if struct.get("sized")]
    parts.append("/* The least struct_size to accept from the other side (LP64). What lies beyond it is optional: test\n"
                 " * FWD_COVERS before reading or writing it. */\n" + "\n".join(sizes) + "\n")
    parts.append(enum_text("fwd_status", "Results. 0 or above is success.", doc["errors"], "text") + "\n")
    for enum in doc["enums"]:
        parts.append(enum_text(enum["name"], enum["brief"], enum["values"], unknown=enum["unknown"]) + "\n")
    for handle in doc["handles"]:
        parts.append(comment([handle["brief"], "Opaque."]) + f"\nstruct {handle['name']};\n")
    names = [struct["name"] for section in model.LAYOUTS for struct in doc[section]]
    parts.append("\n".join(f"struct {name};" for name in names) + "\n")
    for callback in doc["callbacks"]:
        parts.append(comment(function_doc(callback)) + "\ntypedef "
                     + prototype(callback, f"(*{callback['name']})") + "\n")
    for section in model.LAYOUTS:
        parts += [struct_text(struct) + "\n" for struct in doc[section]]
    parts.append(comment(function_doc(doc["entry"])) + "\nFWD_EXPORT " + prototype(doc["entry"], doc["entry"]["name"])
                 + "\n")
    parts.append("#ifdef __cplusplus\n}\n#endif\n\n#endif /* FORWARD_ABI_H */\n")
    return "\n".join(parts)


def asserts(doc):
    """A C file that does not compile when the header's layout is not the description's."""
    out = ["/* Generated by abi/gen/abigen.py from abi/forward-abi.json. Do not edit.",
           " * Offsets and sizes of every shared struct under LP64, as the description has them. */",
           "/* clang-format off */",
           "#include <forward/abi.h>", "",
           "_Static_assert(sizeof(void *) == 8, \"the ABI is laid out for LP64\");"]
    for section in model.LAYOUTS:
        for struct in doc[section]:
            placed, size = model.layout(doc, struct)
            out.append("")
            out += [f"_Static_assert(offsetof(struct {struct['name']}, {member['name']}) == {offset}, "
                    f"\"{struct['name']}.{member['name']}\");" for member, offset in placed]
            out.append(f"_Static_assert(sizeof(struct {struct['name']}) == {size}, \"{struct['name']}\");")
    return "\n".join(out) + "\n"


def errors(doc):
    """X-macro lines of all errors, for error_text and describe."""
    out = ["/* Generated by abi/gen/abigen.py from abi/forward-abi.json. Do not edit.",
           " * Define FWD_ERROR(name, value, text) before including. */"]
    out += [f"FWD_ERROR({error['name']}, {error['value']}, \"{error['text']}\")" for error in doc["errors"]]
    return "\n".join(out) + "\n"
