#!/usr/bin/env python3
"""Reads the reports of an Autobahn run, prints a summary, and judges strictly.

A case passes when both its behaviour and its closing behaviour are "OK". The only exceptions are
the cases for which the suite has no other verdict than "INFORMATIONAL". "NON-STRICT",
"UNIMPLEMENTED", and a case that the server announced but that has no report, are failures.

The last line of the output is always "N passed, N failed". The exit status is 0 when every
announced case passed and the client ended well, otherwise 1.
"""

import argparse
import json
import os
import re
import sys
from collections import Counter

CATEGORIES = {
    1: "Framing",
    2: "Pings/Pongs",
    3: "Reserved Bits",
    4: "Opcodes",
    5: "Fragmentation",
    6: "UTF-8 Handling",
    7: "Close Handling",
    9: "Limits/Performance",
    10: "Auto-Fragmentation",
    12: "Compression (payloads)",
    13: "Compression (parameters)",
}

# Here the suite records what the client does and gives no verdict: data sent after a Close frame
# (7.1.6), and close codes outside the ranges that RFC 6455 defines (7.13.1, 7.13.2).
INFORMATIONAL_CASES = {"7.1.6", "7.13.1", "7.13.2"}

BEHAVIOURS = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED", "MISSING"]


def main():
    options = parse_arguments()
    announced = announced_cases(options.log)
    results = read_index(options.reports, options.agent)

    print_table(announced, results)

    failures = [case for case in announced if not passes(case, results.get(case))]
    for case in failures:
        print(describe(case, results.get(case), options.reports))

    complaints = []
    if not announced:
        complaints.append("the server announced no cases")
    surplus = sorted(set(results) - set(announced), key=case_key)
    if surplus:
        complaints.append("reports of cases that were not announced: " + ", ".join(surplus))
    if options.client_status != 0:
        complaints.append(f"the client ended with status {options.client_status}")
    for complaint in complaints:
        print(f"error: {complaint}")

    print(f"{len(announced) - len(failures)} passed, {len(failures)} failed")
    sys.exit(1 if failures or complaints else 0)


def parse_arguments():
    parser = argparse.ArgumentParser(description="Summarise an Autobahn run.")
    parser.add_argument("--log", required=True, help="what the fuzzing server printed")
    parser.add_argument("--reports", required=True, help="directory with index.json")
    parser.add_argument("--agent", required=True, help="name the client gave itself")
    parser.add_argument("--client-status", type=int, default=0, help="exit status of the client")
    return parser.parse_args()


def announced_cases(log):
    """The ids of the cases that the server said it would run, in its order.

    The index holds only what was run, so it alone cannot show that a case was lost.
    """
    with open(log, encoding="utf-8", errors="replace") as file:
        text = file.read()
    count = re.search(r"^Ok, will run (\d+) test cases", text, re.MULTILINE)
    names = re.search(r"^Cases = \[(.*)\]$", text, re.MULTILINE)
    if not count or not names:
        return []
    cases = re.findall(r"'([\d.]+)'", names.group(1))
    if len(cases) != int(count.group(1)):
        sys.exit(f"error: {log} announces {count.group(1)} cases but names {len(cases)}")
    return cases


def read_index(reports, agent):
    """The index's entries by case id; empty when the reports were never written."""
    try:
        with open(os.path.join(reports, "index.json"), encoding="utf-8") as file:
            return json.load(file).get(agent, {})
    except FileNotFoundError:
        return {}


def case_key(case):
    return [int(part) for part in case.split(".")]


def behaviour(result):
    return result["behavior"] if result else "MISSING"


def close_behaviour(result):
    return result["behaviorClose"] if result else "MISSING"


def allowed(case):
    return {"OK", "INFORMATIONAL"} if case in INFORMATIONAL_CASES else {"OK"}


def passes(case, result):
    return behaviour(result) in allowed(case) and close_behaviour(result) in allowed(case)


def describe(case, result, reports):
    if not result:
        return f"not OK: {case} has no report"
    page = os.path.splitext(result["reportfile"])[0] + ".html"
    path = os.path.relpath(os.path.join(reports, page))
    return (
        f"not OK: {case} behaviour {behaviour(result)}, close {close_behaviour(result)}, "
        f"close code {result['remoteCloseCode']}, {result['duration']} ms: {path}"
    )


def print_table(announced, results):
    """One line per category. The last column counts the cases that closed as they should."""
    headings = ["cases", *(name.lower() for name in BEHAVIOURS), "close ok"]
    print(f"{'category':<28}" + "".join(f"{heading:>15}" for heading in headings))
    for category in sorted({case_key(case)[0] for case in announced}):
        cases = [case for case in announced if case_key(case)[0] == category]
        counts = Counter(behaviour(results.get(case)) for case in cases)
        closed = sum(close_behaviour(results.get(case)) in allowed(case) for case in cases)
        title = f"{category:>2} {CATEGORIES.get(category, '')}"
        cells = [len(cases), *(counts[name] for name in BEHAVIOURS), closed]
        print(f"{title:<28}" + "".join(f"{cell:>15}" for cell in cells))


if __name__ == "__main__":
    main()
