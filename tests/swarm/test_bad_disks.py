"""Disks that are full, gone, read-only or not what they were, and a daemon killed in the middle of things.

Each error has its name and its line in the log, nothing that was acknowledged is lost, nothing foreign is
touched, and what can go on by itself does.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.daemons import Daemon
from microtorrd.errors import CallerError, NotAllowed
from mtorrctl.exits import Unreachable
from tests.swarm.disks import (
    MIB,
    NO_MOUNTS,
    Sample,
    Source,
    at,
    behind,
    can_mount,
    make_sample,
    needs_mounts,
    plain_log,
    seen_by,
    started,
    until,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    place = tmp_path_factory.mktemp("source")
    tracker = {"tracker__enabled": "true", "tracker__bind": "127.0.0.1:0"}
    with Daemon(place / "daemon", **tracker) as daemon:
        yield Source(daemon, place)


# ----------------------------------------------------------------------------------- the save directory


@dataclass
class Patient:
    """A torrent on a disk that fails it, and what was seen of it."""

    sample: Sample
    save_to: Path
    down: int = 0  # limit, so that it is not done at once
    is_mount: bool = True  # only the daemon sees what is there
    error: dict[str, str] = field(default_factory=dict)
    done_bytes: int = 0  # when it had failed
    least_bytes: int = 0  # that it ever had from then on
    seen: list[str] = field(default_factory=list)  # in the directory then
    is_whole: bool = False  # in the end
    lines: list[str] = field(default_factory=list)  # of the log


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory, source: Source) -> dict[str, Patient]:
    """One daemon and many disks. All fail, one way or another; then all are well again."""
    if not can_mount():
        pytest.skip(NO_MOUNTS)
    place = tmp_path_factory.mktemp("ward")
    directories = {
        name: place / name for name in ("read-only", "full", "disk", "unmounted", "vanished", "well")
    }
    for directory in directories.values():
        directory.mkdir()
    (place / "file").write_text("precious")

    def patient(name: str, save_to: Path, **more: Any) -> Patient:
        return Patient(source.sample(f"{name}.bin", 3 * MIB + 77), save_to, **more)

    patients = {
        "read-only": patient("read-only", directories["read-only"]),
        "full": patient("full", directories["full"], down=3 * MIB),
        "unmounted": patient("unmounted", directories["unmounted"], down=3 * MIB),
        "vanished": patient("vanished", directories["vanished"], down=3 * MIB, is_mount=False),
        "below a file": patient("below-a-file", place / "file" / "below", is_mount=False),
        "well": patient("well", directories["well"], is_mount=False),
    }
    disk, unmounted = directories["disk"], directories["unmounted"]
    prefix = behind(
        f"mount -t tmpfs -o ro none {directories['read-only']}",
        f"mount -t tmpfs -o size=1m none {directories['full']}",
        f"mount -t tmpfs none {disk}",
        f"mount --bind {disk} {unmounted}",
    )
    with started(Daemon(place / "daemon", prefix=prefix, storage__min_free=0)) as daemon:

        def state(name: str, wanted: str) -> dict[str, Any]:
            return until(daemon, patients[name].sample, lambda row: row["state"] == wanted)

        for one in patients.values():
            daemon.call("torrent.add", metainfo=one.sample.raw, save_to=str(one.save_to), down=one.down)
        for name in ("unmounted", "vanished"):
            until(daemon, patients[name].sample, lambda row: row["progress"] > 0.2)
        at(daemon, "umount", "-l", unmounted)
        # A file that is open goes on to be written, as anywhere: this opens it anew.
        daemon.call("torrent.pause", id=patients["unmounted"].sample.name)
        state("unmounted", "stopped")
        daemon.call("torrent.resume", id=patients["unmounted"].sample.name)
        directories["vanished"].rename(place / "unplugged")
        for name, one in patients.items():
            if name != "well":
                row = state(name, "failed")
                one.error, one.done_bytes = row["error"], row["done_bytes"]
                there = seen_by(daemon, one.save_to)
                one.seen = os.listdir(there) if there.is_dir() else []
        state("well", "seeding")
        at(daemon, "mount", "-o", "remount,rw", directories["read-only"])
        at(daemon, "mount", "-o", "remount,size=20m", directories["full"])
        at(daemon, "mount", "--bind", disk, unmounted)
        (place / "unplugged").rename(directories["vanished"])
        assert (place / "file").read_text() == "precious"
        (place / "file").unlink()
        (place / "file").mkdir()
        for one in patients.values():
            one.least_bytes = len(one.sample.data)

            def is_seeding(row: dict[str, Any], one: Patient = one) -> bool:
                one.least_bytes = min(one.least_bytes, row["done_bytes"])
                return row["state"] == "seeding"

            until(daemon, one.sample, is_seeding, for_s=60)
            one.is_whole = one.sample.is_at(seen_by(daemon, one.save_to) if one.is_mount else one.save_to)
            one.lines = [
                line for line in plain_log(daemon).splitlines() if f"torrent={one.sample.name}" in line
            ]
    return patients


@pytest.mark.parametrize(
    ("name", "causes"),
    [
        ("read-only", {"read_only"}),
        ("full", {"no_space"}),
        ("unmounted", {"missing_root"}),
        ("vanished", {"missing_root", "changed"}),
        ("below a file", {"missing_root", "not_found"}),
    ],
)
def test_a_disk_that_fails_parks_its_torrent_until_it_is_well(
    ward: dict[str, Patient], name: str, causes: set[str]
) -> None:
    patient = ward[name]
    assert patient.error["cause"] in causes
    assert patient.error["path"].startswith(str(patient.save_to.parent))
    assert patient.error["path"] in patient.error["message"]
    assert patient.is_whole
    parked = [line for line in patient.lines if " torrent_parked " in line]
    assert len(parked) == 1 and f"cause={patient.error['cause']}" in parked[0]


def test_nothing_is_made_where_a_disk_is_missing(ward: dict[str, Patient]) -> None:
    assert ward["unmounted"].seen == []
    assert ward["vanished"].seen == []
    assert ward["read-only"].seen == []


def test_what_was_verified_before_stays_so(ward: dict[str, Patient]) -> None:
    for name in ("full", "unmounted", "vanished"):
        assert ward[name].done_bytes > 0, name
        assert ward[name].least_bytes >= ward[name].done_bytes, name


def test_the_others_notice_nothing(ward: dict[str, Patient]) -> None:
    assert ward["well"].is_whole
    assert not any("parked" in line for line in ward["well"].lines)


@needs_mounts
def test_space_is_reserved_at_once_and_left_for_others(tmp_path: Path, source: Source) -> None:
    """With full preallocation nothing is made where it does not fit above the floor."""
    sample = source.sample("reserved.bin", 5 * MIB)
    disk = tmp_path / "disk"
    disk.mkdir()
    prefix = behind(f"mount -t tmpfs -o size=12m none {disk}")
    settings = {"storage__preallocate": "full", "storage__min_free": "8 MiB"}
    with started(Daemon(tmp_path / "daemon", prefix=prefix, **settings)) as daemon:
        daemon.call("torrent.add", metainfo=sample.raw, save_to=str(disk))
        error = until(daemon, sample, lambda row: row["state"] == "failed")["error"]
        assert error["cause"] == "no_space"
        assert os.listdir(seen_by(daemon, disk)) == []
        at(daemon, "mount", "-o", "remount,size=14m", disk)
        until(daemon, sample, lambda row: row["state"] == "seeding")
        assert sample.is_at(seen_by(daemon, disk))


def test_a_limit_on_the_size_of_files(tmp_path: Path, source: Source) -> None:
    """The kernel says so with a signal, too, which must not end the daemon."""
    sample = source.sample("limited.bin", 5 * MIB)
    with started(Daemon(tmp_path / "daemon", prefix=("prlimit", f"--fsize={4 * MIB}"))) as daemon:
        daemon.call("torrent.add", metainfo=sample.raw)
        error = until(daemon, sample, lambda row: row["state"] == "failed")["error"]
        assert error["cause"] == "no_space"
        assert "too large" in error["message"].lower()


# ------------------------------------------------------------------------- something else has the name


def put_file(path: Path, elsewhere: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(20 * MIB))


def put_directory(path: Path, elsewhere: Path) -> None:
    path.mkdir(parents=True)
    (path / "of somebody").write_text("precious")


def put_link(path: Path, elsewhere: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(elsewhere / "victim")


def put_dangling_link(path: Path, elsewhere: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(elsewhere / "to be made")


def put_link_to_directory(path: Path, elsewhere: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(elsewhere)


def put_fifo(path: Path, elsewhere: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


OBSTACLES = [put_file, put_directory, put_link, put_dangling_link, put_link_to_directory, put_fifo]


def test_something_else_in_the_place_of_a_file(tmp_path: Path) -> None:
    """Each in the way of a new torrent, of one file and of several: it is named, and left alone."""
    single, tree = make_sample("single", 300_000), make_sample("tree", 300_000, 0, 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "victim").write_text("precious")
    with started(Daemon(tmp_path / "daemon")) as daemon:
        for below in ("single", "tree", "tree/part-0", "tree/part-1"):
            for put in OBSTACLES:
                if put is put_directory and below == "tree":
                    continue  # where it should be
                sample = single if below == "single" else tree
                save_to = tmp_path / below.replace("/", "-") / put.__name__
                put(save_to / below, elsewhere)
                before = fingerprint(save_to)
                daemon.call("torrent.add", metainfo=sample.raw, save_to=str(save_to))
                error = until(daemon, sample, lambda row: row["state"] == "failed")["error"]
                assert error["cause"] in {"changed", "not_found", "missing_root"}, (below, put, error)
                assert str(save_to / sample.name) in error["message"], (below, put, error)
                assert fingerprint(save_to) == before, (below, put)
                daemon.call("torrent.remove", id=sample.name, data=True)
                assert os.listdir(elsewhere) == ["victim"], (below, put)
                assert (elsewhere / "victim").read_text() == "precious", (below, put)
        daemon.stop()  # what is done behind a removal is done now
        for below in ("single", "tree", "tree/part-0", "tree/part-1"):
            for put in OBSTACLES:
                path = tmp_path / below.replace("/", "-") / put.__name__ / below
                assert os.path.lexists(path) or (put is put_directory and below == "tree"), path
        daemon.start()


def fingerprint(root: Path) -> list[tuple[str, int, int]]:
    """What lies there, and that it is the same."""
    found = []
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            stat = os.lstat(os.path.join(folder, name))
            found.append((os.path.join(folder, name), stat.st_mode, stat.st_ino))
    return sorted(found)


def truncate(path: Path, sample: Sample) -> None:
    os.truncate(path, 100_000)


def delete(path: Path, sample: Sample) -> None:
    path.unlink()


def swap_for_link(path: Path, sample: Sample) -> None:
    path.rename(path.with_suffix(".other"))
    path.symlink_to(path.with_suffix(".other"))


def swap_for_directory(path: Path, sample: Sample) -> None:
    path.unlink()
    path.mkdir()


def grow(path: Path, sample: Sample) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwrite(path: Path, sample: Sample) -> None:
    path.write_bytes(bytes(len(sample.data)))


def test_files_that_change_while_they_are_seeded(tmp_path: Path) -> None:
    """At the next start, if not before, it is seen, also where nothing but the time of the file tells."""
    damages = [truncate, delete, swap_for_link, swap_for_directory, grow, overwrite]
    samples = {damage: make_sample(damage.__name__, 300_000) for damage in damages}
    well = make_sample("well", 300_000)
    daemon = Daemon(tmp_path / "daemon")
    with started(daemon):
        for sample in (*samples.values(), well):
            daemon.call("torrent.add", metainfo=sample.raw, seed_path=str(sample.write(tmp_path)))
        for sample in (*samples.values(), well):
            until(daemon, sample, lambda row: row["state"] == "seeding")
        for damage, sample in samples.items():
            damage(tmp_path / sample.name, sample)
    with started(daemon):
        for damage, sample in samples.items():
            error = until(daemon, sample, lambda row: row["state"] == "failed")["error"]
            assert error["cause"] in {"changed", "mismatch", "not_found"}, (damage, error)
            assert str(tmp_path / sample.name) in error["message"], (damage, error)
        until(daemon, well, lambda row: row["state"] == "seeding")


# --------------------------------------------------------------------------------- the state directory


@needs_mounts
def test_a_full_state_directory(tmp_path: Path) -> None:
    """What cannot be put on record is refused with the reason; what is on record stays; then all goes on."""
    state = tmp_path / "daemon" / "state"
    state.mkdir(parents=True)
    prefix = behind(f"mount -t tmpfs -o size=400k none {state}")
    samples = [make_sample(f"file-{number}", 300_000, piece_bytes=4096) for number in range(60)]
    with started(Daemon(tmp_path / "daemon", prefix=prefix)) as daemon:
        added: list[Sample] = []
        refusal: CallerError | None = None
        for sample in samples:
            try:
                daemon.call("torrent.add", metainfo=sample.raw, paused=True)
            except NotAllowed as error:
                refusal = error
                break
            added.append(sample)
        assert refusal is not None and "cannot be put on record" in str(refusal)
        assert refusal.data["cause"] == "no_space"
        for method, params in (
            ("torrent.limit", {"down": 1000}),
            ("torrent.remove", {}),
            ("torrent.remove", {"data": True}),
            ("torrent.pause", {}),
            ("torrent.resume", {}),
            ("torrent.seed", {}),
            ("torrent.verify", {}),
            ("torrent.move", {"save_to": str(tmp_path / "elsewhere")}),
        ):
            try:
                daemon.call(method, id=added[0].name, **params)
            except NotAllowed as error:
                assert "no_space" in str(error.data) or "is being moved" in str(error), (method, error)
        assert len(daemon.call("torrent.list")["torrents"]) == len(added)
        at(daemon, "mount", "-o", "remount,size=20m", state)
        daemon.call("torrent.add", metainfo=samples[-1].raw, paused=True)
        daemon.call("torrent.limit", id=added[1].name, down=12345)
        daemon.call("torrent.remove", id=added[2].name)
        listed = daemon.call("torrent.list")["torrents"]
        expected = {sample.name for sample in added} - {added[2].name} | {samples[-1].name}
        assert {row["name"] for row in listed} == expected
        assert "Traceback" not in daemon.log(), plain_log(daemon)[-6000:]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def fill_with_noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(50_000))


def spoil_pages(path: Path) -> None:
    """The head is well, and nothing else."""
    raw = path.read_bytes()
    path.write_bytes(raw[:100] + random.Random(2).randbytes(len(raw) - 100))


def lose_but_for_journal(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(random.Random(3).randbytes(5000))
    path.unlink()


def put_directory_there(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_another_database(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photos (name TEXT)")
    connection.commit()
    connection.close()


def write_as_newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def drop_table(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE torrents")
    connection.close()


def spoil_row(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE torrents SET name = x'ffff'")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": empty,
    "cut": cut,
    "noise": fill_with_noise,
    "spoiled pages": spoil_pages,
    "only its journal": lose_but_for_journal,
    "a directory": put_directory_there,
    "another database": put_another_database,
    "a newer one": write_as_newer,
    "without a table": drop_table,
    "a name that is no text": spoil_row,
}


@dataclass
class Refusal:
    """How a daemon did not start on a damaged database."""

    path: Path
    done: subprocess.CompletedProcess[str]
    is_unchanged: bool


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refusal]:
    """A daemon for each damage, a few at a time."""
    place = tmp_path_factory.mktemp("databases")
    with Daemon(place / "maker") as daemon:
        daemon.call("torrent.add", metainfo=make_sample("kept.bin", 100_000).raw, paused=True)
    database = (place / "maker" / "state" / "state.sqlite").read_bytes()

    def refuse(name: str) -> Refusal:
        path = place / name.replace(" ", "-") / "state" / "state.sqlite"
        path.parent.mkdir(parents=True)
        path.write_bytes(database)
        DAMAGES[name](path)
        before = path.read_bytes() if path.is_file() else None
        done = run_daemon(path.parent.parent)
        return Refusal(path, done, (path.read_bytes() if path.is_file() else None) == before)

    with ThreadPoolExecutor(3) as threads:
        return dict(zip(DAMAGES, threads.map(refuse, DAMAGES), strict=True))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_database_stops_the_start_and_is_left_alone(
    refusals: dict[str, Refusal], name: str
) -> None:
    refusal = refusals[name]
    assert refusal.done.returncode == 1, refusal.done.stderr
    assert str(refusal.path) in told(refusal.done)
    assert refusal.is_unchanged


def test_metainfo_that_is_damaged_on_record_harms_no_other(tmp_path: Path) -> None:
    """More of them than are looked at at a time: each is shown as failed, can be removed, and added anew."""
    well = make_sample("well.bin", 300_000)
    ill = [make_sample(f"ill-{number}.bin", 300_000) for number in range(20)]
    daemon = Daemon(tmp_path / "daemon")
    with started(daemon):
        for sample in (*ill, well):
            daemon.call("torrent.add", metainfo=sample.raw, seed_path=str(sample.write(tmp_path)))
        for sample in (*ill, well):
            until(daemon, sample, lambda row: row["state"] == "seeding")
    with closing(sqlite3.connect(tmp_path / "daemon/state/state.sqlite", isolation_level=None)) as database:
        for number, sample in enumerate(ill):
            key = (sample.info_hash,)
            if number % 3 == 0:
                database.execute("UPDATE metainfo SET raw = x'00' WHERE info_hash = ?", key)
            elif number % 3 == 1:
                database.execute("DELETE FROM metainfo WHERE info_hash = ?", key)
            else:
                database.execute("UPDATE metainfo SET raw = ? WHERE info_hash = ?", (well.raw, *key))
    with started(daemon):
        until(daemon, well, lambda row: row["state"] == "seeding")
        for sample in ill:
            error = until(daemon, sample, lambda row: row["state"] == "failed")["error"]
            assert error["cause"] == "corrupt" and "damaged" in error["message"]
        sample = ill[0]
        for method, params in (
            ("torrent.resume", {}),
            ("torrent.verify", {}),
            ("torrent.files", {}),
            ("torrent.show", {}),
            ("torrent.seed", {}),
            ("torrent.pause", {}),
        ):
            daemon.call(method, id=sample.name, **params)
        with pytest.raises(NotAllowed):
            daemon.call("torrent.move", id=sample.name, save_to=str(tmp_path / "elsewhere"))
        daemon.call("torrent.remove", id=sample.name, data=True)
        assert sample.is_at(tmp_path)
        daemon.call("torrent.add", metainfo=sample.raw, seed_path=str(tmp_path / sample.name))
        until(daemon, sample, lambda row: row["state"] == "seeding")


def run_daemon(
    place: Path, *, state_dir: Path | None = None, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """A daemon that is not expected to start."""
    settings = {
        "daemon.state_dir": state_dir or place / "state",
        "rpc.socket": place / "control.sock",
        "listen.port": 0,
        "listen.addresses": "127.0.0.1",
        "daemon.log_format": "console",
    }
    command = [
        sys.executable,
        "-m",
        "microtorrd",
        *(f"--set={key}={value}" for key, value in settings.items()),
    ]
    return subprocess.run([*prefix, *command], capture_output=True, text=True, timeout=30, check=False)


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The one line about what went wrong."""
    assert "Traceback" not in done.stderr + done.stdout, done.stderr + done.stdout
    lines = (done.stderr + done.stdout).splitlines()
    (line,) = [line for line in lines if "start_failed" in line or line.startswith("microtorrd: ")]
    return line


