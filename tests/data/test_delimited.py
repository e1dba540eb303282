"""CSV and TSV as people have them: delimiters, headers, quotes, and what is said of them."""

import csv
import io
from pathlib import Path

import pytest
from test_tables import contents, error_of, put

from minitrain.config.read_options import ReadOptions
from minitrain.data.load import load_splits
from minitrain.data.tables.load import read_file
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError

HELLO = {"text": ["hello there", "bye"], "label": ["0", "1"]}


def rows_of(tmp_path: Path, content: str, name: str = "a.csv", **options: str) -> Table:
    return read_file(put(tmp_path / name, content), options=ReadOptions(**options))  # type: ignore[arg-type]


def hello(delimiter: str) -> str:
    return "".join(delimiter.join(row) + "\n" for row in (HELLO, *zip(*HELLO.values(), strict=True)))


# --- Headers ---


def test_columns_without_a_name_or_with_one_name_are_left_alone(tmp_path: Path) -> None:
    spreadsheet = rows_of(tmp_path, "v1,v2,,,\nham,hello,,,\nspam,win,x,,\n")
    assert contents(spreadsheet) == {"v1": ["ham", "spam"], "v2": ["hello", "win"]}
    index = rows_of(tmp_path, ",text,label\n0,hello,1\n")
    assert contents(index) == {"text": ["hello"], "label": ["1"]}
    twice = rows_of(tmp_path, "text,note,note\nhello,a,b\n")
    assert contents(twice) == {"text": ["hello"]} and not twice.notes


@pytest.mark.parametrize(
    ("header", "name", "message"),
    [
        ("text,text,label", "text", "columns 1 and 2 are both called 'text'; give each its own name"),
        (",text,label", "", "column 1 has no name; give it one in the header"),
        (",text,label", "body", "it has text, label (column 1 has no name)"),
        ("id, text, label", "body", "has no column 'body'; it has id, ' text', ' label'"),
        ("Text,Label,x", "label", "it has Text, Label, x; did you mean 'Label'?"),
        ("text,labels,x", "label", "did you mean 'labels'?"),
        ('"a, b",label,x', "c", "it has 'a, b', label, x"),
    ],
)
def test_a_column_that_cannot_be_had_is_named_with_the_way_out(
    tmp_path: Path, header: str, name: str, message: str
) -> None:
    assert message in error_of(put(tmp_path / "a.csv", f"{header}\n1,2,3\n"), [name])


def test_blanks_around_a_name_are_no_part_of_it_while_it_is_the_only_one(tmp_path: Path) -> None:
    table = rows_of(tmp_path, "id, text, label \n1, hello,0\n")
    for name in ("text", " text", "text "):
        assert list(table.column(name)) == [" hello"]
    both = rows_of(tmp_path, "text, text\na,b\n")
    assert (list(both.column("text")), list(both.column(" text"))) == (["a"], ["b"])


def test_empty_cells_behind_the_last_column_are_no_fields(tmp_path: Path) -> None:
    assert contents(rows_of(tmp_path, "text,label\nhello,0,,\nbye,1, ,\n")) == {
        "text": ["hello", "bye"],
        "label": ["0", "1"],
    }
    message = error_of(put(tmp_path / "b.csv", "text,label\nhello,0,,\nbye,1,,x\n"))
    assert "b.csv, row 2 (line 3): 4 fields, the header has 2" in message


@pytest.mark.parametrize(
    ("row", "way"),
    [
        ("0,hello,1", "if the first field only counts the rows, give it a name in the header"),
        ("hello, you,1", "put fields that hold a ',' in double quotes"),
        ("hello", "write a ',' for each empty field"),
        ('0, "hello, you"', "take out the blanks between ',' and a double quote"),
    ],
)
def test_a_row_of_another_width_is_an_error_with_its_way_out(tmp_path: Path, row: str, way: str) -> None:
    path = put(tmp_path / "a.csv", f"text,label\nhi,1\n\n{row}\n")
    message = error_of(path)
    assert "a.csv, row 2 (line 4): " in message and way in message


# --- Delimiters ---


