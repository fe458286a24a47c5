import json

import pytest

from countsdiff.model_files import FormatVersion, ModelFileError, read_document, write_document

CONTENT = {"numbers": [1, 2.5, float("inf")], "pair": (1, "ü"), "nothing": None}


def version(current, **migrations):
    return FormatVersion("test document", current, {int(name[1:]): step for name, step in migrations.items()})


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "document.json"
    write_document(CONTENT, path, version(1))
    return path


def edit(path, **entries):
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_what_was_written_is_read_however_it_is_laid_out(path):
    assert read_document(path, version(1)) == CONTENT
    edit(path)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4, ensure_ascii=False))
    assert read_document(path, version(1)) == CONTENT


def test_an_older_version_is_migrated_step_by_step(path):
    steps = {
        "_1": lambda content: {**content, "steps": [1]},
        "_2": lambda content: {**content, "steps": [*content["steps"], 2]},
    }
    assert read_document(path, version(3, **steps)) == {**CONTENT, "steps": [1, 2]}


def test_a_newer_version_asks_for_an_upgrade(path):
    edit(path, format_version=2)
    with pytest.raises(ModelFileError, match="document.json: this file is in version 2 .* knows 1; upgrade countsdiff"):
        read_document(path, version(1))


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"format": "something else"}, "it is no test document"),
        ({"format_version": "1"}, "there is no version '1' of its format"),
        ({"format_version": True}, "there is no version True of its format"),
        ({"format_version": 0}, "there is no version 0 of its format"),
        ({"content": {"numbers": [1, 2.5]}}, "changed after it was written"),
        ({"content": []}, "content is .*, not of type dict"),
        ({"sha256": None}, "changed after it was written"),
    ],
)
def test_an_edited_document_is_refused(path, entries, says):
    edit(path, **entries)
    with pytest.raises(
        ModelFileError, match=f"document.json: this file cannot be used, .*{says}.*; get an unchanged copy"
    ):
        read_document(path, version(1))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", "[" * 100_000, '{"a": ' + "9" * 9_999 + "}", "\x00", '{"format": "test document"}'],
)
def test_other_files_are_refused(path, text):
    path.write_text(text)
    with pytest.raises(ModelFileError, match="document.json: this file cannot be used") as refused:
        read_document(path, version(1))
    assert len(str(refused.value)) < 600


def test_what_cannot_be_saved_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="odd is of type builtins.object"):
        write_document({"odd": object()}, tmp_path / "document.json", version(1))
    assert not list(tmp_path.iterdir())
