"""What a run's files say, also when they are damaged or missing."""

from ganrun.files.record import Record


def test_lines_of_one_step_are_one_row_and_a_line_cut_off_is_left_out(tmp_path):
    lines = (
        '{"step": 10, "d/loss": 1.5}',
        '{"step": 20, "d/loss": NaN}',
        '{"step": 10, "score/fid": 3.0}',
        "[1]",
        '{"step": 20, "a": "text", "b": true, "c": 1' + "0" * 400 + "}",
    )
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 30, "d/']))
    record = Record(tmp_path)
    assert record.metrics[0] == {"step": 10, "d/loss": 1.5, "score/fid": 3.0}
    assert record.names == ["d/loss", "score/fid"]
    steps, values = record.series("d/loss")
    assert steps == [10, 20] and values[0] == 1.5 and values[1] != values[1]


def test_grids_are_in_the_order_of_steps_and_other_pictures_are_no_grids(tmp_path):
    (tmp_path / "samples").mkdir()
    for name in ("step-1000000.png", "step-000500.png", "final.png", "step-mine.png"):
        (tmp_path / "samples" / name).touch()
    record = Record(tmp_path)
    assert list(record.grids()) == [500, 1_000_000]
    assert record.newest_grid() == tmp_path / "samples" / "step-1000000.png"
    (tmp_path / "result.json").write_text('{"status": "finished"}')
    assert Record(tmp_path).newest_grid() == tmp_path / "samples" / "final.png"


def test_steps_of_a_run_in_training_are_those_it_has_logged(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "d/loss": 1.5}\n{"step": 20, "d/loss": 1.5}')
    for status, steps in (("running", 20), ("failed", 13)):
        (tmp_path / "result.json").write_text(f'{{"status": "{status}", "steps": 13}}')
        assert Record(tmp_path).steps == steps


def test_a_run_without_readable_files_is_empty(tmp_path):
    hydra = tmp_path / ".hydra"
    hydra.mkdir()
    (hydra / "config.yaml").write_text("a: [1")
    (hydra / "overrides.yaml").write_bytes(b"\xff")
    (tmp_path / "result.json").write_text("[")
    record = Record(tmp_path)
    assert (record.config, record.overrides, record.result, record.metrics) == ({}, [], {}, [])
    assert record.status == "no result" and record.names == record.changes == []
    assert record.steps == 0 and record.newest_grid() is None
