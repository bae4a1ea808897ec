"""Finding and loading checkpoints: bundled, local, cached, fetched from a hub, and all that can be wrong with one."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import pickle
import pty
import shutil
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForObjectDetection, VitPoseForPoseEstimation

from streampose.errors import ModelError, UsageError
from streampose.networks.checkpoints import assets_folder, demo_clip, resolve
from streampose.networks.device import pick_device, pick_dtype
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE, KNOWN_MODELS, PAIRS, models_table, pair_of
from streampose.networks.loading import load_network
from tests.tiny import COMMIT, edit_json, into_hub_cache, save_pose, save_rt_detr, vitpose

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


def load_pose(folder: Path, **options) -> VitPoseForPoseEstimation:
    return load_network(resolve(str(folder), **options), VitPoseForPoseEstimation, torch.float32)


@pytest.mark.parametrize("name", [DEFAULT_POSE, DEFAULT_DETECTOR])
def test_bundled_names(name) -> None:
    checkpoint = resolve(name)
    assert checkpoint.folder == assets_folder() / "models" / name
    assert checkpoint.model_type == "vitpose"
    assert checkpoint.use_safetensors
    assert (checkpoint.folder / "README.md").read_text().startswith("---\nlicense: apache-2.0\n")


def test_bundled_files_are_where_they_should_be() -> None:
    assert demo_clip().is_file()
    assert assets_folder() == ROOT / "assets"


def test_known_parameter_counts_are_those_of_the_bundled_networks() -> None:
    for known in KNOWN_MODELS:
        if "/" not in known.name:
            count = sum(weight.numel() for weight in load_pose(Path(known.name)).parameters())
            assert known.parameters_m == round(count / 1e6, 1)


def test_table_has_a_line_for_every_known_model() -> None:
    header, *lines = models_table().splitlines()
    assert header.startswith("network")
    assert [line.split()[0] for line in lines] == [known.name for known in KNOWN_MODELS]
    assert all(known.accuracy in line and known.source in line for known, line in zip(KNOWN_MODELS, lines, strict=True))


def test_every_pair_is_of_known_models() -> None:
    roles = {known.name: known.role for known in KNOWN_MODELS}
    for pair in PAIRS.values():
        assert (roles[pair.pose], roles[pair.detector]) == ("pose", "detector")
    assert pair_of("bundled", None, None) == (DEFAULT_POSE, DEFAULT_DETECTOR)
    assert pair_of("best", "mine", None) == ("mine", PAIRS["best"].detector)
    assert pair_of("fast", None, "mine") == (PAIRS["fast"].pose, "mine")


def test_local_folder(tmp_path, monkeypatch, capfd) -> None:
    save_pose(tmp_path / "net")
    capfd.readouterr()
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(tmp_path / "net"), "~/net"):
        network = load_pose(name)
        assert not network.training
        assert not any(weight.requires_grad for weight in network.parameters())
    assert capfd.readouterr() == ("", ""), "nothing is written to the terminal"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vitpose-smal-streampose", "unknown model 'vitpose-smal-streampose': did you mean vitpose-small-streampose"),
        ("vitpose-base-simple", "did you mean usyd-community/vitpose-base-simple or usyd-community/vitpose-base"),
        ("rtdetr_r50vd_coco", "did you mean PekingU/rtdetr_r50vd_coco_o365"),
        ("nothing like it", r"use vitpose-small-streampose or person-detector-streampose \(bundled\), a folder"),
        ("/no/such/folder", "unknown model '/no/such/folder': use"),
        ("", "unknown model ''"),
    ],
)
def test_names_of_nothing(name, text) -> None:
    with pytest.raises(ModelError, match=text):
        resolve(name)


def test_damaged_checkpoints_end_in_one_line(tmp_path) -> None:
    good = save_pose(tmp_path / "good")

    def damaged(number: int) -> Path:
        return Path(shutil.copytree(good, tmp_path / f"bad{number}"))

    folder = damaged(0)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json in .*bad0; this is not a checkpoint in hub layout$"):
        resolve(str(folder))

    folder = damaged(1)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"cannot read config\.json: Expecting property name"):
        resolve(str(folder))
    (folder / "config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"cannot read config\.json: it is not a JSON object"):
        resolve(str(folder))
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"config\.json has no model_type; this is not a transformers checkpoint"):
        resolve(str(folder))

    folder = damaged(2)
    (folder / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"cannot load .*bad2 from .*bad2: .*[Mm]etadata|incomplete"):
        load_pose(folder)
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"cannot load .*bad2"):
        load_pose(folder)

    folder = damaged(3)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no weights \(model\.safetensors\) in .*bad3$"):
        resolve(str(folder))

    folder = damaged(4)
    edit_json(folder / "config.json", {"use_simple_decoder": False})
    with pytest.raises(
        ModelError, match=r"the weights do not match config\.json: head\.batchnorm1\.bias and \d+ others$"
    ):
        load_pose(folder)

    folder = damaged(5)
    edit_json(folder / "config.json", {"id2label": {"0": "nose"}})
    with pytest.raises(
        ModelError, match=r"bad5: the weights do not match config\.json: head\.conv\.bias and 1 others$"
    ):
        load_pose(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a" * 5000, r"cannot access folder 'a{200}\.\.\.': File name too long$"),
        ("~nobody-has-this-name/net", "cannot access folder '~nobody-has-this-name/net': Could not determine home"),
        ("org/" + "a" * 200, "no folder 'org/a{200}', and it is not a valid hub id: .* maximum length is 96"),
    ],
)
def test_names_that_no_file_system_or_hub_knows(name, text) -> None:
    with pytest.raises(ModelError, match=text):
        resolve(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_a_folder_that_may_not_be_entered(tmp_path) -> None:
    folder = save_pose(tmp_path / "locked" / "net")
    folder.parent.chmod(0)
    try:
        with pytest.raises(ModelError, match=r"cannot access folder .*net': Permission denied$"):
            resolve(str(folder))
    finally:
        folder.parent.chmod(0o700)


def test_names_may_be_paths(tmp_path) -> None:
    folder = save_pose(tmp_path / "net")
    assert resolve(folder) == resolve(str(folder))
    assert resolve(Path(DEFAULT_POSE)).folder == assets_folder() / "models" / DEFAULT_POSE


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("rescale_factor", None, "None, expected a number above 0"),
        ("rescale_factor", 0, "0, expected a number above 0"),
        ("rescale_factor", "x", "'x', expected a number above 0"),
        ("rescale_factor", 10**400, r"1000\d*\.\.\.\d*, expected a number above 0"),
        ("image_mean", "x", "'x', expected three numbers"),
        ("image_mean", "123", "'123', expected three numbers"),
        ("image_mean", [1, 2], r"\[1, 2\], expected three numbers"),
        ("image_mean", [0, 0, math.nan], r"\[0, 0, nan\], expected three numbers"),
        ("image_std", [0, 0, 0], r"\[0, 0, 0\], expected three numbers above 0"),
        ("image_std", 7, "7, expected three numbers above 0"),
    ],
)
def test_wrong_colours_name_checkpoint_file_and_key(key, value, text, tmp_path) -> None:
    folder = save_pose(tmp_path / "net")
    (folder / "preprocessor_config.json").write_text(json.dumps({key: value}))
    with pytest.raises(ModelError, match=f"net: '{key}' in preprocessor_config.json is {text}$"):
        resolve(folder).normalisation()


@pytest.mark.parametrize("value", ["x", [1], {"zero": "nose"}])
def test_wrong_names_of_channels(value, tmp_path) -> None:
    folder = save_pose(tmp_path / "net", id2label=value)
    text = r"net: 'id2label' in config\.json is .*, expected a mapping from indices to names$"
    with pytest.raises(ModelError, match=text):
        _ = resolve(folder).channel_names


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_damaged(value, tmp_path) -> None:
    model = vitpose()
    model.backbone.layernorm.weight.data[3] = value
    text = r"net: the weights are damaged: backbone\.layernorm\.weight contains non-finite values$"
    with pytest.raises(ModelError, match=text):
        load_pose(save_pose(tmp_path / "net", model))


def test_weights_in_several_files(tmp_path) -> None:
    model = vitpose()
    model.save_pretrained(tmp_path / "net", max_shard_size="20KB")
    shards = sorted((tmp_path / "net").glob("model-*.safetensors"))
    assert len(shards) > 1
    loaded = load_pose(tmp_path / "net").state_dict()
    assert all(torch.equal(weight, loaded[key]) for key, weight in model.state_dict().items())
    shards[-1].unlink()
    with pytest.raises(ModelError, match="no weights"):
        resolve(str(tmp_path / "net"))
    for names in ({"a": 5}, {"a": []}, {"a": "x" * 5000}):
        (tmp_path / "net" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
        with pytest.raises(ModelError, match="no weights"):
            resolve(str(tmp_path / "net"))


def test_pickled_weights_only_where_they_are_allowed(tmp_path) -> None:
    folder = save_pose(tmp_path / "net")
    (folder / "model.safetensors").unlink()
    torch.save(vitpose().state_dict(), folder / "pytorch_model.bin")
    text = r"the weights are pickled .*use .* safetensors, or set `allow_pickle` if you trust this one$"
    with pytest.raises(ModelError, match=text):
        resolve(str(folder))
    key = "head.conv.weight"
    assert torch.equal(load_pose(folder, allow_pickle=True).state_dict()[key], vitpose().state_dict()[key])

    # Safetensors win, and an evil pickle stays harmless even when it is allowed.
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'harm'}",)

    for damaged in (pickle.dumps(Evil()), b"garbage", b""):
        (folder / "pytorch_model.bin").write_bytes(damaged)
        with pytest.raises(ModelError, match=r"net: pytorch_model\.bin is damaged or contains more than weights$"):
            load_pose(folder, allow_pickle=True)
    (folder / "pytorch_model.bin").write_bytes(b"PK\3\4 no archive")
    with pytest.raises(ModelError, match=r"cannot load .*net from .*net: [^.]* zip archive[^.]*$"):
        load_pose(folder, allow_pickle=True)
    save_pose(folder)
    load_pose(folder, allow_pickle=True)
    assert not (tmp_path / "harm").exists()


def test_code_that_comes_with_a_checkpoint_is_not_run(tmp_path) -> None:
    folder = save_rt_detr(tmp_path / "net", ["person"])
    edit_json(
        folder / "config.json", {"auto_map": {"AutoModelForObjectDetection": "evil.Evil", "AutoConfig": "evil.Evil"}}
    )
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')")
    load_network(resolve(str(folder)), AutoModelForObjectDetection, torch.float32)
    edit_json(folder / "config.json", {"model_type": "evil"})
    with pytest.raises(ModelError, match="cannot load"):
        load_network(resolve(str(folder)), AutoModelForObjectDetection, torch.float32)
    assert not (tmp_path / "harm").exists()


RESOLVE_ALL = """
import logging, sys, time
logger = logging.getLogger("streampose")
logger.setLevel("INFO")
logger.addHandler(logging.StreamHandler(sys.stdout))
from streampose.errors import ModelError
from streampose.networks.checkpoints import resolve
for name in sys.argv[2:]:
    begun_s = time.monotonic()
    try:
        checkpoint = resolve(name, allow_pickle=sys.argv[1] == "--allow-pickle")
        print(checkpoint.folder.name, *sorted(file.name for file in checkpoint.folder.iterdir()))
    except ModelError as error:
        print(error)
    assert time.monotonic() - begun_s < 20, "hung"
