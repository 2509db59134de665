"""What `--docs DIR` takes: documents, nothing hidden at any depth, and never a mesh's own keys."""

from pathlib import Path

import pytest
from typer import BadParameter

from bulkhead_cli import options
from bulkhead_cli.output import CommandError
from bulkhead_cli.tasks import document_files


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text")
    return folder


def test_nothing_hidden_and_no_keys_are_read(tmp_path):
    tree(
        tmp_path,
        "a.md",
        "deep/b.TXT",
        ".env.txt",
        ".git/logs/c.txt",
        "deep/.hidden/d.md",
        "run.sh",
        "e.jsonl",
        "mesh/credentials.json",
        "mesh/mesh.json",
        "mesh/notes.txt",
    )
    assert [one.name for one in document_files.find_uploads([tmp_path])] == ["a.md", "b.TXT"]


def test_a_directory_without_documents_says_what_would_be_read(tmp_path):
    with pytest.raises(CommandError, match="holds no documents"):
        document_files.find_uploads([tree(tmp_path, ".bulkhead/a.txt", "b.bin")])


def test_a_file_that_is_named_is_read_whatever_it_is_called(tmp_path):
    tree(tmp_path, "LICENSE")
    assert document_files.find_uploads([tmp_path / "LICENSE"])[0].named


def test_a_whole_disk_is_not_meant(tmp_path, monkeypatch):
    monkeypatch.setattr(document_files, "MAX_FILES", 2)
    with pytest.raises(CommandError, match="over 2"):
        document_files.find_uploads([tree(tmp_path, "a.md", "b.md", "c.md")])


@pytest.mark.parametrize("text", ["", "../../readyz", "x?y=1", "a b", "t\n"])
def test_what_is_no_task_id_does_not_get_into_an_address(text):
    with pytest.raises(BadParameter, match="no task's id"):
        options.task_id(text)


def test_an_amount_is_asked_for_in_plain_words():
    assert options.parse_dollars("0.50") == 0.5
    with pytest.raises(BadParameter, match="'abc' is no amount of dollars"):
        options.parse_dollars("abc")


def test_files_of_one_name_get_as_much_of_their_paths_as_tells_them_apart(tmp_path):
    tree(tmp_path, "a/x/fares.md", "b/x/fares.md", "b/rules.md", "c/fares.md")
    twice = tmp_path / "a" / "x" / "fares.md"
    found = document_files.find_uploads([tmp_path / "a", tmp_path / "b", tmp_path / "c" / "fares.md", twice])
    assert {one.path.relative_to(tmp_path).as_posix(): one.name for one in found} == {
        "a/x/fares.md": "a/x/fares.md",
        "b/x/fares.md": "b/x/fares.md",
        "b/rules.md": "rules.md",
        "c/fares.md": "c/fares.md",
    }
    assert [one.name for one in document_files.find_uploads([tmp_path / "c"])] == ["fares.md"]


def test_what_is_passed_over_in_a_directory_is_said(tmp_path, capsys):
    tree(tmp_path, "a.md", "photo.bin", "deep/run.sh", ".env", *(f"many/{n}.png" for n in range(9)))
    [(where, why)] = document_files.skipped_files([tmp_path, tmp_path / "a.md"])
    assert where == tmp_path and why.name == "not_documents" and " and 3 more" in str(why)
    assert "deep/run.sh" in str(why) and ".env" not in str(why) and "a.md" not in str(why)
    document_files.print_skipped_files([tmp_path])
    assert "skipped in" in capsys.readouterr().err
    assert document_files.as_json([], [], [tmp_path])["skipped"][0]["code"] == "not_documents"
    (tmp_path / "one").mkdir()
    named = tree(tmp_path / "one", "b.md", "x.bin") / "x.bin"
    assert document_files.skipped_files([tmp_path / "one", named]) == [], "it was named, and goes in"