@pytest.mark.parametrize(
    ("name", "delimiter"), [("a.csv", ";"), ("a.csv", "\t"), ("a.csv", "|"), ("a.tsv", ","), ("a.tsv", ";")]
)
def test_another_delimiter_is_found_out_and_said(tmp_path: Path, name: str, delimiter: str) -> None:
    table = rows_of(tmp_path, hello(delimiter), name)
    assert contents(table) == HELLO
    assert table.notes == (
        f"{tmp_path / name}: delimiter {delimiter!r}, as its header shows; --delimiter sets another",
    )


def test_commas_in_texts_do_not_hide_the_delimiter_of_the_header(tmp_path: Path) -> None:
    table = rows_of(tmp_path, "id;text, long;label\n1;a, b;0\n2;a, b, c;1\n")
    assert contents(table) == {"id": ["1", "2"], "text, long": ["a, b", "a, b, c"], "label": ["0", "1"]}


@pytest.mark.parametrize(
    "content",
    [
        "text\nhello; you\nbye; bye\n",
        '"a;b"\nhello; you\nbye; bye\n',
        "a;b\nhello\nbye;you;me\n",
        "a;b|c\n1;2|3\n4;5|6\n",
    ],
)
def test_one_column_stays_one_where_the_header_does_not_show_more(tmp_path: Path, content: str) -> None:
    table = rows_of(tmp_path, content)
    header, *rows = csv.reader(io.StringIO(content))
    assert contents(table) == {header[0]: [row[0] for row in rows]} and not table.notes


def test_a_header_that_may_be_more_columns_is_asked_about(tmp_path: Path) -> None:
    message = error_of(put(tmp_path / "a.csv", "a;b|c\n1;2|3\n4;5|6\n"), ["b"])
    assert "has no column 'b'; it has a;b|c; if ';' stands between its columns, pass --delimiter ';'" in message


@pytest.mark.parametrize("first", ["sep=;\n", '"sep=;"\r\n', "SEP=;\n"])
def test_the_first_line_that_excel_reads_names_the_delimiter(tmp_path: Path, first: str) -> None:
    table = rows_of(tmp_path, first + hello(";"))
    assert contents(table) == HELLO and "as its first line says" in table.notes[0]
    assert contents(rows_of(tmp_path, first + hello(";"), delimiter=";")) == HELLO
    assert "(line 5)" in error_of(put(tmp_path / "b.csv", first + hello(";") + "x\n"))


@pytest.mark.parametrize(
    ("asked", "delimiter"),
    [("tab", "\t"), ("\\t", "\t"), ("semicolon", ";"), ("~", "~"), ("PIPE", "|"), ("space", " ")],
)
def test_a_delimiter_can_be_set_by_name_or_character(tmp_path: Path, asked: str, delimiter: str) -> None:
    content = hello(delimiter).replace("hello there", '"hello there"')
    for name in ("a.csv", "a.tsv", "a.txt"):
        table = rows_of(tmp_path, content, name, delimiter=asked)
        assert contents(table) == HELLO and not table.notes


@pytest.mark.parametrize("asked", ["ab", '"', "\n"])
def test_what_cannot_stand_between_columns_is_refused(asked: str) -> None:
    with pytest.raises(MinitrainError, match=r"--delimiter (is empty|.*: expected one character, or tab, comma)"):
        ReadOptions(delimiter=asked)


# --- Quotes ---


def tsv(*texts: str) -> str:
    return "text\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(texts))


def test_without_quoting_a_double_quote_is_a_character(tmp_path: Path) -> None:
    texts = ["a", '"open', 'b "c" d', 'close"', '""', '"whole"']
    table = rows_of(tmp_path, tsv(*texts), "a.tsv", quoting="none")
    assert contents(table)["text"] == texts and len(table) == 6
    assert "with --quoting none no field can hold" in error_of_none(tmp_path, tsv("a\tb"))


def error_of_none(tmp_path: Path, content: str) -> str:
    with pytest.raises(MinitrainError) as caught:
        rows_of(tmp_path, content, "b.tsv", quoting="none")
    return str(caught.value)


