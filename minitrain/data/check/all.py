"""All checks of a corpus, the cheap ones first."""

from minitrain.config.check_config import FINDINGS, SEVERITIES
from minitrain.data.check.corpus import Corpus, Finding
from minitrain.data.check.drift import drift
from minitrain.data.check.duplicates import duplicates
from minitrain.data.check.encodings import encodings
from minitrain.data.check.labels import label_findings
from minitrain.data.check.leakage import leakage
from minitrain.data.check.near_duplicates import near_duplicates
from minitrain.data.check.scripts import scripts
from minitrain.data.check.texts import short_texts

CHECKS = (short_texts, encodings, scripts, duplicates, label_findings, drift, leakage, near_duplicates)


def find_all(corpus: Corpus) -> list[Finding]:
    """What reading found, and every check but those of tokens."""
    return [*corpus.findings, *(finding for check in CHECKS for finding in check(corpus))]


def in_order(findings: list[Finding]) -> list[Finding]:
    """The worst first, then in the order of `FINDINGS`."""
    names = list(FINDINGS)
    return sorted(findings, key=lambda each: (SEVERITIES.index(each.severity), names.index(each.name)))
