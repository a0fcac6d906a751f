"""Counts cases and prints them the way tests/run reads them."""

import sys


class Tally:
    """What passed, what failed, what could not run; one line for each case."""

    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.skipped = 0

    def ok(self, what):
        self.passed += 1
        print(f"  ok    {what}")

    def bad(self, what, why):
        self.failed += 1
        print(f"  FAIL  {what}: {why}")

    def skip(self, what, why):
        self.skipped += 1
        print(f"  skip  {what}: {why}")

    def check(self, what, problems):
        """One case with the list of what was wrong with it; empty is a pass."""
        if problems:
            more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
            self.bad(what, "; ".join(problems[:3]) + more)
        else:
            self.ok(what)

    def finish(self):
        """Prints the totals and ends the program. No case at all is a failure."""
        if self.passed + self.failed + self.skipped == 0:
            self.bad("cases", "there were none")
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        sys.exit(1 if self.failed else 0)