def test_lines_that_a_quote_swallows_are_said_with_the_line_where_it_opens(tmp_path: Path) -> None:
    texts = ["a", "b", '"the cake', "c", "d", "e", 'the bird"', "f"]
    table = rows_of(tmp_path, tsv(*texts), "a.tsv")
    assert len(table) == 4
    (note,) = table.notes
    assert "a.tsv, line 4: a double quote opens a field that runs to line 8 and swallows 5 lines" in note
    assert "4 rows were read; pass --quoting none" in note
    assert len(rows_of(tmp_path, tsv(*texts), "a.tsv", quoting="none")) == 8


@pytest.mark.parametrize(
    "content",
    [
        'text,label\n"open text,good\nsecond,bad\nthird",good\nx,bad\n',
        'id,text,label\n1,a,x\n2,"open,x\n3,b,y\n4,c",y\n5,d,x\n',
        'label,text\nx,a\nx,"open\ny,b\nx,c"\ny,d\n',
        'text,label\r"open text,good\rsecond,bad\rthird",good\rx,bad\r',
        'text,score\n"open text,0.5\nsecond,1.5\nthird",2.5\nx,3.5\n',  # no number is there twice
    ],
)
def test_swallowed_rows_of_csv_are_told_by_what_their_columns_hold(tmp_path: Path, content: str) -> None:
    assert "swallows 3 lines that look like rows" in rows_of(tmp_path, content).notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "Roses are red,\nviolets are blue,\nsugar is sweet,\nand so are you",
        "Dear Sir,\nthe tea was cold\n\nYours",
        "hi, you\nthere",
        "a\r\nb\r\nc",
        "one, two\nthree, four\nfive, six\n",
    ],
)
def test_texts_that_hold_lines_are_ordinary(tmp_path: Path, text: str) -> None:
    for place in (("text", "label"), ("label", "text"), ("id", "text", "label")):
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, place)
        writer.writeheader()
        writer.writerows(
            {name: {"text": text, "label": f"good{i % 2}", "id": str(i)}[name] for name in place} for i in range(9)
        )
        table = rows_of(tmp_path, out.getvalue())
        assert list(table.column("text")) == [text] * 9 and not table.notes


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ('text,label\n"a\nb",0\n"open,1\nx,0\n', 4, "the double quote that opens a field here is never closed"),
        ('label,t,text\n1,"x\ny","open\nz\n', 3, "the double quote that opens a field here is never closed"),
        ('text,label\n"one\ntwo",0\n"a "b" c",0\n', 4, "',' expected after '\"'"),
        ('text,label\nok,0\n"opens here\nthere" and,0\n', 3, "in line 4"),
        ("sep=,\n" + 'text,label\nok,0\n"opens here\nthere" and,0\n', 4, "in line 5"),
    ],
)
def test_a_broken_quote_is_named_by_the_line_where_it_opens(
    tmp_path: Path, content: str, line: int, what: str
) -> None:
    message = error_of(put(tmp_path / "a.csv", content))
    assert f"a.csv, line {line}: is no valid CSV" in message and what in message and "--quoting none" in message


def test_a_broken_quote_far_below_is_named_by_its_line_too(tmp_path: Path) -> None:
    rows = "".join(f'"text {i}\nof two lines",{i % 2}\n' for i in range(1000))
    message = error_of(put(tmp_path / "a.csv", f'text,label\n{rows}ok,0\n"open,1\n'))
    assert "a.csv, line 2003: is no valid CSV" in message


def test_every_row_of_a_long_file_is_read_in_order(tmp_path: Path) -> None:
    texts = [f"{i},\n{i}" if i % 7 == 0 else str(i) for i in range(5000)]
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("text", "label"), *((text, i % 3) for i, text in enumerate(texts))])
    assert contents(rows_of(tmp_path, out.getvalue())) == {
        "text": texts,
        "label": [str(i % 3) for i in range(5000)],
    }


def test_two_columns_of_labels_in_a_test_file_are_no_hidden_labels(tmp_path: Path) -> None:
    put(tmp_path / "train.csv", "text,label\na,0\nb,1\n")
    put(tmp_path / "test.csv", "text,label,label\na,0,1\n")
    with pytest.raises(MinitrainError, match=r"test\.csv: columns 2 and 3 are both called 'label'"):
        load_splits(str(tmp_path), tokenizer=load_tokenizer("demo"))
