"""conf/microtorrd.toml says what the code does: every setting, its default, and nothing else."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from microtorrd import config, settings_text
from microtorrd.config import RECORDS, Config

ROOT = Path(__file__).parents[1]
FILE = ROOT / "conf/microtorrd.toml"


def test_the_file_is_what_the_settings_say() -> None:
    assert FILE.read_text() == settings_text.documentation(), (
        "run: python -m microtorrd.settings_text > conf/microtorrd.toml"
    )


def test_it_loads_as_it_is() -> None:
    loaded = config.load(str(FILE), (), {"HOME": "/home/ada"})
    assert loaded.limits == Config().limits


def test_with_every_setting_switched_on_it_says_the_defaults(tmp_path: Path) -> None:
    text = re.sub(r"^#(\w+ = )", r"\1", FILE.read_text(), flags=re.MULTILINE)
    on = tmp_path / "microtorrd.toml"
    on.write_text(text)
    assert config.load(str(on), (), {"HOME": "/home/ada"}) == Config()
    assert {f"{section}.{key}" for section, table in tomllib.loads(text).items() for key in table} == set(
        RECORDS
    )


@pytest.mark.parametrize("name", RECORDS)
def test_every_setting_says_what_it_is(name: str) -> None:
    record = RECORDS[name]
    assert record.sentence.endswith(".")
    assert len(record.sentence) > 30
    if record.kind in ("size", "rate", "duration") or (record.kind == "number" and record.key != "port"):
        assert re.search(r"more|less|low|long|high", record.sentence), "it says what high and low favour"


def test_every_setting_is_used() -> None:
    """Read somewhere as an attribute, outside of the rooms that only load settings."""
    loading = {"settings.py", "settings_text.py", "config.py"}
    read = {
        node.attr
        for file in (ROOT / "microtorrd").rglob("*.py")
        if file.name not in loading or file.parent.name != "microtorrd"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    assert {name for name, record in RECORDS.items() if record.key not in read} == set()


def test_the_names_that_scripts_rely_on_stay() -> None:
    fixed = """
        daemon.state_dir daemon.log_level daemon.log_format rpc.socket rpc.socket_mode rpc.socket_group
        listen.port listen.addresses listen.interface storage.save_to storage.preallocate storage.piece_memory
        limits.down limits.up limits.connections limits.connections_per_torrent swarm.announce_as
        swarm.seed_after_download swarm.random_peer_share swarm.always_unchoke swarm.upload_slots
        tracker.enabled tracker.bind tracker.ip_parameter tracker.interval
    """
    assert set(fixed.split()) <= set(RECORDS)