def test_a_state_directory_that_is_none(tmp_path: Path) -> None:
    """A file in its place, and one below a file: one line, and the code for a wrong configuration."""
    file = tmp_path / "file"
    file.write_text("precious")
    for place in (file, file / "below"):
        done = run_daemon(tmp_path, state_dir=place)
        assert done.returncode == 78, done.stderr
        assert str(file) in told(done)
    assert file.read_text() == "precious"


@needs_mounts
def test_a_read_only_state_directory(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    done = run_daemon(tmp_path, prefix=behind(f"mount -t tmpfs -o ro none {state}"))
    assert done.returncode == 78, done.stderr
    assert "read-only file system" in told(done).lower()


# ------------------------------------------------------------------------------------------- kill -9


def kill(daemon: Daemon) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGKILL)
    daemon.process.wait()


def test_every_acknowledged_add_survives(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "daemon")
    samples = [make_sample(f"file-{number}", 1000, piece_bytes=16384) for number in range(300)]
    acknowledged: set[str] = set()
    todo = iter(samples)
    for most in (1, 17, 60):
        with daemon.start().client() as client:
            try:
                for count, sample in enumerate(todo):
                    acknowledged.add(client.call("torrent.add", metainfo=sample.raw, paused=True)["name"])
                    if count == most:
                        kill(daemon)
            except Unreachable:
                continue
    with started(daemon):
        listed = {row["name"] for row in daemon.call("torrent.list")["torrents"]}
    assert len(acknowledged) == 1 + 17 + 60 + 3
    assert acknowledged <= listed


