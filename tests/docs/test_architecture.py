"""docs/architecture.md and its picture say what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import architecture
from tests.docs.architecture import AREAS, Edge, area_of, document, drawn, edges, filled, picture, problems
from tests.docs.imports import Import, imports, modules, others

FOUND = imports()


def test_no_import_points_upward() -> None:
    assert problems(FOUND, modules()) == []


def test_the_page_and_the_picture_are_up_to_date() -> None:
    text = architecture.DOCUMENT.read_text("utf-8")
    assert document(text) == text, "run: python -m tests.docs.architecture"
    drawing = architecture.PICTURE.read_text("utf-8")
    assert picture(drawn(edges(FOUND))) == drawing, "run: python -m tests.docs.architecture"


def test_what_is_drawn_and_what_follows_from_it_is_what_the_code_imports() -> None:
    shown = drawn(edges(FOUND))
    reached = set(shown)
    while True:
        more = {Edge(one.upper, two.lower) for one in reached for two in shown if one.lower == two.upper}
        if more <= reached:
            break
        reached |= more
    assert edges(FOUND) <= reached
    assert shown <= edges(FOUND)


def test_every_area_is_drawn() -> None:
    text = architecture.PICTURE.read_text("utf-8")
    for area in AREAS:
        assert f">{area.name}</text>" in text


def test_stomp_and_dedup_import_nothing_of_the_package() -> None:
    for area in ("stomp", "dedup"):
        outside = [one for one in FOUND if one.importer.startswith(area) and not one.imported.startswith(area)]
        assert outside == []


def test_stomp_does_no_input_or_output() -> None:
    used = {name for module, names in others().items() if module.startswith("stomp") for name in names}
    assert used & {"asyncio", "socket", "ssl", "threading", "time", "websockets", "structlog", "os"} == set()


def test_the_window_is_pure() -> None:
    assert [one for one in FOUND if one.importer == "dedup.window"] == []
    assert others()["dedup.window"] <= {"collections", "enum", "typing"}


def test_who_knows_rabbitmq() -> None:
    users = {one.importer.partition(".")[0] for one in FOUND if one.imported.startswith("brokers.amqp")}
    assert users - {"brokers"} <= {"composition", "daemon", "doctor"}


def test_the_gateway_does_not_know_who_watches() -> None:
    assert [one for one in FOUND if one.importer.startswith("gateway") and one.imported.startswith("admin")] == []


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (Import("stomp.parser", "gateway.client", False), "stomp is not above gateway"),
        (Import("brokers.base", "dedup.store", False), "brokers is not above dedup"),
        (Import("config", "config_checks", False), "config is not above config_checks"),
    ],
)
def test_an_import_upward_or_sideways_is_found(one: Import, said: str) -> None:
    assert problems([one], []) == [f"{one.importer} imports {one.imported}: {said}"]


def test_a_late_import_upward_passes_where_it_is_explained() -> None:
    assert problems([Import("config", "config_checks", True)], []) == []


def test_a_module_without_an_area_is_found() -> None:
    assert problems([], ["surprise.module"]) == ["surprise.module stands in no area"]
    assert [area_of(name) for name in ("stomp.parser", "lifecycle.drain", "lifecycle.sockets", "x")] == [
        "stomp",
        "daemon",
        "lifecycle.sockets",
        "",
    ]


def test_imports_are_read_in_all_their_forms(tmp_path: Path) -> None:
    package = tmp_path / "stompbridge"
    (package / "a").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "b.py").write_text("import stompbridge.a.d, asyncio.events\n")
    (package / "a/__init__.py").write_text("from .c import x\n")
    (package / "a/c.py").write_text("from . import d\nfrom .. import b\nfrom stompbridge.b import x\n")
    (package / "a/d.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from stompbridge import b\n"
        "def f():\n    from .c import x\n"
    )
    assert set(imports(tmp_path)) == {
        Import("b", "a.d", False),
        Import("a", "a.c", False),
        Import("a.c", "a.d", False),
        Import("a.c", "b", False),
        Import("a.d", "b", True),
        Import("a.d", "a.c", True),
    }
    assert others(tmp_path)["b"] == {"asyncio"}


def test_a_page_without_a_place_for_a_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="no place for 'imports'"):
        filled("# Architecture\n", "imports", "x")
