"""The scripts of this folder have no suffix; this makes one a module, so that others can use its parts."""

import importlib.machinery
import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def load(name):
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("bench_" + name, os.path.join(HERE, name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module
