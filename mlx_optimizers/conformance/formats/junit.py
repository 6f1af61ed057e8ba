"""A report as JUnit XML, which CI services show case by case."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from mlx_optimizers.conformance.formats.summary import number, place
from mlx_optimizers.conformance.report import Report
from mlx_optimizers.conformance.verdict import Verdict

__all__ = ["junit"]

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """Write the report as JUnit XML: a test suite an optimizer, a test case a case.

    What deviates is a failure, what failed is an error, what is unsupported is skipped.
    """
    root = ET.Element("testsuites", name=_text(f"mlx-optimizers check {report.name}"))
    for optimizer in dict.fromkeys(result.case.optimizer for result in report.results):
        results = [result for result in report.results if result.case.optimizer == optimizer]
        suite = ET.SubElement(root, "testsuite", name=optimizer)
        properties = ET.SubElement(suite, "properties")
        facts = {"backend": report.name, "version": report.version, "device": report.device}
        for name, value in {**facts, "formula": results[0].formula.name}.items():
            ET.SubElement(properties, "property", name=name, value=_text(value))
        for result in results:
            _add_case(suite, result)
        _count(suite, results)
    if report.broken is not None:
        suite = ET.SubElement(root, "testsuite", name="protocol", tests="1", failures="0", errors="1")
        case = ET.SubElement(suite, "testcase", classname="protocol", name="the adapter keeps the protocol")
        ET.SubElement(case, "error", message="the protocol was broken").text = _text(report.broken)
    _count(root, report.results, broken=report.broken is not None)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _add_case(suite: ET.Element, result: Verdict) -> None:
    case = ET.SubElement(suite, "testcase", classname=result.case.optimizer, name=result.case.id)
    if result.word == "deviates":
        computes = f"computes {' or '.join(result.diagnosis)}" if result.diagnosis else "computes no formula known here"
        failure = ET.SubElement(case, "failure", type="deviates", message=_text(computes))
        failure.text = _text(_words(result))
    elif result.word == "failed":
        ET.SubElement(case, "error", type="failed", message=_text(result.reason or ""))
    elif result.word == "unsupported":
        ET.SubElement(case, "skipped", message=_text(result.reason or ""))


def _words(result: Verdict) -> str:
    """Say where a deviating case first leaves the interval."""
    if result.first is None:
        return result.reason or ""
    return f"{place(result, result.first)}, {number(result.first.excess)} times the accepted distance"


def _count(element: ET.Element, results: list[Verdict], broken: bool = False) -> None:
    verdicts = [result.word for result in results]
    element.set("tests", str(len(results) + broken))
    element.set("failures", str(verdicts.count("deviates")))
    element.set("errors", str(verdicts.count("failed") + broken))
    element.set("skipped", str(verdicts.count("unsupported")))


def _text(text: str) -> str:
    """Replace the characters that XML cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
