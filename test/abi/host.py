"""A host in Python: every struct, table and signature is made at run time from forward-abi.json; there is no C header here.

Abi reads the description and makes ctypes classes of it. Module loads a forward.so with them. Host is an instance that is served
queries and remembers their completions, in threaded or host-driven mode.

Threads: with I/O threads the module calls done on its own; Host keeps what it is told under a condition.
Ownership: what the module points to in a completion is copied before done returns.
"""

import ctypes
import json
import re
import select
import threading
import time

SCALARS = {"u8": ctypes.c_uint8, "u16": ctypes.c_uint16, "u32": ctypes.c_uint32, "u64": ctypes.c_uint64,
           "i32": ctypes.c_int32, "i64": ctypes.c_int64, "void": None}


class Abi:
    """ctypes classes and numbers of the contract, by their names: abi.struct["fwd_query"], abi.FWD_KIND_ANSWER."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.doc = json.load(file)
        for values in [self.doc["constants"], self.doc["errors"], *(enum["values"] for enum in self.doc["enums"])]:
            for value in values:
                setattr(self, value["name"], value["value"])
        self.callback = {entry["name"]: self.function(entry) for entry in self.doc["callbacks"]}
        self.struct = {}
        self.ids = {}
        for entry in self.doc["structs"] + self.doc["services"] + self.doc["tables"]:
            self.struct[entry["name"]] = self.make_struct(entry)
            self.ids[entry["name"]] = entry.get("id", "").encode()
        self.entry = self.function(self.doc["entry"])

    def ctype(self, text):
        """The ctypes class of a type; all pointers are c_void_p, which takes bytes, arrays, byref and None."""
        array = re.fullmatch(r"(\w+)\[(\d+)\]", text)
        if array:
            return SCALARS[array[1]] * int(array[2])
        if text.endswith("*"):
            return ctypes.c_void_p
        if text in SCALARS:
            return SCALARS[text]
        return self.struct[text[len("struct "):]] if text.startswith("struct ") else self.callback[text]

    def function(self, entry):
        return ctypes.CFUNCTYPE(self.ctype(entry["returns"]), *(self.ctype(arg["type"]) for arg in entry["args"]))

    def make_struct(self, entry):
        """A Structure whose layout is compared with the written-down offsets."""
        fields = [(field["name"], self.ctype(field["type"])) for field in entry.get("fields", [])]
        fields += [(function["name"], self.function(function)) for function in entry.get("functions", [])]
        made = type(entry["name"], (ctypes.Structure,), {"_fields_": fields})
        for member in entry.get("fields", []) + entry.get("functions", []):
            assert getattr(made, member["name"]).offset == member["offset"], f"{entry['name']}.{member['name']}"
        assert ctypes.sizeof(made) == entry["size"], entry["name"]
        return made

    def new(self, name, **values):
        """A zeroed struct with struct_size set."""
        return self.struct[name](struct_size=ctypes.sizeof(self.struct[name]), **values)

    def has(self, table, function):
        """FWD_HAS: struct_size covers the function and it is not NULL."""
        member = getattr(type(table), function)
        return member.offset + member.size <= table.struct_size and bool(getattr(table, function))

    def table(self, name, address):
        """The table at an address, which must have every function of the description."""
        table = self.struct[name].from_address(address)
        entry = next(entry for entry in self.doc["tables"] if entry["name"] == name)
        for function in entry["functions"]:
            assert self.has(table, function["name"]), f"{name}.{function['name']} is absent"
        return table


class Failure(Exception):
    """A call that returned an error number: code, message, file, line and JSON pointer."""

    def __init__(self, code, error=None):
        self.code = code
        self.message, self.file, self.pointer = (
            [ctypes.string_at(getattr(error, key)).decode() for key in ("msg", "file", "pointer")]
            if error else ["", "", ""])
        self.line = error.line if error else 0
        super().__init__(f"{code}: {self.file}:{self.line} {self.message} {self.pointer}")


class Module:
    """A loaded forward.so."""

    def __init__(self, abi, path):
        self.abi = abi
        self.library = ctypes.CDLL(path, mode=ctypes.DEFAULT_MODE)
        entry = abi.entry((abi.doc["entry"]["name"], self.library))
        assert not entry(abi.doc["major"] + 1)
        self.module = abi.table("fwd_module", entry(abi.doc["major"]))
        self.forward, self.proxies, self.corefile = (
            abi.table(name, self.module.get_interface(abi.ids[name]))
            for name in ("fwd_forward", "fwd_proxies", "fwd_corefile"))

    def describe(self):
        return ctypes.string_at(self.module.describe())

    def strerror(self, code):
        return ctypes.string_at(self.module.strerror(code)).decode()

    def error(self):
        """A struct fwd_error with buffers, which ctypes keeps alive with it."""
        error = self.abi.new("fwd_error")
        for key in ("msg", "file", "pointer"):
            buffer = ctypes.create_string_buffer(512)
            setattr(error, key, ctypes.addressof(buffer))
            setattr(error, key + "_cap", len(buffer))
            setattr(error, "keep_" + key, buffer)
        return error

    def call(self, function, *args, error=None):
        """Calls, and raises what it returns when that is negative."""
        result = function(*args, ctypes.byref(error)) if error else function(*args)
        if result < 0:
            raise Failure(result, error)
        return result

    def collect(self, function, *args, error=None):
        """Calls a function that takes (..., sink, sink_arg[, error]) and returns all that was pushed, as text."""
        pieces = []

        def push(_arg, data, length):
            pieces.append(ctypes.string_at(data, length))
            return 0

        self.call(function, *args, self.abi.callback["fwd_sink_fn"](push), None, error=error)
        return b"".join(pieces).decode()

    def parse_corefile(self, text, file="Corefile"):
        text = text.encode()
        return json.loads(self.collect(self.corefile.parse, text, len(text), file.encode(), error=self.error()))

    def corefile_to_json(self, tokens=None, text=None, file="Corefile", flags=0):
        """tokens: [(text, file, line)]; or text, the directives themselves."""
        directive = self.abi.new("fwd_directive", file=address_of(file.encode(), keep := []), flags=flags)
        if text is not None:
            directive.text, directive.text_len = address_of(text.encode(), keep), len(text.encode())
        else:
            array = (self.abi.struct["fwd_token"] * len(tokens))(*(
                self.abi.new("fwd_token", text=address_of(word.encode(), keep), text_len=len(word.encode()),
                             file=address_of(name.encode(), keep), line=line) for word, name, line in tokens))
            directive.tokens, directive.token_count = ctypes.addressof(array), len(tokens)
        return self.collect(self.forward.corefile_to_json, ctypes.byref(directive), error=self.error())

    def check(self, config):
        config = config.encode()
        self.call(self.forward.check, config, len(config), error=self.error())

    def metrics(self, form):
        return self.collect(self.forward.metrics, None, form)


def address_of(data, keep):
    """The address of a NUL-terminated copy, which lives as long as the list keep."""
    buffer = ctypes.create_string_buffer(data)
    keep.append(buffer)
    return ctypes.addressof(buffer)


class Completion:
    """A copy of a fwd_completion."""

    def __init__(self, raw):
        for name, _ in raw._fields_:
            setattr(self, name, getattr(raw, name))
        self.wire = ctypes.string_at(raw.wire, raw.wire_len) if raw.wire else None
        self.detail = ctypes.string_at(raw.detail, raw.detail_len).decode() if raw.detail else None
        self.upstream = ctypes.string_at(raw.upstream).decode() if raw.upstream else None


class Host:
    """A started instance. config is the JSON configuration as a dict; io_threads 0 in it makes the mode host-driven."""

    def __init__(self, module, config):
        self.module, self.abi = module, module.abi
        self.forward, self.proxies = module.forward, module.proxies
        self.driven = config.get("io_threads") == 0
        self.changed = threading.Condition()
        self.completions = {}
        self.faults = []
        self.tokens = 0
        self.done_fn = self.abi.callback["fwd_done_fn"](self.done)  # must outlive the instance
        host = self.abi.new("fwd_host", done=self.done_fn,
                            completion_size=ctypes.sizeof(self.abi.struct["fwd_completion"]))
        text = json.dumps(config).encode()
        instance = ctypes.c_void_p()
        module.call(self.forward.create, ctypes.byref(host), text, len(text), ctypes.byref(instance),
                    error=module.error())
        self.instance = instance
        module.call(self.forward.start, instance, error=module.error())

    def done(self, _arg, completions, count):
        """Called by the module. An exception cannot pass through it, so it is kept."""
        try:
            kind = self.abi.struct["fwd_completion"]
            with self.changed:
                for index in range(count):
                    completion = Completion(kind.from_address(completions + index * ctypes.sizeof(kind)))
                    assert completion.token not in self.completions, "a query ended twice"
                    self.completions[completion.token] = completion
                self.changed.notify_all()
        except Exception as fault:  # pylint: disable=broad-except
            self.faults.append(fault)

    def batch(self, wires, tcp=False):
        """An array of fwd_query over copies of the wires; tokens are given here."""
        made, keep = [], []
        for wire in wires:
            self.tokens += 1
            made.append(self.abi.new("fwd_query", token=self.tokens, wire=address_of(wire, keep), wire_len=len(wire),
                                     flags=self.abi.FWD_QUERY_TCP if tcp else 0))
        array = (self.abi.struct["fwd_query"] * len(made))(*made)
        array.keep = keep
        return array

    def serve(self, *wires, tcp=False):
        """Serves a batch; returns its queries with their verdicts."""
        array = self.batch(wires, tcp)
        self.module.call(self.forward.serve, self.instance, array, len(array))
        return list(array)

    def exchange(self, proxy, wire, options=0):
        array = self.batch([wire])
        self.module.call(self.proxies.exchange, proxy, array, options)
        return array[0]

    def cancel(self, handle):
        self.module.call(self.forward.cancel, self.instance, handle)

    def wait(self, query, seconds=10):
        """The completion of a query; in host-driven mode this is where the module runs."""
        end = time.monotonic() + seconds
        if self.driven:
            poll = select.poll()
            poll.register(self.module.call(self.forward.poll_fd, self.instance, 0), select.POLLIN)
            while query.token not in self.completions and time.monotonic() < end:
                poll.poll(1000)
                self.module.call(self.forward.run, self.instance, 0)
        else:
            with self.changed:
                self.changed.wait_for(lambda: query.token in self.completions, seconds)
        if self.faults:
            raise self.faults[0]
        return self.completions[query.token]

    def info(self):
        return json.loads(self.module.collect(self.forward.info, self.instance))

    def pool_stats(self, proxy, proto):
        stats = self.abi.new("fwd_pool_stats")
        self.module.call(self.proxies.pool_stats, proxy, proto, ctypes.byref(stats))
        return stats

    def stop(self, drain_ns=0):
        self.module.call(self.forward.stop, self.instance, drain_ns)

    def destroy(self):
        """Ends the instance; no call comes afterwards, so done_fn may go."""
        instance, self.instance = self.instance, None
        if instance:
            self.forward.destroy(instance)