"""


def resolve_elsewhere(*names: str, cache: Path, pickles: str = "--no-pickle", **environment: str) -> list[str]:
    """Resolve names in a process of its own, as huggingface_hub reads its environment when it is imported; return a
    line for each.
    """
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE_ALL, pickles, *names],
        env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_TOKEN": "", "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.splitlines()


def test_hub_ids_from_the_cache_without_a_network(tmp_path) -> None:
    folder = save_pose(tmp_path / "net")
    into_hub_cache(tmp_path / "cache", "some-one/a.pose", folder)
    (folder / "model.safetensors").unlink()
    into_hub_cache(tmp_path / "cache", "some-one/half", folder)
    names = ["some-one/a.pose", f"some-one/a.pose@{COMMIT}", "some-one/a.pose@v2", "some-one/half", "some-one/absent"]
    *found, other, half, absent = resolve_elsewhere(*names, cache=tmp_path / "cache", HF_HUB_OFFLINE="1")
    assert found == [f"{COMMIT} config.json model.safetensors"] * 2
    assert "cannot download some-one/a.pose@v2" in other
    assert "run `hf download some-one/a.pose --revision v2` on a machine with network access" in other
    assert "cannot download some-one/half" in half
    cache = tmp_path / "cache"
    assert f"it is not in the local cache ({cache}): run `hf download some-one/absent` on a machine" in absent
    assert "copy its cache to that folder, or to one that the environment variable HF_HUB_CACHE names; or" in absent
    assert "or use a local folder or a bundled network (vitpose-small-streampose, person-detector-" in absent


FILES = ["config.json", "model.safetensors", "preprocessor_config.json", "pytorch_model.bin", "README.md", "evil.py"]


class FakeHub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of the hub for the `main` revision of two models, one of them without safetensors."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]  # set in `hub`
        _, *parts = self.path.partition("?")[0].split("/")
        files = {
            f"some-one/{kind}": [file for file in FILES if kind == "good" or "safe" not in file]
            for kind in ("good", "old")
        }
        if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) in files:
            self.answer_api("/".join(parts[2:4]), files["/".join(parts[2:4])], parts[4:])
        elif parts[2:3] == ["resolve"] and parts[-1] in files.get("/".join(parts[:2]), []):
            self.answer(200, self.content(parts[-1]))
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def answer_api(self, repo: str, files: list[str], rest: list[str]) -> None:
        if rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": file, "size": len(self.content(file)), "oid": "0" * 40} for file in files
            ]
            self.answer(200, json.dumps(entries).encode())
        elif rest in ([], ["revision", "main"]):
            siblings = [{"rfilename": file} for file in files]
            self.answer(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})

    def content(self, file: str) -> bytes:
        return b'{"model_type": "vitpose"}' if file.endswith(".json") else f"content of {file}".encode()

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        etag = f'"{hashlib.sha1(body).hexdigest()}"'
        for key, value in {
            "Content-Length": str(len(body)),
            "ETag": etag,
            "X-Repo-Commit": COMMIT,
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub() -> Iterator[tuple[str, list[str]]]:
    """Run a fake hub; give its address and what it has been asked."""
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeHub) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.asked  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


def test_hub_ids_are_fetched_once(tmp_path) -> None:
    wanted = ["config.json", "model.safetensors", "preprocessor_config.json"]
    with hub() as (address, asked):
        names = ["some-one/good", "some-one/good", "some-one/good@v9", "some-one/old", "PekingU/rtdetr_r50"]
        said, first, again, revision, said_of_old, old, absent = resolve_elsewhere(
            *names, cache=tmp_path, HF_ENDPOINT=address
        )
        assert said == "downloading some-one/good from the Hugging Face hub", "once, not for the cached one"
        assert said_of_old == "downloading some-one/old from the Hugging Face hub"
        assert first == again == " ".join([COMMIT, *wanted])
        fetched = [path.rpartition("/")[2] for path in asked if "/good/resolve/" in path]
        assert set(fetched) == set(wanted)
        (offline,) = resolve_elsewhere("some-one/good", cache=tmp_path, HF_HUB_OFFLINE="1")
        assert offline == first
        assert revision == "some-one/good has no revision 'v9' on the Hugging Face hub"
        assert old.startswith("some-one/old: the weights on the hub are pickled")
        assert "`allow_pickle`" in old
        assert absent.startswith("no folder 'PekingU/rtdetr_r50', and no such model on the Hugging Face hub")
        assert "did you mean PekingU/rtdetr_r50vd or " in absent
        _, old = resolve_elsewhere("some-one/old", cache=tmp_path, pickles="--allow-pickle", HF_ENDPOINT=address)
        assert old == " ".join([COMMIT, "config.json", "preprocessor_config.json", "pytorch_model.bin"])


def test_a_terminal_shows_bars_of_what_is_fetched(tmp_path) -> None:
    """Elsewhere nothing is written: `resolve_elsewhere` looks."""
    code = "import sys; from streampose.networks.checkpoints import resolve; resolve(sys.argv[1])"
    for hides in (False, True):
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        with hub() as (address, _):
            first = "from streampose.networks.hub import hide_bars; hide_bars(); " if hides else ""
            subprocess.run(
                [sys.executable, "-c", first + code, "some-one/good"],
                env={**os.environ, "HF_HUB_CACHE": str(tmp_path / str(hides)), "HF_ENDPOINT": address, "HF_TOKEN": ""},
                cwd=ROOT,
                stderr=its,
                timeout=120,
                check=True,
            )
        os.close(its)
        written = b""
        with suppress(OSError):  # how a terminal tells that nobody writes to it any more
            while chunk := os.read(ours, 65536):
                written += chunk
        os.close(ours)
        print(written.decode())
        assert (b"%|" in written) == (not hides)
        assert b"Warning" not in written


def test_a_hub_that_cannot_be_reached_costs_seconds(tmp_path) -> None:
    (line,) = resolve_elsewhere("some-one/good", cache=tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert line.startswith("cannot download some-one/good (")
    assert "run `hf download some-one/good`" in line


def test_devices_and_dtypes() -> None:
    device = pick_device("auto")
    assert pick_device("cpu") == CPU
    assert pick_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    assert pick_dtype("auto", torch.device("mps")) == torch.float32
    assert pick_dtype("auto", torch.device("xpu")) == torch.bfloat16
    assert pick_dtype("float16", device) == torch.float16
    with pytest.raises(UsageError, match="unknown dtype 'half': choose auto or one of float32, bfloat16, float16"):
        pick_dtype("half", device)
    for wrong in ("cuda:99", "gpu", "meta", "cpu:3", ""):
        with pytest.raises(UsageError, match=f"(no|unknown) device '{wrong}'.*: choose auto or one of .*cpu$"):
            pick_device(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_comes_first() -> None:
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:0").index == 0
    assert pick_dtype("auto", pick_device("auto")) in (torch.bfloat16, torch.float16)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_labels", 10**23),
        ("edges", [[0, 1]] * 1_000_000),
        ("backbone_config", {"image_size": [100_000, 100_000]}),
        ("id2label", {str(number): "x" for number in range(20_000)}),
    ],
)
def test_numbers_beyond_every_network_are_refused_before_anything_is_built(
    tmp_path: Path, key: str, value: object
) -> None:
    folder = save_pose(tmp_path / "odd")
    edit_json(folder / "config.json", {key: value})
    with pytest.raises(ModelError, match=r"more than|larger than"):
        resolve(str(folder))


def test_deeply_nested_json_is_one_line(tmp_path: Path) -> None:
    folder = save_pose(tmp_path / "deep")
    (folder / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(ModelError, match=r"cannot read config\.json"):
        resolve(str(folder))
