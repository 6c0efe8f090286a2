"""The catalogue: which model a word means, what a broken card does to the others, and downloads that keep nothing wrong."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import head_phantom, store
from packages import write_tiny_package

from IMTCommand.__main__ import main
from IMTCore import catalogue
from IMTCore.cards import read_card
from IMTCore.catalogue import download, find_card, list_cards, remove, shipped_folder, user_folder
from IMTCore.errors import BadInput, BadModel, ImtError, OutputFailure
from IMTCore.model_packages import load_network
from IMTCore.translation import Translator
from IMTCore.volume_io import write_volume


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, empty."""
    folder = tmp_path / "models"
    monkeypatch.setenv("IMT_MODELS", str(folder))
    return folder


def change(card_path: Path, **changes: object) -> Path:
    content = json.loads(card_path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    card_path.write_text(json.dumps(content), encoding="utf-8")
    return card_path


def own_cards() -> list[str]:
    return [card.name for card in list_cards()[0] if card.path.parent == user_folder()]


# --- Folders -------------------------------------------------------------------------------------------------------


def test_the_users_folder_is_the_one_in_the_environment(models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert user_folder() == models and own_cards() == []
    write_tiny_package(models)
    assert own_cards() == ["T1-T2"]
    monkeypatch.setenv("IMT_MODELS", str(tmp_path / "other"))
    assert own_cards() == []
    monkeypatch.setenv("IMT_MODELS", "")
    assert user_folder().parts[-2:] == ("IMT", "models")


def test_listing_makes_no_folder(models: Path) -> None:
    list_cards()
    with pytest.raises(BadInput):
        remove("T1-T2")
    assert not models.exists()


# --- Names and pairs -----------------------------------------------------------------------------------------------


def test_a_name_comes_before_a_pair(models: Path) -> None:
    write_tiny_package(models, name="A", source="T1", target="T2")
    write_tiny_package(models, name="T1-T2", source="PD", target="T2")
    assert find_card("T1-T2").source == "PD"


def test_the_default_model_of_a_pair_is_the_one_that_says_so(models: Path) -> None:
    for name in ("A", "B", "C"):
        write_tiny_package(models, name=name, source="X1", target="X2")
    assert find_card("X1-X2").name == "A"
    change(models / "B.json", default=True)
    assert find_card("X1-X2").name == "B"
    with pytest.raises(BadModel, match="There is no model 'X2-X1'"):
        find_card("X2-X1")


def test_an_any_to_any_model_serves_the_pairs_of_its_codes_after_models_of_the_pair(models: Path) -> None:
    write_tiny_package(models, name="A", modalities=("X1", "X2", "X3"))
    assert {find_card(pair).name for pair in ("X1-X2", "X2-X1", "X3-X1")} == {"A"}
    for pair in ("X1-X1", "X1-X4"):
        with pytest.raises(BadModel, match=f"There is no model '{pair}'"):
            find_card(pair)
    write_tiny_package(models, name="B", source="X1", target="X2")
    assert find_card("X1-X2").name == "B" and find_card("X1-X3").name == "A"
    change(models / "A.json", default=True)
    assert find_card("X1-X2").name == "A"


def test_a_pair_may_have_any_name_that_a_modality_may_have(models: Path) -> None:
    write_tiny_package(models, name="A", source="X1-CE", target="X2_FLAIR")
    assert find_card("X1-CE-X2_FLAIR").name == "A"


@pytest.mark.parametrize("word", ["", "-", "--", "T1-", "x" * 400, "a\0b", "nothing"])
def test_an_unknown_word_gets_the_list_of_what_there_is(models: Path, word: str) -> None:
    write_tiny_package(models, name="A")
    with pytest.raises(BadModel, match=r"There is no model .*Models here: A[, .].* a pair such as T1-T2"):
        find_card(word)


def test_cards_are_found_by_path_weights_and_folder(models: Path, tmp_path: Path) -> None:
    path = write_tiny_package(tmp_path / "mine", name="A")
    for place in (path, path.with_suffix(".safetensors"), path.parent):
        assert find_card(str(place)).path == path
    write_tiny_package(tmp_path / "mine", name="B")
    with pytest.raises(BadModel, match="holds 2 model cards"):
        find_card(str(path.parent))
    with pytest.raises(BadModel, match="cannot be read"):
        find_card(str(tmp_path / "absent.json"))
    models.mkdir()
    with pytest.raises(BadModel, match="There is no model"):
        find_card(str(models))


def test_a_folder_of_images_named_like_a_model_does_not_hide_it(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_package(models, name="X1-X2")
    (tmp_path / "X1-X2").mkdir()
    (tmp_path / "X1-X2" / "scan.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert find_card("X1-X2").path.parent == models


# --- Several models together ---------------------------------------------------------------------------------------


# Run in a copy of the project, whose models are then ours to choose.
IN_A_COPY = """
import json, sys
from pathlib import Path
from IMTCore.catalogue import find_card, list_cards, remove
from IMTCore.errors import BadInput

def where(name):
    return find_card(name).path.parent.name

told = {"listed": [(card.name, card.path.parent.name) for card in list_cards()[0]], "A": where("A")}
Path(sys.argv[1]).write_text("{", encoding="utf-8")
told["broken"] = where("A")
Path(sys.argv[1]).unlink()
told["absent"] = where("A")
try:
    remove("B")
except BadInput as error:
    told["refused"] = str(error)
print(json.dumps(told))
"""


@pytest.mark.parametrize("shipped", ["Resources/IMT-models", "IMTModels"], ids=["checkout", "wheel"])
def test_a_users_model_hides_a_shipped_one_of_its_name(models: Path, tmp_path: Path, shipped: str) -> None:
    shutil.copytree(Path(catalogue.__file__).parent, tmp_path / "copy" / "IMTCore")
    folder = tmp_path / "copy" / shipped
    for name in ("A", "B"):
        write_tiny_package(folder, name=name)
    path = write_tiny_package(models, name="A", seed=2)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "copy")}
    ran = subprocess.run([sys.executable, "-c", IN_A_COPY, path], env=environment, capture_output=True, text=True, check=True)
    told = json.loads(ran.stdout)
    assert told["listed"] == [["A", "models"], ["B", folder.name]]
    assert told["A"] == "models"
    assert told["broken"] == told["absent"] == folder.name  # a broken card hides nothing
    assert "Models that come with IMT are not removed" in told["refused"]
    assert len(list(folder.iterdir())) == 4


def test_a_broken_card_is_reported_by_its_path_and_hides_nothing(models: Path) -> None:
    write_tiny_package(models, name="B")
    for name, text in (("A", "{"), ("C", "[" * 100_000), ("D", "{}")):
        (models / f"{name}.json").write_text(text, encoding="utf-8")
    (models / "E.json").mkdir()
    (models / ".imt-x-F.json").write_text("", encoding="utf-8")  # half-written by another process
    cards, problems = list_cards()
    assert "B" in [card.name for card in cards]
    assert [str(models / f"{name}.json") in problem for name, problem in zip("ACDE", problems, strict=True)] == [True] * 4
    with pytest.raises(BadModel, match=r"Not readable: .*A\.json"):
        find_card("A")


def test_only_the_named_model_is_removed(models: Path) -> None:
    write_tiny_package(models, name="A")
    kept = write_tiny_package(models, name="B")
    removed = remove("A")
    assert sorted(path.name for path in removed) == ["A.json", "A.safetensors"]
    assert sorted(path.name for path in models.iterdir()) == ["B.json", "B.safetensors"]
    with pytest.raises(BadInput, match="has no model 'A'"):
        remove("A")
    with pytest.raises(BadInput, match="has no model"):
        remove("../models/B")
    load_network(read_card(kept))


def test_removing_a_card_leaves_the_weights_that_another_card_needs(models: Path) -> None:
    kept = write_tiny_package(models, name="A")
    shutil.copy(kept, models / "B.json")
    change(models / "B.json", name="B")
    assert [path.name for path in remove("B")] == ["B.json"]
    load_network(read_card(kept))


def test_every_shipped_card_can_be_read(models: Path) -> None:
    cards, problems = list_cards()
    assert problems == []
    assert {card.path.parent for card in cards} == {shipped_folder()}


# --- Downloads -----------------------------------------------------------------------------------------------------


class Host:
    """A local HTTPS host that sends `content` in one of several ways."""

    def __init__(self, folder: Path) -> None:
        self.content, self.way, self.requests = b"", "whole", 0
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                host.requests += 1
                self.close_connection = True
                if self.path == "/absent":
                    self.send_error(404)
                    return
                self.send_response(200)
                if host.way == "cut":  # promises more than it sends
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.wfile.write(b"fffff\r\n" + host.content[:1000])
                    return
                if host.way == "length":
                    self.send_header("Content-Length", str(len(host.content)))
                self.end_headers()
                self.wfile.write(host.content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not here to make a certificate")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = subprocess.run([*command, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], capture_output=True)
    if made.returncode:
        pytest.skip(f"openssl makes no certificate: {made.stderr.decode(errors='replace')[-200:]}")
    return folder


@pytest.fixture
def host(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Host(certificate)
    yield server
    server.close()


@pytest.fixture
def remote(tmp_path: Path, host: Host, models: Path) -> Path:
    """A card whose weights are on the host only."""
    path = change(write_tiny_package(tmp_path / "shipped"), weights={"url": f"{host.url}/T1-T2.safetensors"})
    host.content = path.with_suffix(".safetensors").read_bytes()
    path.with_suffix(".safetensors").unlink()
    return path


@pytest.mark.parametrize("way", ["whole", "length"])
def test_a_download_keeps_the_right_bytes_and_the_card(remote: Path, host: Host, models: Path, way: str) -> None:
    host.way = way
    told: list[float] = []
    card = download(read_card(remote), lambda stage, fraction, message: told.append(fraction))
    assert card.path == models / "T1-T2.json" and card.weights_path.read_bytes() == host.content
    assert sorted(path.name for path in models.iterdir()) == ["T1-T2.json", "T1-T2.safetensors"]
    assert told == sorted(told) and told[-1] == 1.0
    load_network(find_card("T1-T2"))
    assert host.requests == 1


def damage(host: Host, kind: str) -> None:
    content = host.content
    host.content = {
        "changed": content[:-1] + bytes([content[-1] ^ 1]),
        "longer": content + b"\0",
        "endless": content * 300,
        "shorter": content[:-1],
        "empty": b"",
        "web page": b"<html>Log in</html>",
    }[kind]


@pytest.mark.parametrize("kind", ["changed", "longer", "endless", "shorter", "empty", "web page"])
def test_a_download_of_wrong_bytes_leaves_no_file(remote: Path, host: Host, models: Path, kind: str) -> None:
    damage(host, kind)
    message = "sends more than the" if kind in ("longer", "endless") else "size or SHA-256 differ"
    with pytest.raises(BadModel, match=f"{message}.* not kept"):
        download(read_card(remote))
    assert list(models.iterdir()) == []


def test_a_failed_download_leaves_a_model_that_is_here_as_it_was(remote: Path, host: Host, models: Path) -> None:
    card = download(read_card(remote))
    damage(host, "changed")
    with pytest.raises(BadModel, match="not kept"):
        download(card)
    load_network(find_card("T1-T2"))
    assert len(list(models.iterdir())) == 2


def test_a_lost_connection_is_told_as_such_and_leaves_no_file(remote: Path, host: Host, models: Path) -> None:
    host.way = "cut"
    with pytest.raises(ImtError, match="Cannot download https://127.0.0.1.* Check the network") as caught:
        download(read_card(remote))
    assert not isinstance(caught.value, OutputFailure | BadModel)
    assert list(models.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["{host}/absent", "https://127.0.0.1:9/x", "https://[", "https://127.0.0.1:port/x", "https://a b/ü"]
)
def test_an_address_that_gives_nothing_is_told_with_its_reason(remote: Path, host: Host, models: Path, url: str) -> None:
    change(remote, weights={"url": url.format(host=host.url)})
    with pytest.raises(ImtError, match=r"Cannot download https://.+: .+\. Check the network") as caught:
        download(read_card(remote))
    assert caught.value.exit_code == 1
    assert not models.exists()


def test_a_host_without_a_trusted_certificate_is_refused(
    remote: Path, host: Host, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ImtError, match="CERTIFICATE_VERIFY_FAILED"):
        download(read_card(remote))
    assert host.requests == 0


def test_a_card_without_an_address_says_so(models: Path, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no address"):
        download(read_card(write_tiny_package(tmp_path)))


def test_nothing_is_downloaded_unasked(
    remote: Path, host: Host, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    models.mkdir()
    shutil.copy(remote, models)
    write_volume(tmp_path / "head.nii.gz", store(head_phantom()))
    command = "imt models download T1-T2"
    assert main(["translate", str(tmp_path / "head.nii.gz"), "--output", str(tmp_path / "out.nii.gz"), "--model", "T1-T2"]) == 2
    assert command in capsys.readouterr().err
    with pytest.raises(BadModel, match=command):
        Translator(find_card("T1-T2"))
    list_cards()
    main(["models", "list"])
    main(["models", "verify"])
    assert host.requests == 0
    assert main(command.split()[1:]) == 0 and host.requests == 1
    assert np.isfinite(
        Translator(find_card("T1-T2")).translate(store(head_phantom(), spacing_kji=(8.0, 8.0, 8.0))).translation.array
    ).all()
