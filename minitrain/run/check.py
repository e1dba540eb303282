"""`check.py`: look at the data before training, and say what is wrong with which rows; nothing is changed."""

import os
from collections.abc import Sequence
from typing import Any

from minitrain.config.check_config import ANY, CheckConfig
from minitrain.data.check.all import find_all, in_order
from minitrain.data.check.corpus import Corpus, Finding
from minitrain.data.check.labels import class_counts
from minitrain.data.check.read import read_corpus
from minitrain.data.check.tokens import Tokens, count_tokens, token_findings
from minitrain.data.labels.notes import odd_names, plain
from minitrain.data.load import length_limit
from minitrain.data.splits import with_default_data
from minitrain.data.tokenizer.tokenizer import Tokenizer, load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.run.output_file import check_writable, write_json
from minitrain.storage.hub import resolve_model

WIDE = 100  # characters of a line with a row
SHORT = 60  # characters of a text


def check_data(config: CheckConfig) -> dict[str, Any]:
    """Check the data, print what is found, and return it in the form of --json.

    Under torchrun the main process does it alone; the others return {} at once.

    Raises:
        MinitrainError: The data cannot be read at all, or --fail_on names something that was found.
    """
    if os.environ.get("RANK", "0") != "0":
        return {}
    check_writable(config.json)
    tokenizer, limit = (None, 0) if config.model is None else _tokenizer(config.model, config.max_length)
    data = with_default_data(config.named())
    corpus = read_corpus(data)
    findings, tokens = find_all(corpus), None
    if tokenizer is not None:
        tokens = count_tokens(corpus, tokenizer, limit)
        findings += token_findings(corpus, tokenizer, tokens, config.long_text_options)
    findings = in_order(findings)
    report = as_report(corpus, findings, tokens, config.show)
    print(*header_lines(config, corpus, tokens), "", *table(findings, corpus), sep="\n")
    for finding in findings:
        print("", *details(finding, corpus, config.show), sep="\n")
    if findings:
        print("", f"--show N shows N rows of each (now {config.show}), --json FILE writes them", sep="\n")
    write_json(config.json, report)
    _check_fails(config, findings)
    return report


def _tokenizer(model: str, max_length: int | None) -> tuple[Tokenizer, int]:
    """The tokenizer of a model, and how many tokens it reads."""
    from minitrain.model.weights import read_config  # imports torch, which a check without a model does not need

    source = resolve_model(model)
    tokenizer = load_tokenizer(source)
    return tokenizer, length_limit(max_length, tokenizer, read_config(source).max_length)


def _check_fails(config: CheckConfig, findings: Sequence[Finding]) -> None:
    asked = config.fail_on or ()
    found = [each.name for each in findings if ANY in asked or each.name in asked or each.severity in asked]
    if found:
        raise MinitrainError(f"--fail_on {','.join(asked)}: found {', '.join(found)}")


def as_report(corpus: Corpus, findings: Sequence[Finding], tokens: Tokens | None, examples: int) -> dict[str, Any]:
    """What was found, for JSON."""
    return {
        "splits": {name: len(rows) for name, rows in corpus.rows_of.items()},
        "text_columns": list(corpus.text_columns),
        "label_column": corpus.label_column,
        "labels": {
            corpus.names[label]: count for label, count in sorted(class_counts(corpus, corpus.train).items())
        }
        if corpus.names
        else None,
        "tokens": None if tokens is None else tokens.facts(),
        "left_out": list(corpus.left_out),
        "findings": [_as_json(finding, corpus, examples) for finding in findings],
    }


def _as_json(finding: Finding, corpus: Corpus, examples: int) -> dict[str, Any]:
    return {
        "name": finding.name,
        "severity": finding.severity,
        "count": len(finding.rows),
        "of": finding.of,
        "share": len(finding.rows) / finding.of if finding.of else 0.0,
        "at_least": finding.at_least,
        "by_split": corpus.by_split(finding.rows),
        "what": finding.what,
        "effect": finding.effect,
        "way_out": finding.way_out,
        "examples": [
            _row_as_json(corpus, row, finding.notes.get(row))
            | ({"as": _row_as_json(corpus, finding.twins[row])} if row in finding.twins else {})
            for row in finding.rows[:examples]
        ],
    }


