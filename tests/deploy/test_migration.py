"""The pages for those who come from Spring or from RabbitMQ's plugin: what they say of the configuration holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from stompbridge import config
from stompbridge.cli import main
from tests.support.certificates import Certificate

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["migrate-from-spring.md", "migrate-from-web-stomp.md"]
ETC = "/etc/stompbridge"
USERS = '[users.alice]\npassword = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG"\n'
SECRETS = {
    "broker-urls": "amqp://bridge:password@rabbitmq:5672/%2F\n",
    "passcode": "password\n",
    "users.toml": USERS,
}


def examples() -> Iterator[object]:
    for page in PAGES:
        for n, text in enumerate(re.findall(r"^```toml\n(.*?)^```$", (DOCS / page).read_text("utf-8"), re.M | re.S), 1):
            yield pytest.param(text, id=f"{page}-{n}")


def names(model: type[msgspec.Struct], path: str = "") -> Iterator[str]:
    """All sections and keys."""
    for field in msgspec.structs.fields(model):
        yield path + field.name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from names(field.type, f"{path}{field.name}.")


@pytest.mark.parametrize("text", list(examples()))
def test_an_example_is_accepted(text: str, tmp_path: Path) -> None:
    for name, secret in SECRETS.items():
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(secret)
    certificate = Certificate(tmp_path)
    certificate.cert.rename(tmp_path / "chain.pem")
    certificate.key.rename(tmp_path / "key.pem")
    path = tmp_path / "bridge.toml"
    path.write_text(text.replace(ETC, str(tmp_path)), "utf-8")
    result = CliRunner().invoke(main, ["config", "check", "--config", str(path)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("page", PAGES)
def test_there_are_complete_examples(page: str) -> None:
    assert (DOCS / page).read_text("utf-8").count("```toml") == 2


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_are_named_exist(page: str) -> None:
    known = set(names(config.Settings)) | {"app.route", "broker.exchange"}
    sections = {name for name in config.Settings.__struct_fields__ if any(one.startswith(f"{name}.") for one in known)}
    pattern = rf"`((?:{'|'.join(sorted(sections - {'stomp'}))})\.[a-z_.]+[a-z_])(?: = [^`]*)?`"
    named = re.findall(pattern, (DOCS / page).read_text("utf-8"))
    # The plugin's keys begin with "stomp.", too.
    named += re.findall(r"\| `(stomp\.[a-z_]+)[^|]*\|[^|]*\|[^|]*\|\n", (DOCS / page).read_text("utf-8"))
    assert len(named) > 20
    assert [name for name in named if name not in known and not name.startswith("stomp.")] == []


@pytest.mark.parametrize("page", PAGES)
def test_defaults_that_are_named_are_the_defaults(page: str) -> None:
    """Of rows whose second cell is one key and whose last one is a duration, a size or a number."""
    defaults = config.Settings(node="bridge")
    checked = 0
    for line in (DOCS / page).read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        key = re.fullmatch(r"`([a-z_]+)\.([a-z_]+)`.*", cells[1]) if len(cells) == 4 else None
        value = re.fullmatch(r"([\d,]+) ?(s|KiB|MiB)?", cells[3]) if key else None
        if key is None or value is None or "`, `" in cells[1]:
            continue
        unit = {"s": 1, "KiB": 1024, "MiB": 1024**2}.get(value[2] or "", 1)
        assert getattr(getattr(defaults, key[1]), key[2]) == int(value[1].replace(",", "")) * unit, line
        checked += 1
    assert checked >= 4
