"""`streamfold profiles`: what is printed, and the exit codes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from profile_source import Write, model

from streamfold.profiles.command import add_commands


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    options = parser.parse_args(["profiles", *arguments])
    code: int = options.run(options)
    return code


Printed = pytest.CaptureFixture[str]


def test_list_shows_the_models_of_a_provider(capsys: Printed) -> None:
    assert run("list", "openai") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == "MODEL INPUT OUTPUT ABILITIES $ IN $ OUT $ CACHED".split()
    [line] = [line for line in lines if line.startswith("openai:gpt-4.1 ")]
    assert line.split() == "openai:gpt-4.1 1,047,576 32,768 tools json image pdf 2 8 0.5".split()
    assert all(line.startswith("openai:") for line in lines)
    assert run("list", "--provider", "openai") == 0
    assert capsys.readouterr().out.splitlines() == [head, *lines]


def test_list_shows_all_providers(capsys: Printed) -> None:
    assert run("list") == 0
    out = capsys.readouterr().out
    assert "\nopenai:gpt-4.1 " in out
    assert "\nbedrock:anthropic.claude-sonnet-4-6 " in out


def test_list_filters_by_abilities(capsys: Printed) -> None:
    assert run("list", "openai", "--tool-calling", "--reasoning-output", "--json") == 0
    models = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert models
    assert all(m["tool_calling"] and m["reasoning_output"] for m in models)
    assert run("list", "cerebras", "--video-inputs") == 1
    assert "no model" in capsys.readouterr().err


def test_show_prints_all_that_is_known(capsys: Printed) -> None:
    assert run("show", "openai:gpt-4.1-2025-04-14") == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "openai:gpt-4.1-2025-04-14 (as gpt-4.1)"
    assert ["max_input_tokens", "1047576"] in [line.split() for line in lines]
    assert ["tool_calling", "yes"] in [line.split() for line in lines]
    assert run("show", "ollama:gpt-oss:120b", "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"]
    assert run("show", "--provider", "openai", "gpt-4.1") == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpt-4.1", "write openai:gpt-4.1, azure_openai:gpt-4.1"),
        ("nothing", "write PROVIDER:MODEL"),
        ("openai:nothing", "no profile of 'nothing'"),
        ("nobody:gpt-4.1", "names no provider"),
    ],
)
def test_show_says_what_is_wrong(name: str, reason: str, capsys: Printed) -> None:
    assert run("show", name) == 2
    printed = capsys.readouterr()
    assert reason in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_list_of_an_unknown_provider(capsys: Printed) -> None:
    assert run("list", "nobody") == 2
    assert "no profiles of provider 'nobody'" in capsys.readouterr().err


def test_refresh_reports_what_changed(source: Write, folder: Path, capsys: Printed) -> None:
    where = ["--provider", "openai", "--data-dir", str(folder), "--source"]
    assert run("refresh", *where, source(openai={"a": model(), "b": model()})) == 0
    path = folder / "openai.json"
    assert capsys.readouterr().out == f"openai: 2 models, all new -> {path}\n"
    changed = model(limit={"context": 2000, "output": 100}, temperature=True, cost=None)
    assert run("refresh", *where, source(openai={"b": changed, "c": model()})) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"openai: 2 models, 1 added, 1 removed, 1 changed -> {path}",
        "  + c",
        "  - a",
        "  ~ b: max_input_tokens 1000 -> 2000",
        "  ~ b: input_price 2.0 -> unknown",
        "  ~ b: output_price 8.5 -> unknown",
        "  ~ b: temperature unknown -> yes",
    ]
    assert run("list", "openai", "--data-dir", str(folder)) == 0
    assert "openai:c" in capsys.readouterr().out


def test_refresh_warns_of_keys_that_may_be_misspelt(
    source: Write, folder: Path, capsys: Printed
) -> None:
    (folder / "profile_augmentations.toml").write_text("[overrides]\ntool_caling = true\n")
    path = source(openai={"a": model()})
    assert run("refresh", "--provider", "openai", "--data-dir", str(folder), "--source", path) == 0
    assert "did you mean 'tool_calling'?" in capsys.readouterr().err


def test_refresh_exits_with_the_reason(source: Write, folder: Path, capsys: Printed) -> None:
    path = source(openai={"a": model()})
    assert run("refresh", "--provider", "opnai", "--data-dir", str(folder), "--source", path) == 2
    assert "did you mean 'openai'?" in capsys.readouterr().err
    missing = str(folder / "missing")
    where = ["--data-dir", str(folder), "--source", missing]
    assert run("refresh", "--provider", "openai", *where) == 2
    assert missing in capsys.readouterr().err
    where = ["--data-dir", missing, "--source", path]
    assert run("refresh", "--provider", "openai", *where) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("arguments", [["refresh"], ["refresh", "--provider", "openai"], []])
def test_what_is_missing_is_a_usage_error(arguments: list[str], capsys: Printed) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert "required" in capsys.readouterr().err
