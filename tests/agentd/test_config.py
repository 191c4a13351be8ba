"""What an administrator may set, and what follows for a node: mistakes are sentences, defaults are the careful ones."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from agentd.__main__ import Failure, elevation_of, main, users_of
from agentd.config import ConfigError, FileConfig, read_config
from agentd.uids import COUNT, FIRST, LEASES


def read(tmp_path: Path, text: str) -> FileConfig:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return read_config(path)


def test_an_empty_file_says_what_no_file_says(tmp_path: Path) -> None:
    config = read(tmp_path, "")
    assert config == FileConfig()
    assert (config.users.mode, config.users.first, config.users.count) == (None, FIRST, COUNT)
    assert config.users.leases == LEASES
    assert not config.allow_elevation


def test_users_and_limits_are_read(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
        allow_elevation = true
        [users]
        mode = "same"
        first = 100000
        count = 70000
        leases = "/srv/uids/leases.json"
        [limits]
        pids = 100
        """,
    )
    users = config.users
    assert (users.mode, users.first, users.count, users.leases) == ("same", 100_000, 70_000, "/srv/uids/leases.json")
    assert (config.limits.pids, config.allow_elevation) == (100, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[users]\nmode = "root"\n', r"\[users\] mode: no such choice: 'root'"),
        ("[users]\nfirst = 0\n", r"\[users\] first: expected a whole number"),
        ("[users]\nfirst = 4294967295\n", r"\[users\] first: expected a whole number"),
        ("[users]\ncount = 1\n", r"\[users\] count: expected a whole number"),
        ('[users]\nleases = "uids.json"\n', r"absolute path"),
        ('pth = ["/x"]\n', r"it has no setting `pth`: did you mean `path`\?"),
        ("slots 8\n", r"is no TOML: expected '=' after a key .* line 1"),
        ("[env]\nA = 1\n", r"\[env\] \*: expected a text in quotes, found a whole number"),
        ("[users]\nlast = 9\n", r"\[users\] has no setting `last`"),
        ("[limits]\npids = 1\n", r"\[limits\] pids: expected a whole number >= "),
    ],
)
def test_what_can_not_be_is_a_sentence_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        read(tmp_path, text)
    assert str(tmp_path / "agent.toml") in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "embedded", "root", "users"),
    [
        (None, False, True, "job"),
        ("job", False, True, "job"),
        ("same", False, True, "same"),
        (None, True, True, "same"),
        (None, False, False, "same"),
        ("same", False, False, "same"),
        (None, True, False, "same"),
    ],
)
def test_who_jobs_run_as(wanted: str | None, embedded: bool, root: bool, users: str) -> None:
    assert users_of(wanted, embedded=embedded, root=root) == users


def test_users_of_jobs_without_root_are_refused_not_forgotten() -> None:
    with pytest.raises(Failure, match="only root can run jobs as users of their own"):
        users_of("job", embedded=False, root=False)


def test_t8_elevation_takes_the_administrators_word_and_root() -> None:
    assert elevation_of(True, root=True)[0] is True
    assert elevation_of(False, root=True) == (False, "which this node does not allow (agentd --allow-elevation)")
    assert elevation_of(True, root=False) == (False, "which this node can't give: its agent is not run by root")
    assert elevation_of(False, root=False)[0] is False


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "agentd: missing option '--pool'. `agentd --help` lists what there is.\n"),
        (["--pool", "p", "--lable", "x"], "agentd: no such option '--lable'. "),
        (["--pool", "p", "--slots", "many"], "agentd: invalid value for '--slots': 'many' is no whole number."),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    typed: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["agentd", *typed])
    with pytest.raises(SystemExit) as ended:
        main()
    written = capsys.readouterr().err
    assert (ended.value.code, written.count("\n")) == (2, 1)
    assert written.startswith(said)


def test_the_version_is_told_whatever_else_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["agentd", "--version"])
    main()
    assert capsys.readouterr().out == f"agentd {version('poolkeeper')}\n"