def test_an_acknowledged_removal_survives(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "daemon")
    samples = [make_sample(f"file-{number}", 2 * MIB) for number in range(6)]
    with daemon:
        for sample in samples:
            daemon.call("torrent.add", metainfo=sample.raw, seed_path=str(sample.write(tmp_path)))
        for sample in samples:
            until(daemon, sample, lambda row: row["state"] == "seeding")
        with daemon.client() as client:
            for sample in samples[:3]:
                client.call("torrent.remove", id=sample.name, data=True)
            kill(daemon)
        with started(daemon):
            listed = {row["name"] for row in daemon.call("torrent.list")["torrents"]}
            assert listed == {sample.name for sample in samples[3:]}
            for sample in samples[3:]:
                until(daemon, sample, lambda row: row["state"] == "seeding")
                assert sample.is_at(tmp_path)


@pytest.mark.parametrize("across", [False, True])
def test_a_kill_in_the_middle_of_a_move_leaves_one_whole_copy(tmp_path: Path, across: bool) -> None:
    """Within a filesystem and from one to another, at several moments."""
    sample = make_sample("tree", 20 * MIB, 0, 1, 12 * MIB + 5)
    here, there = tmp_path / "here", tmp_path / "there"
    if across:
        there = Path("/dev/shm") / f"mt-{os.getpid()}-there"
    sample.write(here)
    daemon = Daemon(tmp_path / "daemon")
    try:
        with daemon:
            daemon.call("torrent.add", metainfo=sample.raw, seed_path=str(here / sample.name))
            until(daemon, sample, lambda row: row["state"] == "seeding")
            place, target = here, there
            for delay_s in (0.0, 0.02, 0.1):
                daemon.call("torrent.move", id=sample.name, save_to=str(target))
                assert daemon.process is not None
                try:
                    daemon.process.wait(delay_s)
                except subprocess.TimeoutExpired:
                    kill(daemon)
                daemon.start()
                row = until(daemon, sample, lambda row: row["state"] == "seeding")
                assert sample.is_at(Path(row["save_to"])), f"after {delay_s} s"
                place = Path(row["save_to"])
                target = here if place == there else there
                leftovers = (
                    [name for name in os.listdir(target) if name.startswith(".")] if target.exists() else []
                )
                assert leftovers == [], f"after {delay_s} s"
                for (
                    path
                ) in sample.files:  # a copy at the place that it came from is nobody's loss, but in the way
                    (target / Path(*path)).unlink(missing_ok=True)
        assert "Traceback" not in daemon.log(), plain_log(daemon)[-6000:]
    finally:
        if across:
            subprocess.run(["rm", "-rf", there], check=True)
