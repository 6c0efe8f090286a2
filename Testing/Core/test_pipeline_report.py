"""Claims on the report of `imt pipeline`: what stands in it and where, that nothing in it is executed, and its pictures."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from labelled_heads import write_heads
from packages import write_tiny_package
from test_command import Run
from tiny_segmenters import write_tiny_segmenter

from IMTCommand.__main__ import main
from IMTCommand.pipeline_pictures import PictureSlice, heat, outlined, stamped, write_png
from IMTCommand.pipeline_report import write_report
from IMTCore.label_names import default_names
from IMTCore.volume import Geometry, Volume

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def imt(capfd) -> Callable[..., Run]:
    def call(*arguments: object) -> Run:
        capfd.readouterr()
        code = main(["pipeline", *map(str, arguments)])
        return Run(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Results of three cases, one of them broken; not to be changed."""
    root = tmp_path_factory.mktemp("report")
    write_heads(root / "in", ("ann", "bob", "eve"))
    (root / "in" / "eve" / "T1.nii.gz").write_bytes(b"no image")
    model = write_tiny_package(root / "models", name="T1-FLAIR-tiny", target="FLAIR")
    tissue = write_tiny_segmenter(root / "models", name="tissue-tiny").path
    words = ("--translate", model, "--segment", tissue, "--evaluate", "--reference", "tissues.nii.gz", "--no-modality-check")
    assert main(["pipeline", str(root / "in"), "--output", str(root / "out"), *map(str, words)]) == 3
    return root / "out"


@pytest.fixture
def own(folder, tmp_path) -> Path:
    """The results, to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "out"))


def test_failures_come_first_with_reason_and_log(folder):
    page = Page(folder / "report.html")
    titles = ("Failures", "Translations against", "Segmentation against", "Volumes", "Pictures", "How it was made")
    places = [page.text.index(title) for title in titles]
    assert places == sorted(places)
    failure = page.text[page.text.index("Failures") : places[1]]
    assert "eve" in failure and "is not a readable image" in failure and "Export it again" in failure
    links = [link["href"] for link in page.all("a")]
    assert "logs/eve.log" in links and all((folder / link).is_file() for link in links)


def test_the_numbers_are_those_of_the_tables(folder):
    text = Page(folder / "report.html").text
    with open(folder / "image_scores.csv", newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if (row["scaling"], row["region"]) == ("range", "mask")]
    assert len(rows) == 2
    values = [float(row["ssim"]) for row in rows]
    assert f"{np.mean(values):.3f} ({np.std(values, ddof=1):.3f})" in text
    worst = min(rows, key=lambda row: float(row["psnr"]))["case"]
    table = text[text.index("worst first") :]
    assert table.index(worst) < table.index(({"ann", "bob"} - {worst}).pop())
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert all(model["sha256"] in text for model in record["models"]) and record["machine"]["torch"] in text


def test_the_page_stands_alone_and_can_be_read_without_seeing(folder):
    page = Page(folder / "report.html")
    images = page.all("img")
    assert len(images) == 2 * 5
    assert all(image["src"].startswith("data:image/png;base64,") and len(image["alt"]) > 10 for image in images)
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert page.all("html")[0]["lang"] == "en" and page.all("title") and page.all("caption") and page.all("th")
    content = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=[\"']?(https?:|//)|url\(|@import", content)
    assert "default-src 'none'" in content and "prefers-color-scheme: dark" in content
    assert "For research, not for diagnosis" in page.text


def test_text_from_outside_is_never_markup(own):
    summary = own / "summary.csv"
    with open(summary, newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    rows[1][-1] = rows[3][-1] = HOSTILE
    rows.append(["x" + HOSTILE, "", "", "T1", "failed", "failed", "", "", "", "1", HOSTILE])
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    summary.write_text(text.getvalue(), encoding="utf-8")
    path = own / "logs" / "ann.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["stages"]["translate"]["warnings"] = HOSTILE
    record["stages"]["segment"]["found"]["statistics"][0]["name"] = HOSTILE
    for entry in record["pictures"]["pictures"]:
        entry["caption"] = entry["alt"] = HOSTILE
    record["pictures"]["pictures"].append({"file": "../in/ann/T1.nii.gz", "caption": "", "alt": ""})
    path.write_text(json.dumps(record), encoding="utf-8")
    (own / "run.json").write_text(json.dumps({"input": HOSTILE, "machine": {HOSTILE: HOSTILE}}), encoding="utf-8")
    page = Page(write_report(own))
    assert not page.all("script") and all("onerror" not in image for image in page.all("img"))
    assert len(page.all("img")) == 10, "no file from outside the pictures' folder"
    assert page.text.count("<script>alert(1)</script>") >= 5


@pytest.mark.parametrize("content", ["", "[1]", '{"stages": 1}', '{"stages": {"evaluate": {"found": {"comparisons": [1]}}}}', '{"stages": {"translate": 7}}'])
def test_a_damaged_record_is_left_out(own, content):
    (own / "logs" / "ann.json").write_text(content, encoding="utf-8")
    page = Page(write_report(own))
    assert len(page.all("img")) == 5 and "bob" in page.text


def test_a_run_that_was_killed_has_a_report_too(imt, own):
    summary = (own / "summary.csv").read_text(encoding="utf-8")
    (own / "summary.csv").write_text(summary.replace("bob,bob,,T1,done,done", "bob,bob,,T1,running,running"), encoding="utf-8")
    (own / "report.html").unlink()
    run = imt("--output", own, "--report-only")
    assert run.code == 0 and "report.html" in run.out
    text = Page(own / "report.html").text
    assert "goes on with them: bob" in text


def test_a_report_needs_results(imt, tmp_path):
    imt("--output", tmp_path, "--report-only").refusal(2, "--report-only", "pipeline's results")
    imt("--report-only").refusal(2, "--output")


def pixels_of(path: Path) -> np.ndarray:
    """[row, column, 3] uint8, as another program reads it."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_pictures_say_that_they_are_synthetic(folder):
    pictures = folder / "pictures" / "ann"
    marked = pixels_of(pictures / "synthetic0.png")
    assert (marked == (255, 210, 0)).all(axis=2).sum() > 50
    assert not (pixels_of(pictures / "input.png") == (255, 210, 0)).all(axis=2).any()


