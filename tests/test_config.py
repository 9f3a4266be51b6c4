"""config.py: where settings come from, what outweighs what, and what each mistake is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from microtorrd import config
from microtorrd.config import Config, load
from microtorrd.errors import ConfigError

HOME = "/home/ada"
ENVIRON = {"HOME": HOME}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "microtorrd.toml"


def refusal(file: Path, text: str, *overrides: str, **environ: str) -> ConfigError:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(str(file), overrides, ENVIRON | environ)
    return caught.value


class TestSources:
    def test_an_empty_file_leaves_the_defaults(self, file: Path) -> None:
        file.write_text("")
        loaded = load(str(file), (), ENVIRON)
        assert loaded.listen == Config().listen
        assert loaded.limits == Config().limits

    def test_the_later_outweighs_the_earlier(self, file: Path) -> None:
        file.write_text(
            "[listen]\nport = 1\n[limits]\nup = 1\ndown = 1\nconnections = 1\n[swarm]\nban_after = 1"
        )
        folder = file.parent / "conf.d"
        folder.mkdir()
        (folder / "10-first.toml").write_text(
            "[limits]\nup = 2\ndown = 2\nconnections = 2\n[swarm]\nban_after = 2"
        )
        (folder / "20-second.toml").write_text("[limits]\ndown = 3\nconnections = 3\n[swarm]\nban_after = 3")
        (folder / "30-not-read.txt").write_text("nonsense")
        environ = {"MICROTORRD_LIMITS_CONNECTIONS": "4", "MICROTORRD_SWARM_BAN_AFTER": "4"}
        loaded = load(str(file), ["swarm.ban_after=5"], ENVIRON | environ)
        assert loaded.listen.port == 1
        assert loaded.limits.up == 2
        assert loaded.limits.down == 3
        assert loaded.limits.connections == 4
        assert loaded.swarm.ban_after == 5

    def test_every_kind_of_value_in_a_file(self, file: Path) -> None:
        file.write_text(
            """
            [daemon]
            state_dir = "~/torrents/../state"
            [rpc]
            socket_mode = "0600"
            [listen]
            addresses = ["127.0.0.1", "::1"]
            [limits]
            down = "3 MB/s"
            up = 500_000
            [swarm]
            request_timeout = "2 min"
            idle_timeout = 90
            random_peer_share = 0
            always_unchoke = true
            [storage]
            piece_memory = "1.5 GiB"
            """
        )
        loaded = load(str(file), (), ENVIRON)
        assert loaded.daemon.state_dir == "/home/ada/state"
        assert loaded.rpc.socket_mode == 0o600
        assert loaded.listen.addresses == ("127.0.0.1", "::1")
        assert (loaded.limits.down, loaded.limits.up) == (3_000_000, 500_000)
        assert (loaded.swarm.request_timeout, loaded.swarm.idle_timeout) == (120.0, 90.0)
        assert loaded.swarm.random_peer_share == 0
        assert loaded.swarm.always_unchoke
        assert loaded.storage.piece_memory == 3 << 29

    @pytest.mark.parametrize(
        ("override", "name", "value"),
        [
            ("listen.addresses=127.0.0.1, ::1", "addresses", ("127.0.0.1", "::1")),
            ('listen.addresses=["127.0.0.1"]', "addresses", ("127.0.0.1",)),
            ("listen.addresses=", "addresses", ()),
            ("listen.addresses=[]", "addresses", ()),
            ("listen.interface=123", "interface", "123"),
            ('listen.interface="eth0"', "interface", "eth0"),
            ("listen.interface=", "interface", ""),
            ("listen.port=0", "port", 0),
        ],
    )
    def test_words_of_a_shell(self, file: Path, override: str, name: str, value: object) -> None:
        file.write_text("")
        assert getattr(load(str(file), [override], ENVIRON).listen, name) == value

    def test_more_words_of_a_shell(self, file: Path) -> None:
        file.write_text("")
        given = ["limits.down=3 MB/s", "rpc.socket_mode=0640", "swarm.always_unchoke=true", "limits.up=7"]
        loaded = load(str(file), given, ENVIRON)
        assert (loaded.limits.down, loaded.limits.up) == (3_000_000, 7)
        assert loaded.rpc.socket_mode == 0o640
        assert loaded.swarm.always_unchoke

    def test_a_relative_path_is_right_where_there_is_a_current_directory(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(file.parent)
        file.write_text("")
        loaded = load(str(file), ["daemon.state_dir=here"], ENVIRON)
        assert loaded.daemon.state_dir == str(file.parent / "here")
        assert "relative" in str(refusal(file, '[daemon]\nstate_dir = "here"'))


class TestPlaces:
    def test_a_user_without_a_file_has_the_xdg_directories(self, tmp_path: Path) -> None:
        loaded = load(None, (), {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/7"})
        assert loaded.daemon.state_dir == f"{tmp_path}/.local/state/microtorrd"
        assert loaded.rpc.socket == "/run/user/7/microtorrd/control.sock"
        assert loaded.storage.save_to == f"{tmp_path}/Downloads"

    def test_without_a_runtime_directory_the_socket_lies_with_the_state(self, tmp_path: Path) -> None:
        loaded = load(None, (), {"HOME": str(tmp_path), "XDG_STATE_HOME": f"{tmp_path}/s"})
        assert loaded.rpc.socket == f"{tmp_path}/s/microtorrd/control.sock"

    def test_the_users_own_file_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "microtorrd").mkdir()
        file = tmp_path / "microtorrd/microtorrd.toml"
        file.write_text("[listen]\nport = 4")
        environ = {"HOME": HOME, "XDG_CONFIG_HOME": str(tmp_path)}
        assert load(None, (), environ).listen.port == 4
        assert config.config_file(None, environ) == str(file)
        assert config.config_file(None, ENVIRON) is None

    def test_conf_d_counts_without_a_main_file(self, tmp_path: Path) -> None:
        (tmp_path / "microtorrd/conf.d").mkdir(parents=True)
        (tmp_path / "microtorrd/conf.d/x.toml").write_text("[listen]\nport = 5")
        assert load(None, (), {"HOME": HOME, "XDG_CONFIG_HOME": str(tmp_path)}).listen.port == 5

    def test_a_service_uses_what_systemd_gave(self, tmp_path: Path) -> None:
        environ = {
            "STATE_DIRECTORY": "/var/lib/microtorrd",
            "RUNTIME_DIRECTORY": "/run/microtorrd",
            "CONFIGURATION_DIRECTORY": str(tmp_path),
        }
        (tmp_path / "microtorrd.toml").write_text("[listen]\nport = 6")
        loaded = load(None, (), environ)
        assert loaded.listen.port == 6
        assert loaded.daemon == Config().daemon
        assert loaded.rpc == Config().rpc
        assert loaded.storage == Config().storage


class TestMistakes:
    def test_a_wrong_key_names_the_nearest_the_file_and_the_line(self, file: Path) -> None:
        error = refusal(file, "# hello\n[limits]\n\nconections = 5\n")
        assert str(error) == f"{file}:4: limits.conections is unknown: did you mean limits.connections?"
        assert (error.key, error.file, error.line) == ("limits.conections", str(file), 4)

    def test_a_key_in_the_wrong_section_names_the_right_one(self, file: Path) -> None:
        assert "did you mean listen.port?" in str(refusal(file, "[limits]\nport = 5"))

    def test_a_key_like_no_other_lists_what_there_is(self, file: Path) -> None:
        assert "[rpc] has socket, socket_mode, socket_group" in str(refusal(file, "[rpc]\nzzz = 5"))

    @pytest.mark.parametrize(
        ("text", "line", "says"),
        [
            ("[limit]\nup = 5", 1, "section [limit] is unknown: did you mean [limits]?"),
            ("\n[qqq]\nup = 5", 2, "section [qqq] is unknown: there are [daemon], [rpc]"),
            ("port = 5", 1, "section [port] is unknown"),
            ("limits = 5", 1, "limits is a section: write [limits]"),
            ("[listen]\nport = '5'", 2, "listen.port: '5' is not a number"),
            ("[listen]\nport = 5.5", 2, "listen.port: 5.5 is not a number"),
            ("[listen]\nport = true", 2, "listen.port: True is not a number"),
            ("[listen]\nport = 70000", 2, "listen.port: 70000 is out of range: from 0 to 65535"),
            ("[listen]\naddresses = '::'", 2, "listen.addresses: '::' is not a list"),
            ("[listen]\naddresses = [7]", 2, "listen.addresses: [7] is not a list of texts"),
            ("[listen]\naddresses = ['localhost']", 2, "'localhost' is not a numeric IPv4 or IPv6 address"),
            ("[limits]\nup = -1", 2, "limits.up: -1 is out of range: 0 or more"),
            ("[limits]\nup = 99999999999999999999", 2, "limits.up: 99999999999999999999 is more than"),
            ("[limits]\nup = '3 Mb/s'", 2, "limits.up: '3 Mb/s' could mean bits or bytes"),
            ("[storage]\npiece_memory = 5", 2, "5 is out of range: from 1 MiB to 64 GiB"),
            (
                "[storage]\npreallocate = 'fall'",
                2,
                "'fall' is none of none, sparse, full (did you mean 'full'?)",
            ),
            ("[storage]\npreallocate = 5", 2, "5 is none of none, sparse, full"),
            ("[swarm]\nalways_unchoke = 1", 2, "1 is not true or false"),
            ("[swarm]\nrandom_peer_share = 1.5", 2, "1.5 is out of range: from 0 to 1"),
            ("[swarm]\nrandom_peer_share = nan", 2, "out of range"),
            ("[swarm]\nrequest_timeout = inf", 2, "out of range"),
            ("[swarm]\nrequest_timeout = '5 y'", 2, "unit 'y'"),
            ("[rpc]\nsocket_mode = 660", 2, "660 is out of range"),
            ("[rpc]\nsocket_mode = '0699'", 2, "'0699' is not a mode in octal"),
            ("[rpc]\nsocket_mode = '7777'", 2, "out of range"),
            ("[rpc]\nsocket = ''", 2, "'' is not a path"),
            (f"[rpc]\nsocket = '/{'x' * 107}'", 2, "has 108 bytes, a socket's path 107"),
            ("[daemon]\nlog_level = 'Debug'", 2, "did you mean 'debug'?"),
            ("[tracker]\nbind = 'here'", 2, "'here' is not HOST:PORT"),
            ("[tracker]\nbind = '::1:80'", 2, "is not HOST:PORT"),
            ("[tracker]\nbind = '0.0.0.0:99999'", 2, "is above 65535"),
            ("[tracker]\ntrusted_proxies = ['10.0.0.1/8']", 2, "has host bits set"),
            ("[tracker]\nmin_interval = '20 min'", 2, "tracker.min_interval is longer than tracker.interval"),
            ("[tracker]\ninterval = 30", 2, "tracker.min_interval is longer than tracker.interval"),
            ("[tracker]\naccess = 'own'\nallow_file = 'list'", 3, "'list' is relative"),
            ("[tracker]\naccess = 'lists'", 2, "did you mean 'listed'?"),
            ("[tracker]\naccess = 'listed'", 2, "'listed' needs the list: tracker.allow_file"),
            ("[tracker]\nallow_file = '/list'", 2, "keeps nobody out while tracker.access is 'open'"),
            ("[listen\nport = 5", 1, "is not TOML"),
            ("[listen]\nport = 5\nport = 6\n", 3, "is not TOML"),
        ],
    )
    def test_each_is_refused_with_its_line(self, file: Path, text: str, line: int, says: str) -> None:
        error = refusal(file, text)
        assert says in str(error)
        assert str(error).startswith(f"{file}:{line}: ")

    def test_a_file_that_is_not_there_or_not_text(self, file: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            load(str(file), (), ENVIRON)
        file.write_bytes(b"[listen]\n# caf\xe9")
        with pytest.raises(ConfigError, match="is not UTF-8 text"):
            load(str(file), (), ENVIRON)
        with pytest.raises(ConfigError, match="Is a directory"):
            load(str(file.parent), (), ENVIRON)

    def test_a_link_that_leads_nowhere_is_no_empty_configuration(self, tmp_path: Path) -> None:
        usual = tmp_path / "microtorrd/microtorrd.toml"
        usual.parent.mkdir()
        usual.symlink_to(tmp_path / "gone")
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            load(None, (), ENVIRON | {"XDG_CONFIG_HOME": str(tmp_path)})

    def test_what_an_editor_leaves_in_conf_d_is_not_read(self, file: Path) -> None:
        folder = file.parent / "conf.d"
        folder.mkdir()
        file.write_text("")
        (folder / ".#x.toml").symlink_to("ada@laptop.4711")
        (folder / ".x.toml").write_text("nonsense")
        (folder / "x.toml~").write_text("nonsense")
        assert load(str(file), (), ENVIRON).listen.port == 7777

    def test_a_directory_that_cannot_be_listed_is_named(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(path: str) -> list[str]:  # as for anybody but root, who may list anything
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        monkeypatch.setattr(config.os, "listdir", refuse)
        assert str(refusal(file, "")) == f"{file.parent / 'conf.d'}: cannot be listed: Permission denied"

    def test_a_mistake_in_conf_d_names_that_file(self, file: Path) -> None:
        (file.parent / "conf.d").mkdir()
        other = file.parent / "conf.d/x.toml"
        other.write_text("[listen]\nprot = 1")
        assert str(refusal(file, "")).startswith(f"{other}:2: ")

    @pytest.mark.parametrize(
        ("environ", "says"),
        [
            ({"MICROTORRD_LISTEN_PORT": "many"}, "listen.port: 'many' is not a number"),
            ({"MICROTORRD_LISTEN_PROT": "1"}, "did you mean listen.port?"),
            ({"MICROTORRD_LISSEN_PORT": "1"}, "did you mean [listen]?"),
            ({"MICROTORRD_RPC_SOCKET": "/" + "x" * 200}, "has 201 bytes"),
        ],
    )
    def test_mistakes_in_the_environment_name_the_variable(
        self, file: Path, environ: dict[str, str], says: str
    ) -> None:
        error = refusal(file, "", **environ)
        assert says in str(error)
        assert next(iter(environ)) in str(error)

    @pytest.mark.parametrize(
        ("override", "says"),
        [
            ("listen.port", "is not section.key=value"),
            ("port=5", "is not section.key=value"),
            ("tracker_store=redis://:secret@host", "'tracker_store=' is not section.key=value"),
            ("listen.port=x", "listen.port: 'x' is not a number (--set)"),
            ("listen.prt=5", "did you mean listen.port? (--set)"),
        ],
    )
    def test_mistakes_on_the_command_line(self, file: Path, override: str, says: str) -> None:
        assert says in str(refusal(file, "", override))

    @pytest.mark.parametrize(
        "store", ["redis:/:secret@host", "redis://:se cret@host", "http://:secret@host", ":secret"]
    )
    def test_a_wrong_store_is_not_quoted_with_its_password(self, file: Path, store: str) -> None:
        error = str(refusal(file, f"[tracker]\nstore = {store!r}"))
        assert "is neither memory nor a URL" in error
        assert "cret" not in error

    def test_a_mistake_that_is_outweighed_is_still_only_read_where_it_counts(self, file: Path) -> None:
        file.write_text("[listen]\nport = 'x'")
        assert load(str(file), ["listen.port=5"], ENVIRON).listen.port == 5


class TestReload:
    def test_changes_are_told_apart(self) -> None:
        old = load(None, (), ENVIRON)
        new = load(None, ["limits.up=5", "listen.port=1", "swarm.upload_slots=2"], ENVIRON)
        assert config.diff(old, new) == config.Changes(
            live=("limits.up", "swarm.upload_slots"), restart=("listen.port",)
        )
        assert config.diff(old, old) == config.Changes((), ())

    def test_only_what_can_change_is_adopted(self) -> None:
        old = load(None, (), ENVIRON)
        new = load(None, ["limits.up=5", "listen.port=1", "listen.addresses=::"], ENVIRON)
        adopted = config.adopt(old, new)
        assert adopted.limits.up == 5
        assert adopted.listen == old.listen
        assert config.diff(adopted, new).live == ()

    def test_as_a_table_it_is_plain_and_reads_back(self) -> None:
        loaded = load(None, ["listen.addresses=::1"], ENVIRON)
        table = config.as_table(loaded)
        assert table["listen"] == {"port": 7777, "addresses": ["::1"], "interface": ""}
        assert config.adopt(loaded, loaded) == loaded

    def test_a_config_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            Config().limits.up = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("bind", "address"),
    [("0.0.0.0:8888", ("0.0.0.0", 8888)), ("[::]:0", ("::", 0)), ("[fe80::1]:65535", ("fe80::1", 65535))],
)
def test_an_address_to_bind(bind: str, address: tuple[str, int]) -> None:
    assert config.split_bind(bind) == address
