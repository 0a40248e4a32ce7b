"""Names of the files of a prediction: exports and coloured maps replace nothing that is not theirs."""

import json

from larvseg_jax.predict.names import targets


def test_an_export_that_is_of_no_prediction_is_kept(tmp_path):
    photo, summary = tmp_path / "a.jpg", tmp_path / "a.json"
    told = dict(photo=str(photo), label_map="a_labels.png", files=["a.json", "a.png", "a_labels.png", "a_colours.png"])

    def target():
        summary.write_text(json.dumps(told))
        return targets([photo], tmp_path)[0].name

    assert target() == "a.png"
    (tmp_path / "a_coco.json").write_text("{}")
    assert target() == "a_2.png"
    told["files"].append("a_coco.json")
    assert target() == "a.png"
    (tmp_path / "a_colours.png").touch()
    del told["files"]  # as written before there were coloured maps
    assert target() == "a_2.png"