def test_a_png_holds_the_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (33, 20, 3), dtype=np.uint8)
    write_png(tmp_path / "x.png", pixels)
    assert np.array_equal(pixels_of(tmp_path / "x.png"), pixels)


def test_outlines_and_colours():
    labels = np.zeros((12, 12), np.uint8)
    labels[3:9, 3:9] = 2
    drawn = outlined(np.zeros((12, 12, 3), np.uint8), labels, default_names([2]))
    changed = drawn.any(axis=2)
    assert changed[3:9, 3:9].sum() >= 20 and not changed[5:7, 5:7].any() and not changed[labels == 0].any()
    assert heat(np.array([[0.0, 1 / 3, 1.0, 5.0]])).tolist() == [[[0, 0, 0], [255, 0, 0], [255, 255, 255], [255, 255, 255]]]
    assert stamped(np.full((9, 9, 3), 90, np.uint8)).shape == (9, 9, 3), "a picture too small for the word stays a picture"


def test_the_slice_shown_of_a_head_with_a_neck_goes_through_the_brain() -> None:
    array = np.zeros((100, 40, 40), np.float32)  # 2 mm: a broad neck and shoulders below, a head of 100 mm above
    array[0:45, 2:38, 2:38] = 1.0
    array[45:95, 10:30, 10:30] = 1.0
    given = Volume(array, Geometry((100, 40, 40), np.full(3, 2.0), np.zeros(3), np.eye(3)), "T1.nii.gz")
    assert 50 <= PictureSlice(given).k <= 80
    labels = np.zeros(array.shape, np.uint8)
    labels[70:90, 12:14, 12:14] = 1
    labels[85, 10:30, 10:30] = 2
    assert PictureSlice(given, labels).k == 85
