"""The demo, on a small input: every claim holds, and a claim that does not makes it fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chronik_store.cli.demo.queries import Question, questions_for
from chronik_store.cli.demo.source import Source, source_of, standard_library
from chronik_store.cli.demo.stage import Stage


@pytest.fixture
def lines(tmp_path):
    """2,000 lines in two files of a directory."""
    folder = tmp_path / "input"
    folder.mkdir()
    for number in (1, 2):
        text = "\n".join(f"file {number} line {n} of some ordinary words" for n in range(1000))
        (folder / f"{number}.txt").write_text(text + "\n")
    return folder


@pytest.mark.slow
def test_the_demo_holds_what_it_claims(started, lines):
    child = started("demo", lines, "--json")

    out, err = child.communicate(timeout=100)

    claims = [json.loads(line) for line in out.decode().splitlines()]
    assert 0 == child.returncode, err.decode()
    assert 12 == len(claims)
    assert all(claim["holds"] for claim in claims)
    assert "2,000 of 2,000" in {claim["measured"] for claim in claims}


def test_a_line_of_the_source_is_a_record(lines):
    source = source_of([str(lines)])

    records = list(source.records())

    assert (b"2.txt", b"file 2 line 0 of some ordinary words") == records[1000]
    assert records[1500:] == list(source.records(1500))
    assert (2000, sum(len(value) for _, value in records)) == source.measure()


def test_a_limit_cuts_the_source(lines):
    source = source_of([str(lines)])

    assert 7 == len(list(Source(source.root, source.files, limit=7).records()))


def test_an_empty_line_counts_and_what_follows_the_last_newline_does_not(tmp_path):
    (tmp_path / "x").write_bytes(b"\na\n\nb")

    values = [value for _, value in source_of([str(tmp_path / "x")]).records()]

    assert [b"", b"a", b"", b"b"] == values


def test_the_standard_library_is_there():
    source = standard_library()

    assert "ast.py" in {path.name for path in source.files}
    assert not any("site-packages" in path.parts for path in source.files)


def test_a_question_counts_whole_words_in_any_case():
    question = Question("term", ("race",))
    for line in (b"race", b"a RACE!", b"traces", b"race_condition", b"brace"):
        question.see(line.lower(), 0)

    assert 3 == question.expected


def test_a_phrase_is_words_in_a_row():
    question = Question("phrase", ("race", "condition"))
    for line in (b"race condition", b"race, condition", b"race_condition", b"condition race"):
        question.see(line, 0)

    assert ('"race condition"', 3) == (question.query, question.expected)


def test_a_question_since_a_time_leaves_out_what_came_before():
    question = Question("time", ("word",), since_us=10)
    for timestamp_us in (9, 10, 11):
        question.see(b"word", timestamp_us)

    assert 2 == question.expected


def test_questions_are_about_words_that_occur():
    questions = questions_for([b"nothing of note here", b"alpha bravo charlie"], 0)

    assert ("alpha", "bravo") == questions[1].words
    assert {"alpha", "bravo"} == {questions[0].words[0], questions[2].words[0]}


def test_a_claim_that_fails_is_kept_and_shown(capsys):
    stage = Stage(10)
    stage.claim("all is well", "3 of 4", holds=False)

    assert "FAILS" in capsys.readouterr().out
    assert [False] == [claim.holds for claim in stage.claims]


def test_a_claim_that_fails_is_the_exit_code(chronik, lines, monkeypatch):
    from chronik_store.cli.demo import acts

    monkeypatch.setattr(acts.Play, "perform", lambda play: play.stage.claim("x", "no", holds=False))

    assert 1 == chronik("demo", lines).code
    assert Path.cwd() in next(Path().glob("chronik-demo-*")).resolve().parents


def test_a_bucket_that_the_demo_does_not_take_is_refused(chronik):
    """It was passed over, and what a directory did was taken for what that bucket does."""
    ran = chronik("--object-store", "s3://bucket/prefix", "demo", "--fast")
    assert (ran.code, ran.out) == (2, "")
    assert "leave out --object-store" in ran.err
