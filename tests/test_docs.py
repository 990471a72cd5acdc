"""The documentation says what the code does: commands, settings, rooms and decisions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer

from server.cli import app
from server.config import Settings
from server.terminal import curl_line

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if page.name != "CHANGELOG.md"
)


def commands() -> list[str]:
    """Every subcommand as it is typed."""
    root = typer.main.get_command(app)
    found = []
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        found += [f"darkroom {name} {sub}" for sub in inner] if inner else [f"darkroom {name}"]
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"`{command}`" in README


def test_every_make_target_the_docs_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        code = re.findall(r"```sh\n.*?```|`make [^`]*`", page.read_text(), re.DOTALL)
        assert set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(code))) <= targets, page


def test_every_make_target_has_its_sentence_in_the_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_as_it_is(name: str) -> None:
    field = Settings.model_fields[name]
    default = "none" if field.default in (None, "") else f"`{field.default}`"
    row = f"| `DARKROOM_{name.upper()}` | {default} | {field.description} |"
    assert row in (ROOT / "docs" / "configuration.md").read_text()


def test_no_setting_is_documented_that_is_not_there() -> None:
    rows = re.findall(
        r"^\| `DARKROOM_(\w+)`", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE
    )
    assert [row.lower() for row in rows] == list(Settings.model_fields)


def test_nobody_is_told_to_install_the_darkroom_of_pypi_which_is_a_strangers() -> None:
    for path in [*PAGES, *(ROOT / "server").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]:
        assert not re.search(r"pip install [^`\n]*\bdarkroom(\[|['\"` ]|$)", path.read_text()), path


def test_every_decision_is_listed() -> None:
    listed = (ROOT / "docs" / "adr" / "README.md").read_text()
    for adr in (ROOT / "docs" / "adr").glob("[0-9]*.md"):
        title = adr.read_text().splitlines()[0].removeprefix("# ")
        assert f"- [{title}]({adr.name})" in listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_the_runbooks_name_alerts_and_metrics_that_there_are() -> None:
    page = (ROOT / "docs" / "runbooks.md").read_text()
    alerts = re.findall(r"alert: (\w+)", (ROOT / "docker" / "alerts.yml").read_text())
    declared = "".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))
    metrics = set(re.findall(r'"(darkroom_[a-z_]+)"', declared)) | {"darkroom_process_up"}
    assert set(re.findall(r"`(Darkroom[A-Z]\w+)`", page)) <= set(alerts)
    for name in set(re.findall(r"darkroom_[a-z_]+(?=[`{\[])", page)):
        assert re.sub("_(sum|count|bucket)$", "", name) in metrics or name in metrics, name


def test_alerts_lead_to_parts_of_pages_that_there_are() -> None:
    for place in re.findall(r"runbook\w*: (\S+)", (ROOT / "docker" / "alerts.yml").read_text()):
        page, _, anchor = place.partition("#")
        text = (ROOT / page[page.index("docs/") :]).read_text()
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        assert anchor in {
            re.sub("[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in titles
        }


def test_every_room_is_on_the_architecture_page() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [path for path in (ROOT / "server").iterdir() if not path.name.startswith(("_", "."))]
    assert [room.name for room in rooms if room.name not in page and room.name != "py.typed"] == []


def test_the_layers_on_the_architecture_page_are_those_that_are_held() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [layers] = [
        contract["layers"]
        for contract in config["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    ]
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert "\n".join(layers).replace("server.", "") in page


def test_the_readme_draws_with_the_line_of_the_banner() -> None:
    assert curl_line("http://127.0.0.1:8000") in README


def test_the_constraints_name_no_place_and_no_build() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line), line
