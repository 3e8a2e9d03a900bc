from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import CHROMIUM, visit

from study.figures import FIGURES
from study.report import write_report
from study.run import main
from study.tracking import Tracker

VOID = {"meta", "link", "br"}


class Structure(HTMLParser):
    """Fails on a tag that is closed out of order; collects what is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href") and tag != "a":
                self.loaded.append(str(value))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    small_study: str,
    small_table: Path,
    small_autoencoder: Path,
    empty_database: Path,
) -> Path:
    """With the report of a small study in place of table1, run to its end, and its figures."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "search_spaces").mkdir()
    (folder / "search_spaces" / "table1.yaml").write_text(small_study.replace("repeats: 2", "repeats: 1"))
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr("vsgae.latents.SHIPPED_FILE", small_autoencoder)
        for _ in range(3):
            assert main(["table1", "--local", "--data", str(small_table)]) == 0
        assert main(["figures"]) == 0
        Path("results/more.csv").write_text("row,deviation\na<b,0.123456\n")
        assert main(["report"]) == 0
    return folder


@pytest.fixture
def report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page; its folder is the working directory."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder / "results" / "report.html"


def test_the_report_is_one_page_with_every_table_and_figure_and_a_link_to_each_run(report: Path) -> None:
    text = report.read_text()
    structure = Structure()
    structure.feed(text)
    assert structure.open == []
    assert all(address.startswith(("data:", "#")) for address in structure.loaded)
    assert "<script" not in text
    for name in ("figure3", "figure4", "figure7", "predicted_and_true"):
        assert FIGURES[name].title in text
    assert FIGURES["figure8"].title not in text  # it has no runs here
    assert "<h2>Table: table1</h2>" in text
    assert '<th scope="row">boosted trees on cell features</th>' in text
    assert "<h2>Table: more</h2>" in text
    assert '<th scope="row">a&lt;b</th><td>0.1235</td>' in text
    for run in Tracker("table1").runs().values():
        assert f"http://127.0.0.1:5000/#/experiments/{run.experiment_id}/runs/{run.run_id}" in text


def test_what_is_published_stands_beside_what_was_measured_and_what_differs(report: Path) -> None:
    text = report.read_text()
    rmse = {run.tags["configuration"]: run.metrics["test_rmse"] for run in Tracker("table1").runs().values()}
    for configuration, published in {"prediction": 0.0487, "zero-shot-6": 0.0526, "zero-shot-7": 0.0571}.items():
        row = text.split(f'<th scope="row">{configuration}: Test RMSE</th>')[1].split("</tr>")[0]
        cells = [cell.split("</td>")[0] for cell in row.split("<td>")[1:]]
        assert cells[0].startswith(f"{published:.4f} ± ")
        assert cells[1].startswith(f"{rmse[configuration]:.4f} (n = 1)")
        assert float(cells[2]) == pytest.approx(rmse[configuration] - published, abs=2e-4)
        assert cells[3:] == ["table1", "small", "labels and configuration"]
    assert "other labels: source invented.csv, not official" in text


def test_links_lead_to_the_server_that_the_runs_are_on(
    report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(Path.cwd(), tmp_path / "copy"))
    runs = Tracker("table1").runs()
    monkeypatch.setattr(Tracker, "runs", lambda self: runs if self.study == "table1" else {})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org/")
    assert 'href="https://mlflow.example.org/#/experiments/' in write_report().read_text()


def test_without_tables_and_figures_there_is_no_report(study_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report"])
    assert "error: there is nothing in results/ yet; python -m study.run STUDY" in capsys.readouterr().err
    assert sorted(path.name for path in study_folder.iterdir()) == ["search_spaces"]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_opens_the_report_without_an_error_or_a_request_and_nothing_is_wider_than_the_window(
    width: int, report: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    requests, errors, taken = visit(report, tmp_path_factory.mktemp("profile"), width=width)
    assert errors == []
    assert [address for address in requests if not address.startswith("data:")] == [report.as_uri()]
    assert taken <= width


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_browser_of_these_tests_sees_requests_and_errors(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = tmp_path / "page.html"
    image = '<img src="http://127.0.0.1:44444/gone.png" style="width: 2000px">'
    page.write_text(f'{image}<script>console.error("no"); throw Error("on")</script>')
    requests, errors, taken = visit(page, tmp_path_factory.mktemp("profile"), width=500)
    assert "http://127.0.0.1:44444/gone.png" in requests
    assert len(errors) >= 3
    assert taken > 1900