def _row_as_json(corpus: Corpus, row: int, note: str | None = None) -> dict[str, Any]:
    split, source, number = corpus.place(row)
    return {
        "split": split,
        "source": source,
        "row": number,
        "texts": [column[row] for column in corpus.texts],
        "label": corpus.label_shown(row),
        **({} if note is None else {"note": note}),
    }


def header_lines(config: CheckConfig, corpus: Corpus, tokens: Tokens | None) -> list[str]:
    """What was looked at."""
    splits = ", ".join(f"{name} {len(rows):,}" for name, rows in corpus.rows_of.items())
    lines = [f"data      {splits} rows; text in {', '.join(map(repr, corpus.text_columns))}"]
    if corpus.names:
        counts = class_counts(corpus, corpus.train)
        shown = ", ".join(f"{plain(corpus.names[i])} {counts[i]:,}" for i in range(len(corpus.names))[:10])
        more = f", and {len(corpus.names) - 10} more" if len(corpus.names) > 10 else ""
        lines.append(f"labels    {shown}{more} in train, column {corpus.label_column!r}")
        if corpus.has_classes:
            notes = odd_names([corpus.names[i] for i in counts], counts.total(), corpus.label_column)
            lines += [f"          {note}" for note in notes]
    elif corpus.has_scores:
        lines.append(f"labels    scores in column {corpus.label_column!r}")
    lines += [f"          {note}" for note in corpus.left_out]
    lines += [f"          {note}" for table in corpus.tables.values() for note in dict.fromkeys(table.notes)]
    if tokens is None:
        return [*lines, "tokens    not counted; --model NAME counts them, truncated and unknown ones"]
    facts = tokens.facts()
    return [
        *lines,
        f"tokens    median {facts['median']}, 95% within {facts['percentile_95']}, longest {facts['longest']}; "
        f"{facts['truncated'] / len(corpus):.1%} of the texts are longer than {facts['limit']}, "
        f"{facts['unknown'] / max(1, facts['text_tokens']):.2%} of the tokens unknown to {config.model}",
    ]


def table(findings: Sequence[Finding], corpus: Corpus) -> list[str]:
    """One line for each finding."""
    if not findings:
        return ["nothing found; --help lists what is looked for"]
    lines = [f"{'severity':<10}{'finding':<22}{'rows':>10}{'share':>8}  where"]
    for finding in findings:
        count, least = len(finding.rows), "+" if finding.at_least else ""
        where = ", ".join(f"{name} {rows:,}" for name, rows in corpus.by_split(finding.rows).items())
        share = f"{count / finding.of:.1%}" if finding.of and count else "-"
        rows = f"{count:,}{least}" if count else "-"
        lines.append(f"{finding.severity:<10}{finding.name:<22}{rows:>10}{share:>8}  {where}")
    return lines


def details(finding: Finding, corpus: Corpus, examples: int) -> list[str]:
    """What a finding means, and some of its rows."""
    lines = [f"{finding.name}: {finding.what} {finding.effect}", f"  -> {finding.way_out}"]
    for row in () if isinstance(finding.rows, range) else finding.rows[:examples]:  # a range is a whole split
        lines.append(f"     {row_line(corpus, row, finding.notes.get(row))}")
        if row in finding.twins:
            lines.append(f"       as {row_line(corpus, finding.twins[row])}")
    return lines


def row_line(corpus: Corpus, row: int, note: str | None = None) -> str:
    """my.csv, row 3, label 'good': "A fine film." """
    label = corpus.label_shown(row)
    parts = [corpus.where(row), *([] if label is None else [f"label '{plain(label)}'"])]
    parts += [] if note is None else [plain(note, WIDE)]
    texts = " | ".join(f'"{plain(column[row], SHORT)}"' for column in corpus.texts)
    return f"{', '.join(parts)}: {texts}"
