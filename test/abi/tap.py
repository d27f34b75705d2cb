"""Runs the unittest cases of the main module and prints TAP, so that each case counts as those of libcheck do."""

import sys
import traceback
import unittest


class Result(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.lines = []

    def report(self, status, test, reason=""):
        self.lines.append(f"{status} {len(self.lines) + 1} - {test.id()}{reason}")
        print(self.lines[-1], flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.report("ok", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.report("ok", test, f" # SKIP {reason}")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.report("not ok", test)
        print(self.failures[-1][1], file=sys.stderr)

    def addError(self, test, err):
        super().addError(test, err)
        self.report("not ok", test)
        print(self.errors[-1][1], file=sys.stderr)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.report("not ok", subtest)
            print("".join(traceback.format_exception(*err)), file=sys.stderr)


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    result = Result()
    print(f"1..{suite.countTestCases()}")
    suite.run(result)
    sys.exit(not result.wasSuccessful())
