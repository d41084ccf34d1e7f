"""docs/configuration.md says what the code does."""

from __future__ import annotations

import re

import pytest
from msgspec import inspect

from stompbridge import config
from tests.docs import configuration
from tests.docs.configuration import Key, markdown, tables, type_name

KEYS = list(configuration.keys())
PAGE = configuration.DOCUMENT.read_text("utf-8")


def test_the_page_is_up_to_date() -> None:
    assert configuration.page() == PAGE, "run: python -m tests.docs.configuration"


@pytest.mark.parametrize("key", KEYS, ids=[key.path for key in KEYS])
def test_a_key_stands_there_once(key: Key) -> None:
    assert PAGE.count(f'<a id="{key.path}"></a>') == 1


def test_every_key_has_a_meaning() -> None:
    for table in tables(config.default_toml()):
        for group in table.groups:
            assert group.text or table.text, f"[{table.name}] {group.keys}: no comment in default.toml"


@pytest.mark.parametrize("key", [key for key in KEYS if key.environment], ids=lambda key: key.path)
def test_a_variable_sets_its_key(key: Key) -> None:
    text = "bridge-1" if key.path == "node" else str(key.default).strip('"')
    variable = str(key.environment)
    if text == "{}":
        text = '{ a = "b" }'
    if key.path in ("health.broker.timeout", "health.broker.interval"):
        text = "3s" if key.path.endswith("timeout") else "7s"
    config.load(None, {variable: text}, {})
    with pytest.raises(config.ConfigError, match=variable):
        config.load(None, {f"{variable}_X": text}, {})


def test_what_is_reloaded_exists() -> None:
    known = {key.path for key in KEYS} | {key.path.rpartition(".")[0] for key in KEYS}
    assert set(configuration.RELOADED) <= known


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (bool, "`true` or `false`"),
        (str, "string"),
        (config.Duration, "duration"),
        (config.Size, "size"),
        (config.Count, "number from 1"),
        (config.Port, "number, 0 to 65535"),
        (tuple[str, ...], "list of strings"),
        (dict[str, str], "table of strings"),
    ],
)
def test_the_name_of_a_type(kind: object, name: str) -> None:
    assert type_name(inspect.type_info(kind)) == name


def test_an_unknown_type_is_an_error() -> None:
    with pytest.raises(TypeError):
        type_name(inspect.type_info(bytes))


def test_comments_belong_to_the_keys_below_them() -> None:
    text = "# Head.\n\n# One.\n#a = 1\n\n# Two.\n#b = 2\n#c = 3\n\n\n[t]   # a table\n\n#d = 4\n"
    text += '\n# Many.\n#\n#[[t.u]]\n#e = "x"\n'
    first, second, third = tables(text)
    assert [(group.keys, group.text) for group in first.groups] == [(["a"], "One."), (["b", "c"], "Two.")]
    assert (second.name, second.text, second.groups[0].keys) == ("t", "a table", ["d"])
    assert (third.name, third.text.strip(), third.groups[0].keys) == ("t.u", "Many.", ["e"])


def test_a_comment_as_markdown() -> None:
    text = 'Above *:\n\n    [a]\n    b = "*"\n\nOf these:\n  "x"   one,\n        and more\n  "y"   two\nBelow.'
    assert markdown(text) == (
        'Above \\*:\n\n```toml\n[a]\nb = "*"\n```\n\nOf these:\n\n- "x": one,\n  and more\n- "y": two\nBelow.'
    )


def test_no_line_of_the_page_is_left_over_from_the_comments() -> None:
    assert not re.search(r"^#\w+ = ", PAGE, re.MULTILINE)
